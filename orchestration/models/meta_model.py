"""Facts of a model from transformers' own classes, with parameters on the meta device: run as a child process.

Imports torch and transformers where they are called, so that `orchestration.models.facts` may name what is here. All
that it returns is JSON.
"""

import copy
import json
import sys
from collections.abc import Mapping
from math import isqrt, prod
from typing import Any

from orchestration.models.meta_blocks import block_facts, kept_outside

SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "moe_intermediate_size", "num_experts", "num_experts_per_tok"),
    *("num_hidden_layers", "depth", "num_attention_heads", "num_heads", "out_hidden_size"),
)
"""Keys that stated sizes must have where the class reads them: its default would be the size of another model."""
PART_KEYS = ("text_config", "vision_config")


def describe(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of one config.json; `{"error": ...}` where transformers cannot build the model.

    Args:
        values: content of the file.
    """
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    found = _without_none(values)
    kind = found.pop("model_type", None)
    if kind not in CONFIG_MAPPING_NAMES:
        return {"error": f"transformers knows no model_type {kind!r}"}
    keys = _keys(values)
    try:
        config = AutoConfig.for_model(kind, **found)
        return {**_facts(config), "keys": keys}
    except Exception as error:  # whatever a class raises for values that it does not take
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"[:600], "keys": keys}


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values without those that are null, in nested parts too: a class has its default there."""
    return {
        key: _without_none(value) if isinstance(value, Mapping) else copy.deepcopy(value)
        for key, value in values.items()
        if value is not None
    }


def _keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys that each part of a configuration may have, and the sizes that it does not state."""
    from transformers import AutoConfig

    default = AutoConfig.for_model(values["model_type"])
    known: dict[str, set[str]] = {"": _names(default)}
    parts = {name: part for name in PART_KEYS if (part := getattr(default, name, None)) is not None}
    stated: dict[str, Any] = {"": values, **{name: values.get(name) for name in parts}}
    for name, part in parts.items():
        kind = (stated[name] or {}).get("model_type")
        if name == "text_config" and kind not in (None, part.model_type):
            parts[name] = AutoConfig.for_model(kind)
        known[name] = _names(parts[name])
    if "text_config" in parts:  # the published layout of Qwen2.5-VL has its keys at the top
        known[""] |= known["text_config"]
        stated["text_config"] = stated["text_config"] or values
    missing = []
    for name, part in (parts or {"": default}).items():
        there = {part.attribute_map.get(key, key) for key, value in (stated[name] or {}).items() if value is not None}
        where = f"{name}." if name and stated[name] is not values else ""
        defaults = part.to_dict()
        missing += [f"{where}{key}" for key in SIZES if defaults.get(key) is not None and key not in there]
    return {"known": {part: sorted(names) for part, names in known.items()}, "missing": missing}


def _names(config: Any) -> set[str]:
    return {*config.to_dict(), *config.attribute_map, *config.attribute_map.values()}


def _facts(config: Any) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    sees = config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    with torch.device("meta"):
        model = (AutoModelForImageTextToText if sees else AutoModelForCausalLM).from_config(config)
    text, modules = config.get_text_config(), dict(model.named_modules())
    if hasattr(text, "allow_global_per_layer_attribute_access"):  # a head's width may differ from layer to layer
        text.allow_global_per_layer_attribute_access = True
    table_name = next(name for name, module in modules.items() if module is model.get_input_embeddings())
    language = table_name.rpartition(".")[0]
    text_blocks = _blocks(modules, language)
    parts = _parts(config, modules, language)
    # Of a class of the learner's, the tower may be listed in pieces: it is the module of the model that holds them.
    tower_root = ".".join(parts["vision_tower"][0].split(".")[:2]) if parts["vision_tower"] else None
    tower_blocks = _blocks(modules, tower_root) if tower_root else ""
    vocab_size, width = model.get_input_embeddings().weight.shape
    parameters = dict(model.named_parameters())
    experts_per_token = _first(text, "num_experts_per_tok", "top_k_experts")
    kinds = list(getattr(text, "layer_types", None) or ["full_attention"] * len(modules[text_blocks]))
    return {
        "tensors": [
            [name, list(tensor.shape), _part_of(name, parts), _block_of(name, text_blocks, tower_blocks),
             _is_linear(name, modules), tensor.dim() == 3 and ".experts." in name]
            for name, tensor in parameters.items()
        ],
        "table": f"{table_name}.weight",
        "head": "lm_head.weight",
        "is_tied": "lm_head.weight" not in parameters,
        "text": {
            "vocab_size": vocab_size,
            "width": width,
            "num_heads": text.num_attention_heads,
            "num_kv_heads": getattr(text, "num_key_value_heads", None) or text.num_attention_heads,
            "head_dim": getattr(text, "head_dim", None) or width // text.num_attention_heads,
            "num_experts": _first(text, "num_experts", "num_local_experts", "n_routed_experts"),
            "experts_per_token": experts_per_token,
            "window": _first(text, "sliding_window"),
            "uses_window": bool(getattr(text, "use_sliding_window", False)),
            "state": _linear_state(text),
            "blocks": [
                [kind, *block_facts(block, width, experts_per_token=experts_per_token)]
                for kind, block in zip(kinds, modules[text_blocks], strict=True)
            ],
        },
        "tower": _tower(config, modules, tower_root, tower_blocks, parts, width) if tower_root else None,
        "images": _images(config) if tower_root else None,
        "image_token_id": getattr(config, "image_token_id", None),
    }  # fmt: skip


def _first(config: Any, *names: str) -> int:
    """Return the first of some numbers that a configuration has; 0 without one."""
    return next((int(value) for name in names if isinstance(value := getattr(config, name, None), int)), 0)


def _blocks(modules: Mapping[str, Any], root: str) -> str:
    """Return the name of the list of transformer blocks below a module: the largest whose layers can be recomputed."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    lists = [name for name, module in modules.items()
             if name.startswith(f"{root}.") and type(module).__name__ == "ModuleList" and len(module)]  # fmt: skip
    return max(
        lists,
        key=lambda name: (isinstance(modules[name][0], GradientCheckpointingLayer), _numel(modules[name]), -len(name)),
    )


