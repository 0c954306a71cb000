"""Check that a model folder has all that a run needs, from small files and the headers of weights."""

import math
import os
import re
from collections.abc import Container, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from learner.config import SUPPORTED_FAMILIES
from orchestration.models.chat_template import check_opened_thinking, check_tokens
from orchestration.models.files import (
    LFS_POINTER,
    StoredTensor,
    adapter_error,
    config_parts,
    has_own_output_head,
    lfs_error,
    read_object,
    stored_tensors,
)
from orchestration.models.image_tokens import (
    PROBE_SIZE,
    PROCESSOR_FILES,
    check_stated_processor,
    image_tokens,
    processor_of,
    saved_processor,
    size_limits,
)
from orchestration.models.shapes import ModelShape, Tensor, read_saved_shape, read_shape, shape_of, unstated_size
from orchestration.settings.errors import ConfigError
from orchestration.settings.model import ModelConfig
from rewards.core.config import RewardConfig
from rollout.conversation import PromptSpec

QUANTISED_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")
QUANTISED_NAME = re.compile(
    r"\.(qweight|qzeros|scales|g_idx|weight_packed|weight_scale(_2|_inv)?|weight_zero_point|input_scale|absmax"
    r"|quant_map|quant_state\b.*|SCB)$"
)
"""Tensors that GPTQ, AWQ, compressed-tensors, FP8 and bitsandbytes add to a quantised weight."""
TRAINED_DTYPES = ("BF16", "F16", "F32", "F64")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
CACHE_NAME = re.compile(r"models--(.+)")
POINTERS_IN = (".json", ".jinja", ".txt", ".model", ".safetensors")
"""Suffixes of files that may be Git LFS pointers."""
OTHER_JSON = (
    "generation_config.json",
    "added_tokens.json",
    "special_tokens_map.json",
    "video_preprocessor_config.json",
)

# Checkpoints of vision-language models have the tensor names of the original implementation; transformers renames them
# on loading as follows.
RENAMINGS = (
    (re.compile(r"^(model\.)?language_model\.lm_head\."), "lm_head."),
    (re.compile(r"^(model\.)?language_model\.(model\.)?"), "model.language_model."),
    (re.compile(r"^(visual|vision_tower|multi_modal_projector)\."), r"model.\1."),
    (re.compile(r"^model\.(?=embed_tokens\.|layers\.|norm\.)"), "model.language_model."),
)
STACKS = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}
"""A parameter of all experts -> the layers of one expert that are joined in it."""
OF_ONE_EXPERT = re.compile(r"(.*\.experts\.)(\d+)\.(gate_proj|up_proj|down_proj)\.weight")


def check_model(model: ModelConfig, reward: RewardConfig, spec: PromptSpec, *, needs_weights: bool = True) -> None:
    """Check the folder at model.path, and that the settings agree with it; returns without a path.

    Raises:
        ConfigError: One line with the file and the remedy.
    """
    if model.folder is None:
        return
    shape = check_model_folder(model.folder, needs_weights=needs_weights, model=model)
    # A placeholder's id is no size, and is the default of its class where it is not stated.
    if (
        model.hf_config is not None
        and replace(read_shape(model.hf_config), image_token_id=shape.image_token_id) != shape
    ):
        raise ConfigError(
            f"model.path={model.path} holds a model of other sizes than model.hf_config states; choose the model of "
            "that folder, or set model.hf_config=null and plan again: plans read the folder then"
        )
    check_stated_processor(model)
    if shape.image_kind != "none":
        try:
            image_tokens(shape, processor_of(model), *PROBE_SIZE)
        except ConfigError as error:
            raise ConfigError(f"model.path={model.path}: {error}") from error
    check_opened_thinking(model.folder, reward, spec)


