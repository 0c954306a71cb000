"""What a Hugging Face folder holds: shapes, tensors, tokens per image, chat template; read without loading weights."""
