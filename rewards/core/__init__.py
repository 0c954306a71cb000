"""Requests, results, settings and frames: what readers and reward functions share."""