def check_model_folder(folder: Path, *, needs_weights: bool = True, model: ModelConfig | None = None) -> ModelShape:
    """Check that a Hugging Face folder has a complete model that the learner can train, and return its shape.

    Args:
        folder: the folder.
        needs_weights: False leaves the weights unchecked.
        model: the settings. Of an architecture that only their `family`, a class of the user's, knows, the shape is
            that of `hf_config`; tensors and the kind of image processor are first checked where the model is loaded.

    Raises:
        ConfigError: One line with the file and the remedy.
    """
    _check_is_folder(folder)
    _check_pointers(folder)
    config = read_object(folder / "config.json")
    _check_numbers(folder / "config.json", config)
    has_class = model is not None and model.own_family is not None
    is_own = has_class and config.get("model_type") not in (None, *SUPPORTED_FAMILIES)
    _check_architecture(folder, config)
    _check_quantisation(folder, config)
    if model is not None and is_own:
        shape = shape_of(replace(model, path=str(folder)))
        if needs_weights:
            stored_tensors(folder)
        _saved_processor(folder)
        check_tokens(folder, config, shape)
        return shape
    tensors = stored_tensors(folder) if needs_weights else {}
    head = has_own_output_head(tensors) if needs_weights else None
    try:
        shape = read_saved_shape(config, where=str(folder / "config.json"), has_own_head=head)
    except ConfigError as error:
        if config["model_type"] in SUPPORTED_FAMILIES:
            raise
        raise ConfigError(
            f"model.path={folder} is a {config['model_type']} model, of which no sizes are known: {error}. An "
            "architecture that transformers has not begins with a class of your own, model.family=FILE.py:NAME "
            "(learner/README.md)"
        ) from error
    if needs_weights:
        _check_tensors(folder, config, shape, tensors)
    _check_rotary(folder / "config.json", config, shape)
    _check_image_processor(folder, shape)
    check_tokens(folder, config, shape)
    return shape


def _check_is_folder(folder: Path) -> None:
    if not folder.exists():
        if HUB_ID.fullmatch(str(folder)):
            raise ConfigError(
                f"model.path={folder} is no folder here; if it is a name on the Hugging Face Hub, download it "
                f"(hf download {folder} --local-dir DIR) and set model.path=DIR"
            )
        raise ConfigError(f"model.path={folder} does not exist; point it at a Hugging Face folder")
    if not folder.is_dir():
        quantised = "; GGUF weights are quantised and cannot be trained" if folder.suffix == ".gguf" else ""
        raise ConfigError(f"model.path={folder} is a file{quantised}; point it at a Hugging Face folder")
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise ConfigError(f"model.path={folder} cannot be read ({os.strerror(error.errno or 0)})") from error
    if "config.json" in names:
        return
    if "snapshots" in names and (found := _snapshot(folder)) is not None:
        raise ConfigError(
            f"model.path={folder} is the cache of the Hugging Face Hub around a model; point it at the model: "
            f"model.path={found}"
        )
    if (inner := [name for name in names if CACHE_NAME.fullmatch(name)]) and folder.name in ("hub", "huggingface"):
        raise ConfigError(
            f"model.path={folder} is the cache of the Hugging Face Hub; point it at one model's snapshot, as in "
            f"{folder / inner[0] / 'snapshots' / 'HASH'}"
        )
    if "adapter_config.json" in names:
        raise adapter_error(folder)
    if any(name.endswith(".gguf") for name in names):
        raise ConfigError(
            f"model.path={folder} holds GGUF weights, which are quantised and cannot be trained; take the original "
            "checkpoint in safetensors"
        )
    raise ConfigError(f"model.path={folder} holds no config.json; point it at a Hugging Face folder")


def _snapshot(folder: Path) -> Path | None:
    """Return the snapshot of the Hub's cache that is named main, else the newest."""
    main = folder / "refs" / "main"
    if main.is_file() and (found := folder / "snapshots" / main.read_text().strip()).is_dir():
        return found
    there = [path for path in (folder / "snapshots").iterdir() if path.is_dir()]
    return max(there, key=lambda path: path.stat().st_mtime, default=None)


