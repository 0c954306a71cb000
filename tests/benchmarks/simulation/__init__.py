"""A cluster in virtual time: simulated engines, reward actors and learner ranks under the product's own loop."""
