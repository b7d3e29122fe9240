"""Tell: what a run means, as numbers, tables, traces and figures. Reads timelines, changes none."""
