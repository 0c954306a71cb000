"""Model folder and datasets of a run: found, or made by the demo and the data engine."""
