"""Hydra YAML; this marker makes `pkg://conf` resolve from any working directory."""
