"""A training run: batches, steps, recovery, held-out scores, metrics and the report."""
