"""Network: who shares which links, and how long what they move takes. Knows no model, no clock."""
