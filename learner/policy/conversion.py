"""What transformers does to a checkpoint's tensors while it loads them: other names, swapped axes, stacked experts.

Checkpoints of Qwen3-VL-MoE hold the experts of a layer as [E, D, 2F] and [E, F, D], and vLLM reads them so;
transformers 5 holds them as [E, 2F, D] and [E, D, F]. It swaps the axes when the shape of a tensor is the other one,
which it cannot see where both sizes are equal, and it saves a model without swapping them back, which vLLM cannot read.

In other families a folder may hold a tensor for each expert, or all of a layer in one, [E, 2F, D] and [E, D, F], which
is what engines get and exports hold: transformers and vLLM read both.

Axes: E experts, D hidden size, F width of an expert.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    MergeModulelist,
    Transpose,
    WeightConverter,
    WeightRenaming,
    rename_source_key,
    revert_weight_conversion,
)
from transformers.utils import SAFE_WEIGHTS_NAME

from learner.errors import LearnerError

EXPERTS = ".experts."
EXPERT_AXES = (-2, -1)
"""What is swapped in the tensors of experts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a tensor of a folder is to the model."""

    name: str
    """Of the parameter."""
    expert: int | None = None
    """Which of the matrices that the parameter stacks it is a part of; None where it is the whole parameter."""
    part: int = 0
    """Which part of that matrix, in the order of its rows: gate before up."""


def checkpoint_names(hf_model: Any) -> dict[str, str]:
    """Map each parameter's name in the module to its name in a checkpoint of the family.

    transformers renames while loading; engines and exported folders want the names of the original. Experts that it
    stacks keep the name of the stack.

    Raises:
        LearnerError: transformers merges other tensors of this model while loading, so names are not one to one.
    """
    names = {}
    for name, parameter in hf_model.named_parameters():
        original = list(revert_weight_conversion(hf_model, {name: parameter}))
        if len(original) == 1:
            names[name] = original[0]
        elif EXPERTS in name and all(EXPERTS in stored for stored in original):
            names[name] = original[0].partition(EXPERTS)[0] + EXPERTS + name.partition(EXPERTS)[2]
        else:
            raise LearnerError(f"parameter {name} is stored as {original}; only one-to-one names are supported")
    return names


def buffer_names(hf_model: Any) -> dict[str, str]:
    """Map the name of each buffer that checkpoints hold to its name there: numbers that are read and never trained."""
    held = hf_model.state_dict().keys()
    return {
        name: next(iter(revert_weight_conversion(hf_model, {name: buffer})))
        for name, buffer in hf_model.named_buffers()
        if name in held
    }


def parameter_naming(hf_model: Any) -> Callable[[str], Place]:
    """Return the function from a key in a file to what it is to the model, as transformers applies it while loading.

    The function raises LearnerError for a key whose tensor transformers would merge with others in another way.
    """
    renamings, converters = _conversions(hf_model)
    known = hf_model.state_dict()

    def locate(key: str) -> Place:
        name, pattern = rename_source_key(key, renamings, converters, hf_model.base_model_prefix, known)
        if pattern is None or _swaps(pattern, converters):
            return Place(name=name)
        [converter] = [converter for converter in converters if pattern in converter.source_patterns]
        number = re.search(r"\.experts\.(\d+)\.", key)
        if number is None or not isinstance(converter.operations[0], MergeModulelist):
            raise LearnerError(f"weight {key} would be merged with others while loading; that is not supported")
        return Place(name=name, expert=int(number[1]), part=converter.source_patterns.index(pattern))

    return locate


def swapped_names(hf_model: Any, names: Mapping[str, str]) -> frozenset[str]:
    """Return the names, in the module, of parameters whose last two axes are swapped in published checkpoints.

    Args:
        hf_model: of transformers.
        names: of its parameters in a checkpoint, from `checkpoint_names`.
    """
    renamings, converters = _conversions(hf_model)
    known = hf_model.state_dict()
    patterns = {
        name: rename_source_key(stored, renamings, converters, hf_model.base_model_prefix, known)[1]
        for name, stored in names.items()
    }
    return frozenset(name for name, pattern in patterns.items() if pattern is not None and _swaps(pattern, converters))


def swapped_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Return a shape with its last two sizes swapped.

    Example:
        >>> swapped_shape([128, 1536, 2048])
        (128, 2048, 1536)
    """
    *others, rows, columns = shape
    return (*others, columns, rows)


def are_swapped(stored: Mapping[str, tuple[int, ...]], own: Mapping[str, tuple[int, ...]], folder: object) -> bool:
    """Return whether a folder holds experts as published checkpoints do, and not as transformers 5 saves them.

    One of a layer's two tensors always tells: 2F and F are not both the hidden size.

    Args:
        stored: shapes in the folder of `swapped_names`, by name in the module.
        own: shapes of these parameters.
        folder: for the error.

    Raises:
        LearnerError: a tensor has neither shape, or tensors tell different things.
    """
    verdicts: dict[bool, str] = {}
    for name, shape in own.items():
        other = swapped_shape(shape)
        if stored[name] not in (shape, other):
            raise LearnerError(
                f"{folder}: {name} has the shape {list(stored[name])}; this architecture has {list(other)}, or "
                f"{list(shape)} where transformers 5 has saved it. The folder is of another model"
            )
        if shape != other:
            verdicts.setdefault(stored[name] == other, name)
    if len(verdicts) > 1:
        raise LearnerError(
            f"{folder} holds the experts of {verdicts[True]} as published checkpoints do, and those of "
            f"{verdicts[False]} with swapped axes; write all files of the folder with one program"
        )
    return next(iter(verdicts), True)


def save_as_published(hf_model: Any, folder: Path) -> None:
    """Write a small model's configuration and weights, experts as published checkpoints hold them.

    Args:
        hf_model: of transformers, whole; its weights become one file.
        folder: created where it does not exist.
    """
    hf_model.save_pretrained(folder)
    names = checkpoint_names(hf_model)
    swapped = {names[name] for name in swapped_names(hf_model, names)}
    if swapped:
        path = folder / SAFE_WEIGHTS_NAME
        tensors = {
            name: tensor.transpose(*EXPERT_AXES).contiguous() if name in swapped else tensor
            for name, tensor in load_file(path).items()
        }
        save_file(tensors, path, metadata={"format": "pt"})


def _conversions(hf_model: Any) -> tuple[list[WeightRenaming], list[WeightConverter]]:
    transforms = get_model_conversion_mapping(hf_model)
    return (
        [entry for entry in transforms if isinstance(entry, WeightRenaming)],
        [entry for entry in transforms if isinstance(entry, WeightConverter)],
    )


def _swaps(pattern: str, converters: Sequence[WeightConverter]) -> bool:
    """Return whether the converter of a pattern of names does nothing but swap the last two of three axes."""
    operations = [converter.operations for converter in converters if pattern in converter.source_patterns]
    return all(
        len(steps) == 1 and isinstance(steps[0], Transpose) and (steps[0].dim0, steps[0].dim1) == (1, 2)
        for steps in operations
    )
