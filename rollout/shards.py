"""Places of a checkpoint's tensors in the parameters of one worker, found by running vLLM's own weight loaders.

A loader cuts a worker's share out of a whole tensor: rows or columns, heads that several workers hold, a vocabulary
that is rounded up. Given indices for weights, it puts the index of every row and column where that row or column goes.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from vllm._custom_ops import causal_conv1d_weight_pack
from vllm.model_executor.model_loader.weight_utils import default_weight_loader


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """The part of one tensor of the checkpoint that one worker's parameter holds."""

    name: str
    """Of the tensor."""
    parameter: str
    shape: tuple[int, ...]
    """Of the whole tensor, as the loader sees it."""
    indices: list[torch.Tensor]
    """For each dimension of the parameter, the index in the whole of each of its places; -1 where there is none."""


def find_shards(model: Any, shapes: Mapping[str, Sequence[int]]) -> list[Shard]:
    """Return the places of tensors in this worker's parameters, as far as loaders can be run for them.

    Nothing is loaded, and no memory of the tensors' size is needed.

    `shapes` are those of the whole tensors, by checkpoint name.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = []
    for name, shape in shapes.items():
        with _recorded(model) as calls:
            model.load_weights(iter([(name, torch.empty(tuple(shape), device="meta"))]))
        for call in calls:
            if (indices := _indices(call)) is not None:
                found.append(Shard(name=name, parameter=names[id(call.parameter)], shape=call.shape, indices=indices))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """A recorded call of a parameter's weight loader, with a whole tensor of this shape."""

    parameter: torch.nn.Parameter
    loader: Any
    shape: tuple[int, ...]
    arguments: tuple[Any, ...]
    options: dict[str, Any]


@contextmanager
def _recorded(model: torch.nn.Module) -> Iterator[list[_Call]]:
    """Within the block, calls of the parameters' weight loaders are recorded instead of run."""
    calls: list[_Call] = []
    loaders = {name: getattr(parameter, "weight_loader", None) for name, parameter in model.named_parameters()}

    def note(loader: Any) -> Any:
        def called(parameter: Any, loaded_weight: torch.Tensor, *arguments: Any, **options: Any) -> None:
            calls.append(
                _Call(
                    parameter=parameter,
                    loader=loader or default_weight_loader,
                    shape=tuple(loaded_weight.shape),
                    arguments=arguments,
                    options=options,
                )
            )

        return called

    parameters: dict[str, Any] = dict(model.named_parameters())
    try:
        for name, loader in loaders.items():
            parameters[name].weight_loader = note(loader)
        yield calls
    finally:
        for name, loader in loaders.items():
            if loader is None:
                del parameters[name].weight_loader
            else:
                parameters[name].weight_loader = loader


def _indices(call: _Call) -> list[torch.Tensor] | None:
    """Ask the loader along each dimension, with all others of size 1.

    It fails along a dimension that it does not cut if it needs the size of another one; indices are unchanged there.
    """
    own = tuple(call.parameter.shape)
    if len(own) != len(call.shape):
        return None
    found = []
    for dimension, (size, whole) in enumerate(zip(own, call.shape, strict=True)):
        flat = [1] * len(own)
        flat[dimension] = size
        # Loaders fill what is left over with zeros, so indices are counted from 1 here.
        target: Any = torch.zeros(flat, dtype=torch.int64, device="cpu")
        target.__class__ = call.parameter.__class__
        target.__dict__ = call.parameter.__dict__.copy()
        flat[dimension] = whole
        try:
            call.loader(target, torch.arange(1, whole + 1).reshape(flat), *call.arguments, **call.options)
        except (AssertionError, IndexError, RuntimeError, ValueError):
            if size != whole:
                return None
            found.append(torch.arange(whole))
        else:
            found.append(target.data.flatten() - 1)
    return found


def plain_convolutions(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights, as a checkpoint orders them, of convolutions that vLLM has packed in place, by name.

    It does so on CPU and keeps a plain copy beside, which counts here if the weights in use are what it packs to.
    """
    found = {}
    for name, module in model.named_modules():
        plain = vars(module).get("_cpu_unpacked_conv_weight")
        if plain is not None and torch.equal(causal_conv1d_weight_pack(plain).flatten(), module.weight.flatten()):
            found[f"{name}.weight"] = plain
    return found