def _check_pointers(folder: Path) -> None:
    """Refuse Git LFS pointers, and small .json files that are not JSON."""
    for path in sorted(folder.iterdir()):
        if path.suffix in POINTERS_IN and path.is_file():
            try:
                with path.open("rb") as file:
                    is_pointer = file.read(len(LFS_POINTER)) == LFS_POINTER
            except OSError as error:
                raise ConfigError(f"model.path: {path} cannot be read ({os.strerror(error.errno or 0)})") from error
            if is_pointer:
                raise lfs_error(path)
            if path.name in OTHER_JSON:
                read_object(path)


def _check_numbers(file: Path, value: Any, where: str = "") -> None:
    """Refuse NaN and infinities, which Python reads but JSON does not define."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _check_numbers(file, inner, f"{where}.{name}" if where else name)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_numbers(file, inner, f"{where}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(
            f"model.path: {file} says {where}={value}, which is no finite number; copy the file of the original "
            "checkpoint"
        )


def _check_architecture(folder: Path, config: Mapping[str, Any]) -> None:
    if "training" in config and "rollout" in config:
        raise ConfigError(f"model.path={folder} is a run folder; the model that it exported is {folder / 'export'}")
    family = config.get("model_type")
    if family == "internvl_chat":
        raise ConfigError(
            f"model.path={folder} is an internvl_chat model, InternVL's original layout with code of its own; take the "
            "same model in transformers' layout (its name ends in -hf), or convert it with transformers' "
            "models/internvl/convert_internvl_weights_to_hf.py"
        )
    if family is None:
        raise ConfigError(
            f"model.path: {folder / 'config.json'} names no model_type; point it at a Hugging Face folder"
        )
    if "auto_map" in config:
        raise ConfigError(
            f"model.path={folder} brings code of its own (auto_map in config.json), which is not run; take the "
            f"checkpoint of transformers' own {family}, or remove auto_map if its modules are the same"
        )


def _check_quantisation(folder: Path, config: Mapping[str, Any]) -> None:
    for where, found in config_parts(config, ""):
        settings = found.get("quantization_config") or found.get("compression_config")
        if settings:
            method = settings.get("quant_method") if isinstance(settings, Mapping) else None
            place = ", ".join(["config.json", *filter(None, where.split("."))])
            raise _quantised(folder, f"quantization_config in {place}", str(method or "method not named"))
    for name in QUANTISED_FILES:
        if (folder / name).is_file():
            raise _quantised(folder, name, "settings of a quantised checkpoint")


def _quantised(folder: Path, where: str, what: str) -> ConfigError:
    return ConfigError(
        f"model.path={folder} is quantised ({where}: {what}), and such weights cannot be trained; take the unquantised "
        "checkpoint"
    )


def _check_tensors(
    folder: Path, config: Mapping[str, Any], shape: ModelShape, stored: Mapping[str, StoredTensor]
) -> None:
    """Compare names, dtypes and shapes with those of the architecture; other tensors are ignored."""
    for name, tensor in stored.items():
        if QUANTISED_NAME.search(name):
            raise _quantised(folder, tensor.file.name, name)
    wanted = {tensor.name: tensor for tensor in shape.tensors}
    found = {parameter_name(name, wanted): tensor for name, tensor in _stacked(stored).items()}
    for name, held in found.items():
        if name in wanted and held.dtype not in TRAINED_DTYPES:
            raise _quantised(folder, held.file.name, f"{name} of type {held.dtype}")
    missing = [name for name in wanted if name not in found]
    other = next((name for name in wanted if name in found and not _fits(wanted[name], found[name])), None)
    if (missing or other) and (unstated := unstated_size(config, str(folder / "config.json"))) is not None:
        raise unstated
    if missing:
        raise ConfigError(
            f"model.path={folder}: the weight files lack {len(missing)} of {len(wanted)} tensors that config.json asks "
            f"for, one is {missing[0]}; the folder is incomplete or config.json is of another model: download the "
            "whole checkpoint"
        )
    if other is not None:
        raise ConfigError(
            f"model.path: {found[other].file} holds {other} of shape {list(found[other].shape)}, and config.json "
            f"asks for {list(wanted[other].shape)}; both must be of one checkpoint: download it again"
        )


def _stacked(stored: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Return tensors by name, with those of single experts joined as transformers joins them while it loads.

    Experts that lack a tensor, or have one of another shape, are not counted: the whole has then too few.
    """
    joined = dict(stored)
    experts: dict[str, dict[str, dict[str, StoredTensor]]] = {}
    for name, tensor in stored.items():
        if (match := OF_ONE_EXPERT.fullmatch(name)) is not None:
            place, number, layer = match.groups()
            experts.setdefault(place, {}).setdefault(number, {})[layer] = tensor
    for place, by_number in experts.items():
        for whole, layers in STACKS.items():
            complete = [layer_of for layer_of in by_number.values() if all(layer in layer_of for layer in layers)]
            if not complete or f"{place}{whole}" in joined:
                continue
            one = complete[0][layers[0]]
            count = sum({layer_of[layer].shape for layer in layers} == {one.shape} for layer_of in complete)
            rows, *others = one.shape
            joined[f"{place}{whole}"] = replace(one, shape=(count, rows * len(layers), *others))
    return joined


