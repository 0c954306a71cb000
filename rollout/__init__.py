"""Rollout: prompts in, groups of completions with behaviour logprobs out."""
