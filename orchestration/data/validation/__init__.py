"""Stage 2: whether a raw row can be used."""
