"""Small random models in folders laid out as their makers publish them: files, keys, tensor names, types and shards.

What the demo's models have in common with a run's, these have not: bfloat16 in several files, names from before
transformers 5, keys that config.json leaves out, tokens that the model has no logit for.

Source: Qwen/Qwen2.5-VL-3B-Instruct and -7B-Instruct, and OpenGVLab/InternVL3-1B-hf, with every size made small.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

PublishedName = Literal["qwen2_5_vl_3b", "qwen2_5_vl_7b", "internvl3_1b"]

CORPUS = ["user assistant system what colour is the large red circle left of the small blue square? yes no 1 2 3"] * 20
WIDTH = 64
LAYERS = 2
WEIGHT_STD = 0.08
"""Sharp enough that sampling is not uniform and greedy tokens do not tie in bfloat16."""
SHARD_BYTES = 200_000

QWEN_TOKENS = (
    "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>",
    "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>", "<tool_call>",
    "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>",
    "<|file_sep|>",
)  # fmt: skip
"""Behind <|endoftext|>, <|im_start|> and <|im_end|>: 151643 to 151664."""
INTERNVL_TOKENS = (
    "<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>", "<video>",
)  # fmt: skip
"""151665 to 151674; vocab_size is 151674, so that <video> is the first id without a logit."""

QWEN_TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}"
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "{% set image_count.value = image_count.value + 1 %}{% if add_vision_id %}Picture {{ image_count.value }}: "
    "{% endif %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}"
    "{% set video_count.value = video_count.value + 1 %}{% if add_vision_id %}Video {{ video_count.value }}: "
    "{% endif %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INTERNVL_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "{{ '<IMG_CONTEXT>\n' }}{% elif content['type'] == 'video' %}{{ '<video>\n' }}"
    "{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}{{'<|im_end|>\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\n' }}{% endif %}"
)


def write_published(folder: Path, name: PublishedName) -> set[str]:
    """Write a folder laid out as the model `name` is published, and return the published names of its tensors.

    Qwen2.5-VL-3B's output head is its embedding; the other two have a head of their own.

    Args:
        folder: to make; must not exist.
        name: of the published model.
    """
    folder.mkdir(parents=True)
    is_qwen = name != "internvl3_1b"
    ids = _write_tokenizer(folder, is_qwen)
    config = _qwen_config(ids, is_tied=name == "qwen2_5_vl_3b") if is_qwen else _internvl_config(ids)
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", _generation(ids, name))
    _write_json(folder / "preprocessor_config.json", QWEN_PREPROCESSOR if is_qwen else INTERNVL_PREPROCESSOR)
    if is_qwen:
        _write_json(folder / "chat_template.json", {"chat_template": QWEN_TEMPLATE})
    else:
        (folder / "chat_template.jinja").write_text(INTERNVL_TEMPLATE)
        _write_json(folder / "processor_config.json", {"image_seq_length": 256, "processor_class": "InternVLProcessor"})
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return _write_weights(folder, is_tied=name == "qwen2_5_vl_3b")


def published_name(name: str, *, is_qwen: bool) -> str:
    """Return the name under which a parameter of transformers' module is published.

    Example:
        >>> published_name("model.language_model.layers.0.mlp.up_proj.weight", is_qwen=True)
        'model.layers.0.mlp.up_proj.weight'
        >>> published_name("lm_head.weight", is_qwen=False)
        'language_model.lm_head.weight'
    """
    if is_qwen:
        return name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")
    if name.startswith("lm_head."):
        return f"language_model.{name}"
    return name.replace("model.language_model.", "language_model.model.").removeprefix("model.")


QWEN_PREPROCESSOR: dict[str, Any] = {
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2_5_VLProcessor",
}
INTERNVL_PREPROCESSOR: dict[str, Any] = {
    "crop_size": None,
    "crop_to_patches": False,
    "data_format": "channels_first",
    "default_to_square": True,
    "device": None,
    "do_center_crop": None,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_processor_type": "GotOcr2ImageProcessorFast",
    "image_std": [0.229, 0.224, 0.225],
    "input_data_format": None,
    "max_patches": 12,
    "min_patches": 1,
    "processor_class": "InternVLProcessor",
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "return_tensors": None,
    "size": {"height": 448, "width": 448},
}


def _write_tokenizer(folder: Path, is_qwen: bool) -> dict[str, int]:
    """Write the files of the tokenizer and return the id of every added token; `""` is the number of all tokens."""
    from orchestration.demo.tiny_model import CHAT_TOKENS, train_tokenizer

    special = QWEN_TOKENS if is_qwen else (*QWEN_TOKENS, *INTERNVL_TOKENS)
    tokenizer = train_tokenizer(CORPUS, special_tokens=special, vocab_size=576)
    tokenizer.save(str(folder / "tokenizer.json"))
    saved = json.loads((folder / "tokenizer.json").read_text())
    _write_json(folder / "vocab.json", saved["model"]["vocab"])
    merges = [" ".join(pair) for pair in saved["model"]["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    added = {
        str(entry["id"]): {key: entry[key] for key in entry if key != "id"}  # as published: without the id inside
        for entry in saved["added_tokens"]
    }
    config: dict[str, Any] = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": [token for token in (*CHAT_TOKENS[1:], *special) if "tool_call" not in token],
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 131072 if is_qwen else 12288,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    if is_qwen:
        config["chat_template"] = QWEN_TEMPLATE
    else:
        config |= {
            "processor_class": "InternVLProcessor",
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        }
    _write_json(folder / "tokenizer_config.json", config)
    return {"": tokenizer.get_vocab_size(), **{entry["content"]: entry["id"] for entry in saved["added_tokens"]}}


def _generation(ids: dict[str, int], name: PublishedName) -> dict[str, Any]:
    ends = {"bos_token_id": ids["<|endoftext|>"], "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]]}
    if name == "internvl3_1b":
        return {"_from_model_config": True, **ends, "transformers_version": "4.52.0.dev0"}
    sampling: dict[str, Any] = {"repetition_penalty": 1.05, "temperature": 1e-06}
    return {
        **ends,
        "pad_token_id": ids["<|endoftext|>"],
        "do_sample": True,
        **sampling,
        "transformers_version": "4.49.0",
    }


def _qwen_config(ids: dict[str, int], *, is_tied: bool) -> dict[str, Any]:
    """The language model's keys stand at the top; the vocabulary is rounded up, ids without a token included."""
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "attention_dropout": 0.0,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "vision_token_id": ids["<|vision_pad|>"],
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "hidden_act": "silu",
        "hidden_size": WIDTH,
        "initializer_range": 0.02,
        "intermediate_size": 2 * WIDTH,
        "max_position_embeddings": 128000,
        "max_window_layers": 70,
        "model_type": "qwen2_5_vl",
        "num_attention_heads": 2,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": 1,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": is_tied,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.41.2",
        "use_cache": True,
        "use_sliding_window": False,
        "vision_config": {
            "depth": LAYERS,
            "hidden_act": "silu",
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_heads": 2,
            "in_chans": 3,
            "out_hidden_size": WIDTH,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": [LAYERS - 1],
            "tokens_per_second": 2,
            "temporal_patch_size": 2,
        },
        "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]},
        "vocab_size": -(-ids[""] // 64) * 64 + 64,
    }


