"""Thin Ray classes around engine, reward and trainer: each settles its process, then forwards calls."""
