"""Readers of what others measured: traces and tables, as rows."""
