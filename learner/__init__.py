"""The learner room: scored groups in, policy updates out."""
