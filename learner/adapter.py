"""Folders of an adapter as peft writes them: what may be continued exactly, and the settings of one that is exported.

    adapter_config.json          rank, alpha and layers; `peft.LoraConfig`
    adapter_model.safetensors    base_model.model.LAYER.lora_A.weight [rank, columns], lora_B.weight [rows, rank]

No torch is needed here: a plan checks such a folder by its headers.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from learner.config import LoraConfig
from learner.errors import LearnerError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."
FACTOR = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.default)?\.weight")
ADAPTER = "default"
"""peft's name of the adapter, in names of parameters."""

KEEP_THE_BASE = (True, False, None, "gaussian", "orthogonal", "eva")
"""Values of init_lora_weights that draw the factors alone; others (pissa, olora, loftq, ...) change the base too."""
COMPARED = ("peft_type", "bias", "init_lora_weights", "r", "lora_alpha", "use_rslora")
NOT_OF_THE_FACTORS = (
    *("auto_mapping", "base_model_name_or_path", "ensure_weight_tying", "eva_config", "exclude_modules"),
    *("inference_mode", "layers_pattern", "layers_to_transform", "lora_dropout", "lora_dtype", "lorap_emb_lr"),
    *("lorap_lr_ratio", "megatron_core", "peft_version", "qalora_group_size", "revision", "runtime_config"),
    *("target_modules", "task_type"),
)
"""Fields that tell how an adapter was trained, or which layers it has, which its tensors tell too."""
MERGED = (
    "merge the adapter into its model (peft: merge_and_unload, then save_pretrained) and set model.path to that folder"
)


def check_settings(folder: Path, config: LoraConfig) -> None:
    """Check that the adapter in a folder means the same under the settings of this run.

    Its product of factors is multiplied by alpha / rank; with use_rslora by alpha / sqrt(rank), which is an alpha of
    sqrt(rank) times as much here.

    Raises:
        LearnerError: there is no adapter, it has something that cannot be represented, or another rank or scale.
    """
    found = _read(folder)
    where = f"learner.lora.start={folder}: {CONFIG_FILE}"
    allowed = {"peft_type": ("LORA",), "bias": ("none", None), "init_lora_weights": KEEP_THE_BASE}
    refused = [name for name, values in allowed.items() if found.get(name, values[0]) not in values]
    refused += [name for name, value in found.items() if value and name not in (*COMPARED, *NOT_OF_THE_FACTORS)]
    if refused:
        said = ", ".join(f"{name}={json.dumps(found[name])}" for name in refused)
        raise LearnerError(f"{where} says {said}, which adapters here cannot represent; {MERGED}")
    rank, alpha = found.get("r"), found.get("lora_alpha")
    if type(rank) is not int or not isinstance(alpha, int | float) or rank < 1:
        raise LearnerError(f"{where} says r={rank} and lora_alpha={alpha}; copy the file again")
    if found.get("use_rslora"):
        alpha = alpha * math.sqrt(rank)
    if rank != config.rank or not math.isclose(alpha, config.alpha, rel_tol=1e-6):
        by = " by use_rslora" if found.get("use_rslora") else ""
        raise LearnerError(
            f"{where} has rank {rank} and alpha {alpha:.9g}{by}, and the run rank {config.rank} and alpha "
            f"{config.alpha:g}; set learner.lora.rank={rank} learner.lora.alpha={alpha:.9g}"
        )


def _read(folder: Path) -> dict[str, Any]:
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise LearnerError(f"learner.lora.start={folder} {_absence(folder, name)}")
    try:
        found: Any = json.loads((folder / CONFIG_FILE).read_text())
    except ValueError as error:
        raise LearnerError(
            f"learner.lora.start: {folder / CONFIG_FILE} is not JSON ({error}); copy it again"
        ) from error
    if not isinstance(found, dict):
        raise LearnerError(f"learner.lora.start: {folder / CONFIG_FILE} holds no JSON object; copy it again")
    return found


def _absence(folder: Path, name: str) -> str:
    if not folder.is_dir():
        return "is no folder; point it at the folder of an adapter"
    if inside := [path for path in ("export", "adapter", "export/adapter") if (folder / path / CONFIG_FILE).is_file()]:
        return f"holds no {name}; the adapter is in {folder / inside[0]}"
    if name == WEIGHTS_FILE and (folder / "adapter_model.bin").is_file():
        return f"holds adapter_model.bin, which is not read; write {name} (peft: save_pretrained of a newer version)"
    if (folder / "config.json").is_file():
        return f"holds no {name}; for a whole model, or weights of another run, set model.path to its folder"
    return f"holds no {name}; point it at the folder of an adapter"


def match_factors(
    folder: Path,
    stored: Mapping[str, tuple[int, ...]],
    wanted: Mapping[str, tuple[int, ...]],
    rename: Callable[[str], str],
) -> dict[str, str]:
    """Map the name of each factor of the run to its name in an adapter's file.

    Args:
        folder: of the adapter, for messages.
        stored: name in the file -> shape.
        wanted: name of the parameter, LAYER.lora_A.default.weight -> shape.
        rename: from the name of a weight in files of the model's family to that of the parameter.

    Raises:
        LearnerError: tensors are no factors, missing, too many, or of other shapes; the first ones are named.
    """
    where = f"learner.lora.start={folder}"
    matches = {key: FACTOR.fullmatch(key) for key in stored}
    if strangers := [key for key, match in matches.items() if match is None]:
        raise LearnerError(
            f"{where}: {len(strangers)} tensors are no factors of linear layers: {_first(strangers)}; {MERGED}"
        )
    keys = {}
    for key, match in matches.items():
        assert match is not None
        layer = rename(f"{match[1]}.weight").removesuffix(".weight")
        keys[f"{layer}.lora_{match[2]}.{ADAPTER}.weight"] = key
    missing, extra = [name for name in wanted if name not in keys], [name for name in keys if name not in wanted]
    if missing or extra:
        targets = sorted({name.split(".lora_")[0].rpartition(".")[2] for name in keys})
        lacks = [f"lacks {len(missing)} that these settings train: {_first(missing)}"] if missing else []
        has = [f"has {len(extra)} that they do not: {_first([keys[name] for name in extra])}"] if extra else []
        raise LearnerError(
            f"{where}: of the {len(wanted)} factors the adapter {' and '.join(lacks + has)}; it has layers named "
            f"{', '.join(targets)}: make learner.lora.target_modules and learner.freeze name the same, or {MERGED}"
        )
    for name, shape in wanted.items():
        if stored[keys[name]] != shape:
            raise LearnerError(
                f"{where}: {keys[name]} has shape {list(stored[keys[name]])}, and the model needs {list(shape)}; the "
                "adapter is of another model: set model.path to the one on which it was trained"
            )
    return keys


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def stored_name(name: str) -> str:
    """Return the name in an adapter's file of a factor.

    Example:
        >>> stored_name("model.language_model.layers.0.mlp.up_proj.lora_A.default.weight")
        'base_model.model.model.language_model.layers.0.mlp.up_proj.lora_A.weight'
    """
    return f"{PREFIX}{name.replace(f'.{ADAPTER}.', '.')}"


def settings_of(names: Iterable[str], *, config: LoraConfig, base: str) -> dict[str, Any]:
    """Return what adapter_config.json says of an adapter with factors of these stored names on the model `base`."""
    layers = sorted({name.removeprefix(PREFIX).split(".lora_")[0] for name in names})
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": 0.0,
        "target_modules": layers,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "fan_in_fan_out": False,
        "modules_to_save": None,
        "init_lora_weights": True,
    }
