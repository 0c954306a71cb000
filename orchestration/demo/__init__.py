"""The demo, which is the default run: drawn tasks for four rewards, a tiny model made from scratch, its warm start."""
