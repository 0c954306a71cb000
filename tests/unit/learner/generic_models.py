"""Tiny folders of architectures that no family knows: random weights, own processors, one small tokenizer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from learner_scenarios import keep_first_gradients, start_trainer, weights_of

SPECIAL = {
    "pad_token": "<pad>",
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "image_token": "<image>",
    "boi_token": "<boi>",
    "eoi_token": "<eoi>",
    "audio_token": "<audio>",
    "boa_token": "<boa>",
    "eoa_token": "<eoa>",
    "video_token": "<video>",
    "image_break_token": "<break>",
    "fake_image_token": "<fake_token_around_image>",
    "global_image_token": "<global-img>",
    "image_start_token": "<|image_start|>",
    "image_end_token": "<|image_end|>",
    "image_thumbnail_token": "<|img_thumbnail|>",
}
IDS = {name: place for place, name in enumerate(SPECIAL)}
VOCAB_SIZE = 320
TEXT: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,  # the least of vLLM's CPU build
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.1,
}
SIGLIP: dict[str, Any] = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
}
TEMPLATE = (
    "{% for m in messages %}<bos>{{ m['role'] }}:{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}IMAGE{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    "{% endif %}<eos>{% endfor %}{% if add_generation_prompt %}<bos>assistant:{% endif %}"
)


def make_tokenizer(place: str = "<image>") -> Any:
    """A tokenizer of bytes; `place` is what the chat template writes for an image."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    marks = list(SPECIAL.values())
    vocabulary = {token: number for number, token in enumerate([*marks, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    named = {name: SPECIAL[name] for name in ("pad_token", "bos_token", "eos_token")}
    extra = {name: token for name, token in SPECIAL.items() if name not in named}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **named,
        extra_special_tokens=extra,
        chat_template=TEMPLATE.replace("IMAGE", place),
        padding_side="right",
    )


def write_gemma4(folder: Path) -> None:
    """As the E2B and E4B sizes: sliding layers, inputs of each layer, shared keys and values, capped logits."""
    _write_gemma4(folder, None)


def write_gemma4_both_ways(folder: Path) -> None:
    """As the larger sizes: image tokens attend both ways in the sliding layers."""
    _write_gemma4(folder, "vision")


def _write_gemma4(folder: Path, both_ways: str | None) -> None:
    from transformers import Gemma4Config, Gemma4ForConditionalGeneration, Gemma4Processor
    from transformers.models.gemma4.feature_extraction_gemma4 import Gemma4AudioFeatureExtractor
    from transformers.models.gemma4.image_processing_gemma4 import Gemma4ImageProcessor
    from transformers.models.gemma4.video_processing_gemma4 import Gemma4VideoProcessor

    config = Gemma4Config(
        text_config={
            **TEXT,
            # Rounding grows more than in others: with 0.1, float32 gradients of transformers itself are 1.6e-5 from
            # those in float64. Attention is not uniform all the same, as queries and keys are normed.
            "initializer_range": 0.02,
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_kv_shared_layers": 0 if both_ways else 2,
            "sliding_window": 12,
            "global_head_dim": 64,
            "hidden_size_per_layer_input": 0 if both_ways else 8,
            "vocab_size_per_layer_input": VOCAB_SIZE,
            "final_logit_softcapping": 3.0,
            "use_bidirectional_attention": both_ways,
            "tie_word_embeddings": True,
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "patch_size": 8,
            "pooling_kernel_size": 2,
            "position_embedding_size": 64,
            "initializer_range": 0.1,
        },
        audio_config=None,
        **_ids("image", "video", "audio", "boi", "eoi", "boa"),
        eoa_token_index=IDS["eoa_token"],
        tie_word_embeddings=True,
    )
    Gemma4ForConditionalGeneration(config).save_pretrained(folder)
    sizes = {"patch_size": 8, "pooling_kernel_size": 2, "max_soft_tokens": 70}
    Gemma4Processor(
        Gemma4AudioFeatureExtractor(),
        Gemma4ImageProcessor(**sizes),
        make_tokenizer(),
        Gemma4VideoProcessor(**sizes),
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
        image_seq_length=70,
    ).save_pretrained(folder)


def write_gemma3(folder: Path) -> None:
    """Image tokens attend both ways in all layers; images become one size."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3ImageProcessor, Gemma3Processor

    config = Gemma3Config(
        text_config={
            **TEXT,
            "layer_types": ["sliding_attention", "full_attention"],
            "sliding_window": 12,
            "query_pre_attn_scalar": 16,
        },
        vision_config=SIGLIP,
        mm_tokens_per_image=4,
        image_token_index=IDS["image_token"],
        boi_token_index=IDS["boi_token"],
        eoi_token_index=IDS["eoi_token"],
    )
    Gemma3ForConditionalGeneration(config).save_pretrained(folder)
    Gemma3Processor(
        Gemma3ImageProcessor(size={"height": 56, "width": 56}),
        make_tokenizer("<boi>"),
        chat_template=TEMPLATE.replace("IMAGE", "<boi>"),
        image_seq_length=4,
    ).save_pretrained(folder)


def write_idefics3(folder: Path) -> None:
    """Images cut into a grid of tiles with a thumbnail; one row of tiles a prompt."""
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3ImageProcessor, Idefics3Processor

    config = Idefics3Config(
        text_config={**TEXT, "model_type": "llama", "tie_word_embeddings": True},  # vLLM reads it here
        vision_config={**SIGLIP, "model_type": "idefics3_vision"},
        image_token_id=IDS["image_token"],
        scale_factor=2,
        pad_token_id=0,
        tie_word_embeddings=True,
    )
    Idefics3ForConditionalGeneration(config).save_pretrained(folder)
    Idefics3Processor(
        Idefics3ImageProcessor(size={"longest_edge": 112}, max_image_size={"longest_edge": 56}),
        make_tokenizer(),
        image_seq_len=4,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    ).save_pretrained(folder)


def write_mistral3(folder: Path) -> None:
    """Images of any size, padded to the largest; a token at the end of each row."""
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration, PixtralImageProcessor, PixtralProcessor

    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Mistral3Config(
        text_config={**TEXT, "model_type": "mistral", "sliding_window": None},
        vision_config={"model_type": "pixtral", **vision, "image_size": 112, "patch_size": 14, "head_dim": 16},
        image_token_index=IDS["image_token"],
        spatial_merge_size=2,
    )
    Mistral3ForConditionalGeneration(config).save_pretrained(folder)
    PixtralProcessor(
        PixtralImageProcessor(size={"longest_edge": 112}, patch_size={"height": 28, "width": 28}),
        make_tokenizer(),
        patch_size=14,
        spatial_merge_size=2,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
        image_token="<image>",
        image_break_token="<break>",
        image_end_token="<eoi>",
    ).save_pretrained(folder)


def write_glm4v(folder: Path) -> None:
    """M-RoPE positions and patches of any resolution."""
    from transformers import Glm4vConfig, Glm4vForConditionalGeneration, Glm4vImageProcessor, Glm4vProcessor
    from transformers.models.glm4v.video_processing_glm4v import Glm4vVideoProcessor

    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2], "partial_rotary_factor": 0.5}
    config = Glm4vConfig(
        text_config={**TEXT, "rope_parameters": rope},
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "num_heads": 2,
            "image_size": 112,
            "patch_size": 14,
            "out_hidden_size": 64,
            "intermediate_size": 64,
        },
        **_ids("image", "video", "image_start", "image_end"),
        video_start_token_id=IDS["boa_token"],
        video_end_token_id=IDS["eoa_token"],
    )
    Glm4vForConditionalGeneration(config).save_pretrained(folder)
    size = {"shortest_edge": 56 * 56, "longest_edge": 112 * 112}
    Glm4vProcessor(
        Glm4vImageProcessor(size=size),
        make_tokenizer(),
        Glm4vVideoProcessor(size=size),
        chat_template=TEMPLATE.replace("IMAGE", "<|image_start|><image><|image_end|>"),
    ).save_pretrained(folder)


def write_llava_onevision(folder: Path) -> None:
    """Tiles of any resolution with a learned row end; several images in a prompt are not cut."""
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        LlavaOnevisionImageProcessor,
        LlavaOnevisionProcessor,
    )
    from transformers.models.llava_onevision.video_processing_llava_onevision import LlavaOnevisionVideoProcessor

    pinpoints = [[56, 112], [112, 56], [112, 112]]
    config = LlavaOnevisionConfig(
        text_config={**TEXT, "model_type": "qwen2"},
        vision_config={**SIGLIP, "vision_use_head": False},
        image_token_index=IDS["image_token"],
        video_token_index=IDS["video_token"],
        image_grid_pinpoints=pinpoints,
    )
    LlavaOnevisionForConditionalGeneration(config).save_pretrained(folder)
    size = {"height": 56, "width": 56}
    LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=pinpoints),
        make_tokenizer(),
        LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    ).save_pretrained(folder)


def write_lfm2_vl(folder: Path) -> None:
    """A language model of convolutions and attention; patches in rows of one length."""
    from transformers import (
        Lfm2VlConfig,
        Lfm2VlForConditionalGeneration,
        Lfm2VlImageProcessor,
        Lfm2VlProcessor,
    )

    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Lfm2VlConfig(
        text_config={**TEXT, "model_type": "lfm2", "layer_types": ["conv", "full_attention"], "block_multiple_of": 8},
        vision_config={
            "model_type": "siglip2_vision_model",
            **vision,
            "patch_size": 14,
            "num_patches": 64,
            "vision_use_head": False,
        },
        image_token_id=IDS["image_token"],
        projector_hidden_size=64,
    )
    Lfm2VlForConditionalGeneration(config).save_pretrained(folder)
    Lfm2VlProcessor(
        Lfm2VlImageProcessor(
            encoder_patch_size=14,
            min_image_tokens=4,
            max_image_tokens=16,
            max_num_patches=64,
            do_image_splitting=False,
            tile_size=56,
        ),
        make_tokenizer(),
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    ).save_pretrained(folder)


def write_text(folder: Path, model_type: str, **changes: Any) -> None:
    """A language model with a tokenizer alone."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{**TEXT, "tie_word_embeddings": False, **changes})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)


VISION: dict[str, Callable[[Path], None]] = {
    "gemma4": write_gemma4,
    "gemma4_both_ways": write_gemma4_both_ways,
    "gemma3": write_gemma3,
    "idefics3": write_idefics3,
    "mistral3": write_mistral3,
    "glm4v": write_glm4v,
    "llava_onevision": write_llava_onevision,
    "lfm2_vl": write_lfm2_vl,
}


def write_vision(folder: Path, name: str) -> None:
    torch.manual_seed(0)
    VISION[name](folder)


def step_with_text_apart(rank: int, num_ranks: int, port: int, folder: Path, groups: list[Any]) -> dict[str, Any]:
    """One training step; of two ranks the first gets the groups without images."""
    trainer = start_trainer(rank, num_ranks, port, folder, micro_batch_tokens=400)
    gradients = keep_first_gradients(trainer)
    own = [group for group in groups if num_ranks == 1 or bool(group.images) == bool(rank)]
    report = trainer.train_step(own, step=0)
    result = {"gradients": gradients, "metrics": report.metrics, "weights": weights_of(trainer)}
    trainer.close()
    return result


def _ids(*names: str) -> dict[str, int]:
    return {f"{name}_token_id": IDS[f"{name}_token"] for name in names}
