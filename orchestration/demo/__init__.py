"""The embedded default: drawn tasks of four reward families, a tiny Qwen2.5-VL made from nothing, its warm start."""
