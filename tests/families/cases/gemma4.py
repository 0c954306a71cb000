"""A tiny Gemma 4 as the E2B and E4B sizes, which runs on the generic path; its padding token is not token 0."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.families.case import IMAGE_TOKEN, TEXT, VIDEO_TOKEN, VISION_END, VISION_START, VOCAB_SIZE, Case

PATCH, POOL, MOST_TOKENS = 8, 2, 70
SIZES = {"patch_size": PATCH, "pooling_kernel_size": POOL, "max_soft_tokens": MOST_TOKENS}


def config(tie_word_embeddings: bool) -> Any:
    from transformers import Gemma4Config

    return Gemma4Config(
        text_config={
            **TEXT,
            # Rounding grows more than in others: with 0.1, float32 gradients of transformers itself are 1.6e-5 from
            # those in float64. Attention is not uniform all the same, as queries and keys are normed.
            "initializer_range": 0.02,
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_kv_shared_layers": 2,
            "sliding_window": 12,
            "head_dim": 32,
            "global_head_dim": 32,
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": VOCAB_SIZE,
            "final_logit_softcapping": 3.0,
            # Image tokens take the inputs of layers from it. vLLM takes token 0 whatever this says.
            # Its embedding begins at zero, where norms are steep: a token that no text has.
            "pad_token_id": VOCAB_SIZE - 1,
            "tie_word_embeddings": tie_word_embeddings,
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "patch_size": PATCH,
            "pooling_kernel_size": POOL,
            "position_embedding_size": 64,
            "default_output_length": MOST_TOKENS,
            "initializer_range": 0.1,
        },
        audio_config=None,
        image_token_id=IMAGE_TOKEN,
        video_token_id=VIDEO_TOKEN,
        boi_token_id=VISION_START,
        eoi_token_id=VISION_END,
        tie_word_embeddings=tie_word_embeddings,
    )


def processor(tokenizer: Any) -> Any:
    from transformers import Gemma4Processor
    from transformers.models.gemma4.feature_extraction_gemma4 import Gemma4AudioFeatureExtractor
    from transformers.models.gemma4.image_processing_gemma4 import Gemma4ImageProcessor
    from transformers.models.gemma4.video_processing_gemma4 import Gemma4VideoProcessor

    return Gemma4Processor(
        Gemma4AudioFeatureExtractor(),
        Gemma4ImageProcessor(**SIZES),
        tokenizer,
        Gemma4VideoProcessor(**SIZES),
        image_seq_length=MOST_TOKENS,
    )


def num_image_tokens(width: int, height: int) -> int:
    """Return as many as fit: a picture is made as large as its tokens allow."""
    from transformers.models.gemma4.image_processing_gemma4 import get_aspect_ratio_preserving_size

    rows, columns = get_aspect_ratio_preserving_size(height, width, PATCH, MOST_TOKENS * POOL**2, POOL)
    return (rows // (PATCH * POOL)) * (columns // (PATCH * POOL))


def scale_layers(folder: Path) -> None:
    """Store other scales of the layers than 1; they are buffers, which are read and not trained."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    scales = [name for name in tensors if name.endswith(".layer_scalar")]
    assert len(scales) == 4
    tensors |= {name: torch.full_like(tensors[name], 0.5 + 0.1 * place) for place, name in enumerate(scales)}
    save_file(tensors, path, metadata={"format": "pt"})


CASE = Case(
    name="gemma4",
    config=config,
    processor=processor,
    control_tokens=("<|image>", "<image|>", "<|image|>", "<|video|>", "<|audio>", "<audio|>", "<|audio|>"),
    token_names=("boi_token", "eoi_token", "image_token", "video_token", "boa_token", "eoa_token", "audio_token"),
    image_markup="<|image|>",
    num_image_tokens=num_image_tokens,
    as_published=scale_layers,
    parts={
        "vision_tower": "model.vision_tower.patch_embedder.input_proj.weight",
        "projector": "model.embed_vision.embedding_projection.weight",
        "language_model": "model.language_model.norm.weight",
    },
)
