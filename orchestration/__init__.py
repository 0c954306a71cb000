"""The conductor: runs rollout, rewards and learner together, and holds the embedded demo."""
