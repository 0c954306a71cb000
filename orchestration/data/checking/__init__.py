"""Whether a raw row can be used, and its one canonical form."""
