"""The policy as one forward call: model, weights, what is trained, and the micro-batches that it reads."""