def _internvl_config(ids: dict[str, int]) -> dict[str, Any]:
    """Whether the head is the embedding is said nowhere; the head is no copy of it."""
    return {
        "architectures": ["InternVLForConditionalGeneration"],
        "downsample_ratio": 0.5,
        "image_seq_length": 256,
        "image_token_id": ids["<IMG_CONTEXT>"],
        "model_type": "internvl",
        "projector_hidden_act": "gelu",
        "text_config": {
            "_attn_implementation_autoset": True,
            "architectures": ["Qwen2ForCausalLM"],
            "attention_dropout": 0.0,
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "hidden_act": "silu",
            "hidden_size": WIDTH,
            "initializer_range": 0.02,
            "intermediate_size": 2 * WIDTH,
            "max_position_embeddings": 32768,
            "max_window_layers": 70,
            "model_type": "qwen2",
            "num_attention_heads": 2,
            "num_hidden_layers": LAYERS,
            "num_key_value_heads": 1,
            "rms_norm_eps": 1e-06,
            "rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"},
            "rope_theta": 1000000.0,
            "sliding_window": None,
            "torch_dtype": "bfloat16",
            "use_cache": True,
            "use_sliding_window": False,
            "vocab_size": ids["<video>"],
        },
        "torch_dtype": "bfloat16",
        "transformers_version": "4.52.0.dev0",
        "vision_config": {
            "architectures": ["InternVisionModel"],
            "attention_bias": True,
            "attention_dropout": 0.0,
            "dropout": 0.0,
            "hidden_act": "gelu",
            "hidden_dropout_prob": 0.0,
            "hidden_size": WIDTH,
            "image_size": [448, 448],
            "initializer_factor": 0.1,
            "initializer_range": 1e-10,
            "intermediate_size": 2 * WIDTH,
            "layer_norm_eps": 1e-06,
            "layer_scale_init_value": 0.1,
            "model_type": "internvl_vision",
            "norm_type": "layer_norm",
            "num_attention_heads": 2,
            "num_channels": 3,
            "num_hidden_layers": LAYERS,
            "patch_size": [14, 14],
            "projection_dropout": 0.0,
            "torch_dtype": "bfloat16",
            "use_absolute_position_embeddings": True,
            "use_mask_token": False,
            "use_mean_pooling": True,
            "use_qk_norm": False,
        },
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
    }


def _write_weights(folder: Path, *, is_tied: bool) -> set[str]:
    """Write random bfloat16 weights in several files with an index; norms are near one, as in trained models."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(folder)
    config.tie_word_embeddings = config.get_text_config().tie_word_embeddings = is_tied
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    is_qwen = config.model_type == "qwen2_5_vl"
    generator = torch.Generator().manual_seed(0)

    def drawn() -> Iterator[tuple[str, torch.Tensor]]:
        for name, parameter in model.named_parameters():
            noise = WEIGHT_STD * torch.randn(parameter.shape, generator=generator)
            is_scale = parameter.ndim == 1 and name.endswith("weight")
            yield published_name(name, is_qwen=is_qwen), (noise + float(is_scale)).bfloat16()

    shards: list[dict[str, torch.Tensor]] = [{}]
    for name, tensor in drawn():
        if sum(other.nbytes for other in shards[-1].values()) + tensor.nbytes > SHARD_BYTES and shards[-1]:
            shards.append({})
        shards[-1][name] = tensor
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(shard, file))
    total = sum(tensor.nbytes for shard in shards for tensor in shard.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    _write_json(folder / "model.safetensors.index.json", index)
    return set(weight_map)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
