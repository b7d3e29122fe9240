"""Driver: from an experiment to a result, through all rooms in turn."""
