"""Model families: what differs between Qwen2.5-VL, InternVL and the next one, a file each."""