def _numel(module: Any) -> int:
    return sum(prod(parameter.shape) for parameter in module.parameters())


def _parts(config: Any, modules: Mapping[str, Any], language: str) -> dict[str, list[str]]:
    """Return the beginnings of the names of each part: the learner's own where it has a class of the family."""
    from learner.errors import LearnerError
    from learner.families.registry import get_family

    try:
        parts = get_family(config).parts
    except (LearnerError, AttributeError):
        parts = {}
    if parts:  # the generic path has none before it has seen the model
        return {part: list(names) for part, names in parts.items()}
    root = language.rpartition(".")[0]
    inner = [name for name, module in modules.items() if name.rpartition(".")[0] == root and _numel(module)]
    others = [name for name in inner if name not in ("", language, "lm_head")]
    if not others:
        return {"vision_tower": [], "projector": [], "language_model": [f"{language}.", "lm_head."]}
    # A tower of sound may be the larger one.
    seeing = [name for name in others if "vis" in name.rpartition(".")[2]]
    tower = max(seeing or others, key=lambda name: _numel(modules[name]))
    inside = [f"{name}." for name in modules
              if name.rpartition(".")[0] == tower and ("merger" in name.rpartition(".")[2])]  # fmt: skip
    return {
        "vision_tower": [f"{tower}."],
        "projector": [*inside, *(f"{name}." for name in others if name != tower)],
        "language_model": [f"{language}.", "lm_head."],
    }


def _part_of(name: str, parts: Mapping[str, list[str]]) -> str:
    """Return the part with the longest beginning of a name; a projector may lie within the tower."""
    found = [(len(start), part) for part, starts in parts.items() for start in starts if name.startswith(start)]
    return max(found)[1] if found else "language_model"


def _block_of(name: str, *lists: str) -> str | None:
    for start in filter(None, lists):
        if name.startswith(f"{start}."):
            return f"{start}.{name[len(start) + 1 :].partition('.')[0]}."
    return None


def _is_linear(name: str, modules: Mapping[str, Any]) -> bool:
    module, _, kind = name.rpartition(".")
    return kind == "weight" and type(modules[module]).__name__ == "Linear"


