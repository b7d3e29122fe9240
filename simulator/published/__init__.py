"""Published: what papers and repositories print, beside what we simulate."""
