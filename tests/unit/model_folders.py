"""Small whole model folders, laid out as published ones, for tests that break them; made without torch in a moment."""

import copy
import json
import struct
from math import prod
from pathlib import Path
from typing import Any

from orchestration.demo.tiny_model import chat_template, train_tokenizer
from orchestration.models.chat_template import INTERNVL_TOKENS
from orchestration.models.shapes import read_shape
from tests.tiny_models import tiny

ITEM_BYTES = {"BF16": 2, "F32": 4, "F8_E4M3": 1, "I32": 4, "U8": 1}


def write_safetensors(path: Path, tensors: dict[str, tuple[str, tuple[int, ...], bytes | None]]) -> None:
    """Write (dtype, shape, bytes) by name; None for zeros."""
    header: dict[str, Any] = {}
    parts: list[bytes] = []
    end = 0
    for name, (dtype, shape, data) in tensors.items():
        data = bytes(prod(shape) * ITEM_BYTES[dtype]) if data is None else data
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + len(data)]}
        parts.append(data)
        end += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))


def tensors_of(config: dict[str, Any]) -> dict[str, tuple[str, tuple[int, ...], bytes | None]]:
    """Tensors of a configuration under the names of published checkpoints; the head is no copy of the table."""
    family = config["model_type"]
    found: dict[str, tuple[str, tuple[int, ...], bytes | None]] = {}
    for tensor in read_shape(config).tensors:
        name = tensor.name
        if family == "qwen2_5_vl":
            name = name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")
        else:
            name = name.replace("model.language_model.", "language_model.model.")
            name = name.replace("model.vision_tower.", "vision_tower.").replace("model.multi_modal", "multi_modal")
            name = name.replace("lm_head.", "language_model.lm_head.")
        is_head = name.endswith("lm_head.weight")
        found[name] = ("BF16", tensor.shape, b"\x01" * (2 * tensor.numel) if is_head else None)
    return found


def write_model_folder(folder: Path, family: str = "qwen2_5_vl") -> Path:
    """Write a whole folder of the demo's sizes."""
    model = tiny(family)
    folder.mkdir(parents=True)
    tokenizer = train_tokenizer(["red circle"] * 9, special_tokens=model.control_tokens, vocab_size=576)
    config = copy.deepcopy(dict(model.hf_config))
    config["image_token_id"] = tokenizer.token_to_id(model.token_ids["image_token_id"])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    if family == "internvl":
        settings |= INTERNVL_TOKENS
    processor = {**model.image_processor, "image_processor_type": read_shape(config).image_processor}
    write_json(folder / "config.json", config)
    write_json(folder / "tokenizer_config.json", settings)
    write_json(folder / "preprocessor_config.json", processor)
    write_json(folder / "generation_config.json", {"eos_token_id": [1]})
    (folder / "chat_template.jinja").write_text(chat_template(model))
    write_safetensors(folder / "model.safetensors", tensors_of(config))
    return folder


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


def change_json(path: Path, **changes: object) -> None:
    """Set keys of a JSON file; None takes a key away."""
    values = json.loads(path.read_text()) | changes
    write_json(path, {key: value for key, value in values.items() if value is not None})