def _linear_state(text: Any) -> list[int]:
    """Return elements that a sequence keeps in a layer of linear attention: recurrent state, convolution state."""
    heads, values, keys = (_first(text, f"linear_{name}") for name in
                           ("num_value_heads", "value_head_dim", "key_head_dim"))  # fmt: skip
    channels = 2 * _first(text, "linear_num_key_heads") * keys + heads * values
    return [heads * values * keys, channels * max(0, _first(text, "linear_conv_kernel_dim") - 1)]


def _tower(
    config: Any, modules: Mapping[str, Any], root: str, blocks: str, parts: Mapping[str, list[str]], text_width: int
) -> dict[str, Any]:
    """Return the sizes of a vision tower and of its projector."""
    vision = config.vision_config
    patch = next(module for name, module in modules.items()
                 if name.startswith(f"{root}.") and "patch" in name and getattr(module, "weight", None) is not None
                 and module.weight.dim() > 1 and "position" not in name)  # fmt: skip
    width, values = patch.weight.shape[0], prod(patch.weight.shape[1:])
    side = _pair(getattr(vision, "patch_size", None))
    tile = _pair(getattr(vision, "image_size", None)) if not _first(vision, "spatial_merge_size") else 0
    merge = _first(vision, "spatial_merge_size", "pooling_kernel_size")
    if not merge and (ratio := getattr(config, "downsample_ratio", None)):
        merge = round(1 / ratio)
    if not merge and (tokens := _first(config, "mm_tokens_per_image")) and tile:
        merge = tile // side // isqrt(tokens)
    if _first(vision, "pooling_kernel_size"):
        tile = 0
    has_rotary = any("Rotary" in type(module).__name__ for name, module in modules.items() if name.startswith(root))
    return {
        "width": width,
        "num_heads": _first(vision, "num_heads", "num_attention_heads"),
        "patch_side": side,
        "patch_values": values,
        "merge_side": merge or 1,
        "tile_side": tile,
        "class_tokens": int(any(name.endswith("cls_token") for name, _ in modules[root].named_parameters())),
        "has_rotary": has_rotary,
        "is_fused": any(name.endswith("qkv") for name, _ in modules[blocks].named_modules()),
        "blocks": [["full_attention", *block_facts(block, width, has_rotary=has_rotary)] for block in modules[blocks]],
        "projector": kept_outside(modules, parts["projector"], width, max(1, merge) ** 2),
    }


def _pair(value: Any) -> int:
    """Return a side that may be written as a pair of equal numbers."""
    if isinstance(value, list | tuple):
        if len(set(value)) != 1:
            raise ValueError(f"sides of {value} differ; patches and tiles must be square")
        value = value[0]
    return int(value or 0)


def _images(config: Any) -> dict[str, Any]:
    """Return the image processor that transformers has for an architecture, and its default settings."""
    import transformers
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    kind = config.model_type
    if IMAGE_PROCESSOR_MAPPING_NAMES.get(kind) is None:  # of a sibling that has the same processor
        same = [name for name, used in PROCESSOR_MAPPING_NAMES.items() if used == PROCESSOR_MAPPING_NAMES.get(kind)]
        kind = next((name for name in same if IMAGE_PROCESSOR_MAPPING_NAMES.get(name) is not None), kind)
    names = IMAGE_PROCESSOR_MAPPING_NAMES.get(kind) or {}
    names = {"torchvision": names} if isinstance(names, str) else names
    name = names.get("torchvision") or names.get("pil") or ""
    defaults = getattr(transformers, name)().to_dict() if name else {}
    kept = ("size", "min_pixels", "max_pixels", "min_patches", "max_patches", "patch_size", "merge_size",
            "max_soft_tokens", "pooling_kernel_size")  # fmt: skip
    numbers = {key: defaults[key] for key in kept if defaults.get(key) is not None}
    return {"processor": name, "defaults": json.loads(json.dumps(numbers, default=dict))}


def main() -> None:
    """Read a list of configurations as JSON from standard input, and write the list of their facts to a file."""
    import transformers

    transformers.logging.set_verbosity_error()
    found = [describe(values) for values in json.load(sys.stdin)]
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main()
