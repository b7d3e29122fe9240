"""Shipped documents that are written by fitting, one a file."""
