"""Stage 3: one form for references, options, boxes and prompts."""
