"""Runs rollout, rewards and learner together: the training run, the other commands, and the embedded demo."""
