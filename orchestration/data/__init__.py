"""The data engine: raw public datasets in, one verified, mixed, difficulty-selected dataset out."""
