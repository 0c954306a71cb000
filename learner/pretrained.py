"""Weights of a Hugging Face folder, read straight from safetensors, a tensor or some rows of one at a time."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    rename_source_key,
    revert_weight_conversion,
)

from learner.errors import LearnerError

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}
"""What a header calls the types of weights."""
COMPARED_ROWS = 256
"""Rows that tell whether an output head is a copy."""


class PretrainedWeights:
    """The tensors of a checkpoint under the names of the module's parameters. Files are mapped, not loaded."""

    def __init__(self, model_path: str | Path, hf_model: Any) -> None:
        """Open the folder's safetensors files and match their names with the parameters of `hf_model`.

        Raises:
            LearnerError: there are no safetensors, or tensors of a parameter are missing.
        """
        folder = Path(model_path)
        self._files = {path: safe_open(str(path), framework="pt") for path in _weight_files(folder)}
        self._places: dict[str, tuple[Path, str]] = {}
        rename = _renaming(hf_model)
        for path, file in self._files.items():
            for key in file.keys():  # noqa: SIM118
                self._places[rename(key)] = (path, key)
        missing = [name for name, _ in hf_model.named_parameters() if name not in self._places]
        if missing:
            raise LearnerError(
                f"{folder}: the weight files lack {len(missing)} parameters of this architecture, one is {missing[0]}; "
                "the folder is incomplete or of another model"
            )

    def shape(self, name: str) -> tuple[int, ...]:
        """Give the shape of a parameter's tensor."""
        return tuple(self._slice(name).get_shape())

    def dtype(self, name: str) -> torch.dtype:
        """Return the type in which a parameter's tensor is stored.

        Raises:
            LearnerError: it is none of floating-point weights.
        """
        stored = self._slice(name).get_dtype()
        if stored not in DTYPES:
            path, key = self._places[name]
            raise LearnerError(
                f"{path}: {key} is stored as {stored}, which is no type to train from; point model.path at the "
                f"checkpoint that is not quantised ({', '.join(DTYPES)})"
            )
        return DTYPES[stored]

    def full(self, name: str) -> torch.Tensor:
        """Give a parameter's whole tensor in the type in which it is stored."""
        return self.rows(name, 0, None)

    def rows(self, name: str, start: int, stop: int | None) -> torch.Tensor:
        """Give some rows (of the first axis) of a parameter's tensor; only these are read."""
        tensor: torch.Tensor = self._slice(name)[start:stop] if self.shape(name) else self._slice(name)[...]
        return tensor

    def _slice(self, name: str) -> Any:
        path, key = self._places[name]
        return self._files[path].get_slice(key)


def has_own_output_head(folder: Path) -> bool:
    """Whether a checkpoint stores an output head that is not a copy of its embedding table.

    Its config.json may say, or leave transformers' default to say, that the two are tied; the weights decide, as they
    do where transformers itself loads a model.

    Raises:
        LearnerError: there are no safetensors.
    """
    found = {}
    for path in _weight_files(folder):
        with safe_open(str(path), framework="pt") as file:
            for key in file.keys():  # noqa: SIM118
                for name in ("lm_head.weight", "embed_tokens.weight"):
                    if key.endswith(name):
                        found[name] = file.get_slice(key)[:COMPARED_ROWS]
    return len(found) == 2 and not torch.equal(found["lm_head.weight"], found["embed_tokens.weight"])


def checkpoint_names(hf_model: Any) -> dict[str, str]:
    """Map each parameter's name in the module to its name in a checkpoint of the family.

    transformers renames while loading; engines and exported folders want the names of the original.

    Raises:
        LearnerError: transformers merges tensors of this model while loading, so names are not one to one.
    """
    names = {}
    for name, parameter in hf_model.named_parameters():
        original = list(revert_weight_conversion(hf_model, {name: parameter}))
        if len(original) != 1:
            raise LearnerError(f"parameter {name} is stored as {original}; only one-to-one names are supported")
        names[name] = original[0]
    return names


def _weight_files(folder: Path) -> list[Path]:
    if (folder / INDEX_FILE).is_file():
        weight_map: dict[str, str] = json.loads((folder / INDEX_FILE).read_text())["weight_map"]
        files = [folder / name for name in sorted(set(weight_map.values()))]
    else:
        files = [folder / SINGLE_FILE]
    for file in files:
        if not file.is_file():
            raise LearnerError(
                f"{folder} lacks {file.name}; download the whole checkpoint, or convert its weights to safetensors"
            )
    return files


def _renaming(hf_model: Any) -> Any:
    """Give the function from a key in a file to the parameter's name, as transformers applies it while loading."""
    transforms = get_model_conversion_mapping(hf_model)
    renamings = [entry for entry in transforms if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in transforms if isinstance(entry, WeightConverter)]
    known = hf_model.state_dict()

    def rename(key: str) -> str:
        name, converter = rename_source_key(key, renamings, converters, hf_model.base_model_prefix, known)
        if converter is not None:
            raise LearnerError(f"weight {key} would be merged with others while loading; that is not supported")
        return str(name)

    return rename
