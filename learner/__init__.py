"""The learner: scored groups in, policy updates out."""
