"""One learner rank and its training steps."""
