"""Exact attention over prefix-shared token streams, one kernel a file."""
