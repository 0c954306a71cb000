"""Pools of engines, reward actors and learner ranks: calls, replacement of lost actors, weight updates."""
