"""The embedded default: drawn tasks of four reward families, a tiny model made from nothing, its warm start."""
