"""Price: what each op and each message costs in seconds. Nothing here has a clock."""
