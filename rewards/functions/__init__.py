"""The reward functions, one for each kind of task."""
