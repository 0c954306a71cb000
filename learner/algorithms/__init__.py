"""Advantages, losses and token log-probabilities as plain functions of tensors."""
