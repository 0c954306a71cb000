"""Benchmarks by name: which rows a preset takes, what one answer scores, which metrics sum up a table of rows."""
