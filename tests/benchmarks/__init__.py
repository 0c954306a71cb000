"""Speed, as ratios and rates measured side by side in one run: `python -m tests.benchmarks.NAME`."""
