"""The model families that the demo makes in miniature, one a file."""
