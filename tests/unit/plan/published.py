"""Sizes that the makers published in each model's config.json, copied by hand; what plans of the recipes rest on."""

from typing import Any


def qwen(hidden: int, mlp: int, layers: int, heads: int, kv_heads: int, vocab: int, *, tied: bool = False,
         vision_mlp: int = 3420) -> dict[str, Any]:  # fmt: skip
    """Qwen2.5-VL in its published layout: the language model's keys stand at the top."""
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        "tie_word_embeddings": tied,
        "use_sliding_window": False,
        "sliding_window": 32768,
        "max_window_layers": layers,
        "max_position_embeddings": 128000,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "image_token_id": 151655,
        "video_token_id": 151656,
        "vision_start_token_id": 151652,
        "vision_end_token_id": 151653,
        "vision_token_id": 151654,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.41.2",
        "use_cache": True,
        "vision_config": {
            "depth": 32,
            "hidden_act": "silu",
            "hidden_size": 1280,
            "intermediate_size": vision_mlp,
            "num_heads": 16,
            "in_chans": 3,
            "out_hidden_size": hidden,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
            "tokens_per_second": 2,
            "temporal_patch_size": 2,
        },
    }


INTERN_VIT_300M = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "attention_bias": True,
    "use_qk_norm": False,
    "norm_type": "layer_norm",
}
INTERN_VIT_6B = {
    "hidden_size": 3200,
    "intermediate_size": 12800,
    "num_hidden_layers": 45,
    "num_attention_heads": 25,
    "attention_bias": False,
    "use_qk_norm": True,
    "norm_type": "rms_norm",
}


def internvl(hidden: int, mlp: int, layers: int, heads: int, kv_heads: int, tower: dict[str, Any]) -> dict[str, Any]:
    """InternVL3 in transformers' own layout."""
    return {
        "architectures": ["InternVLForConditionalGeneration"],
        "model_type": "internvl",
        "downsample_ratio": 0.5,
        "image_seq_length": 256,
        "image_token_id": 151667,
        "projector_hidden_act": "gelu",
        "tie_word_embeddings": False,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
        "text_config": {
            "model_type": "qwen2",
            "hidden_act": "silu",
            "hidden_size": hidden,
            "intermediate_size": mlp,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "vocab_size": 151674,
            "rms_norm_eps": 1e-06,
            "rope_theta": 1000000.0,
            "max_position_embeddings": 32768,
            "tie_word_embeddings": False,
        },
        "vision_config": {
            "model_type": "internvl_vision",
            "image_size": [448, 448],
            "patch_size": [14, 14],
            "num_channels": 3,
            "hidden_act": "gelu",
            "use_mask_token": False,
            "use_mean_pooling": True,
            "use_absolute_position_embeddings": True,
            **tower,
        },
    }


PUBLISHED: dict[str, dict[str, Any]] = {
    "qwen2_5_vl_3b": qwen(2048, 11008, 36, 16, 2, 151936, tied=True),
    "qwen2_5_vl_7b": qwen(3584, 18944, 28, 28, 4, 152064),
    "qwen2_5_vl_32b": qwen(5120, 27648, 64, 40, 8, 152064, vision_mlp=3456),
    "qwen2_5_vl_72b": qwen(8192, 29568, 80, 64, 8, 152064, vision_mlp=3456),
    "internvl3_1b": internvl(896, 4864, 24, 14, 2, INTERN_VIT_300M),
    "internvl3_2b": internvl(1536, 8960, 28, 12, 2, INTERN_VIT_300M),
    "internvl3_8b": internvl(3584, 18944, 28, 28, 4, INTERN_VIT_300M),
    "internvl3_38b": internvl(5120, 27648, 64, 40, 8, INTERN_VIT_6B),
}
