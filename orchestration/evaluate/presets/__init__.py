"""Benchmarks: which rows a preset takes, how one answer is scored, which metrics and intervals summarise them."""