def _fits(wanted: Tensor, held: StoredTensor) -> bool:
    """Return whether a stored tensor has the shape of a parameter; experts may be stored transposed."""
    one, *rest = wanted.shape
    return held.shape == wanted.shape or (wanted.is_expert and held.shape == (one, *reversed(rest)))


def parameter_name(name: str, own: Container[str]) -> str:
    """Return the name that transformers gives a tensor of a checkpoint.

    Args:
        name: In the file.
        own: Names of the model's parameters, which stay as they are: `model.layers.0...` of a language model.
    """
    if name in own:
        return name
    for pattern, replacement in RENAMINGS:
        renamed = pattern.sub(replacement, name)
        if renamed != name:
            return renamed
    return name


def _check_rotary(file: Path, config: Mapping[str, Any], shape: ModelShape) -> None:
    """Check that mrope_section divides half of a head's rotated part over time, height and width."""
    for where, part in config_parts(config, ""):
        for key in ("rope_parameters", "rope_scaling"):
            settings = part.get(key)
            if not isinstance(settings, Mapping) or (section := settings.get("mrope_section")) is None:
                continue
            share = settings.get("partial_rotary_factor", part.get("partial_rotary_factor", 1.0))
            rotated = int(share * shape.text.head_dim)
            is_right = isinstance(section, list) and len(section) == 3 and all(type(size) is int for size in section)
            if not is_right or min(section) < 0 or 2 * sum(section) != rotated:
                raise ConfigError(
                    f"model.path: {file} says {where}{key}.mrope_section={section}, and it must be three whole numbers "
                    f"whose sum is half of a head's width of {rotated}; copy the file of the original checkpoint"
                )


def _saved_processor(folder: Path) -> tuple[str, dict[str, Any]]:
    saved = saved_processor(folder)
    if saved is None:
        raise ConfigError(
            f"model.path={folder} holds no image processor ({' or '.join(PROCESSOR_FILES)}); copy the processor's "
            "files of the original checkpoint into it"
        )
    return saved


def _check_image_processor(folder: Path, shape: ModelShape) -> None:
    if shape.image_kind == "none":
        return
    name, found = _saved_processor(folder)
    path, wanted = folder / name, shape.image_processor
    kind = str(found.get("image_processor_type", wanted))
    if wanted and kind.removesuffix("Fast").removesuffix("Pil") != wanted:
        raise ConfigError(
            f"model.path: {path} names the image processor {kind}, which transformers does not know for "
            f'{shape.family}; write "image_processor_type": "{wanted}" into it'
        )
    low, high = size_limits(found, shape)
    if isinstance(low, int) and isinstance(high, int) and low > high:
        what = "patches" if shape.image_kind == "tiles" else "pixels"
        raise ConfigError(
            f"model.path: {path} says min_{what}={low} and max_{what}={high}, so no image is allowed; copy "
            "the file of the original checkpoint"
        )
