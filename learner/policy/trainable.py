"""Which parameters are trained: parts that are frozen, and low-rank adapters by peft instead of whole matrices.

Source: LoRA, arXiv:2106.09685, section 4.1.
"""

import fnmatch
import math
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from learner.adapter import ADAPTER
from learner.config import LoraConfig
from learner.errors import LearnerError
from learner.families.base import PARTS
from learner.layers import BASE_SUFFIX, base_name
from learner.policy.model import Policy, parameters_on_meta
from learner.policy.source import PretrainedWeights, Weights
from learner.ranks import derive_seed


def add_adapters(policy: Policy, config: LoraConfig) -> list[str]:
    """Put adapters on the target modules that are not frozen, and freeze all else; returns the names of the modules.

    Raises:
        LearnerError: peft is missing, or a target name matches no layer that may be trained.
    """
    try:
        from peft import LoraConfig as PeftConfig
        from peft import inject_adapter_in_model
    except ImportError as error:
        raise LearnerError(
            "learner.lora needs peft: pip install '.[lora]' in the checkout, or set learner.lora=null"
        ) from error
    linear = {
        name: module
        for name, module in policy.hf_model.named_modules()
        if isinstance(module, torch.nn.Linear) and module.weight.requires_grad and name != "lm_head"
    }
    has_experts = bool(policy.family.expert_layers(policy.hf_model))
    stacked = "; experts are stacked in two tensors a layer, which like their router take no adapters"
    for target in config.target_modules:
        if not any(name.rpartition(".")[2] == target for name in linear):
            raise LearnerError(
                f"learner.lora.target_modules names {target!r}, which is no trainable linear layer; there are "
                f"{', '.join(sorted({name.rpartition('.')[2] for name in linear}))}{stacked if has_experts else ''}"
            )
    adapted = [name for name in linear if name.rpartition(".")[2] in config.target_modules]
    policy.hf_model.requires_grad_(False)
    peft_config = PeftConfig(r=config.rank, lora_alpha=config.alpha, target_modules=adapted, lora_dropout=0.0)
    with parameters_on_meta():
        inject_adapter_in_model(peft_config, policy.hf_model, adapter_name=ADAPTER)
    for name, parameter in policy.hf_model.named_parameters():
        parameter.requires_grad_(is_adapter(name))
    return adapted


def start_adapters(policy: Policy, weights: Weights, config: LoraConfig) -> None:
    """Have the adapters begin with those of `config.start`, if it names any; drawn weights have drawn adapters.

    Raises:
        LearnerError: they are others than those of the settings.
    """
    if config.start is not None and isinstance(weights, PretrainedWeights):
        named = policy.hf_model.named_parameters()
        factors = {name: tuple(parameter.shape) for name, parameter in named if is_adapter(name)}
        weights.add_adapter(config, factors)


def is_adapter(name: str) -> bool:
    """Return whether a parameter belongs to an adapter."""
    return ".lora_A." in name or ".lora_B." in name


def adapters_of(name: str, names: Container[str]) -> list[str]:
    """Return the names of the adapter factors of a base weight that are in `names`."""
    layer = name.removesuffix(f"{BASE_SUFFIX}.weight")
    return [found for part in "AB" if (found := f"{layer}.lora_{part}.{ADAPTER}.weight") in names]


def initial_rows(
    name: str, shape: torch.Size, weights: Weights, first: int = 0, last: int | None = None
) -> torch.Tensor:
    """Return some rows of a parameter before training: those of the files, or of a new adapter.

    Of a new one, factor A is uniform and B zero, so that nothing changes at first. It is the same on every rank and
    for every number of ranks: the seed is the parameter's name.
    """
    if not is_adapter(name) or name in weights:
        return weights.rows(base_name(name), first, last)
    if ".lora_B." in name:
        return torch.zeros(shape)[first:last]
    generator = torch.Generator().manual_seed(derive_seed(0, name))
    bound = 1.0 / math.sqrt(shape[1])
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)[first:last]


def scale_of(config: LoraConfig) -> float:
    """Return what the product of an adapter's factors is multiplied by."""
    return config.alpha / config.rank


def merged(tensor: torch.Tensor, factors: Sequence[torch.Tensor], config: LoraConfig | None) -> torch.Tensor:
    """Return weight + alpha / rank * B A, or the weight itself where it has no adapter.

    The sum is float32, whatever the type of the weight, so that the caller rounds it once, to its own type.

    Args:
        tensor: the base weight.
        factors: A and B of its adapter, or none.
        config: None where there are no adapters.
    """
    if config is None or not factors:
        return tensor
    factor_a, factor_b = (factor.float() for factor in factors)
    return torch.addmm(tensor.float(), factor_b, factor_a, alpha=scale_of(config))


@contextmanager
def adapters_off(policy: Policy) -> Iterator[None]:
    """Switch adapters off for forward calls: the model as before training, a reference that needs no memory."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers: list[Any] = [module for module in policy.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


def freeze_parameters(policy: Policy, patterns: tuple[str, ...]) -> int:
    """Stop gradients of all parameters that a pattern names; returns how many.

    Args:
        policy: its parameters may be on the meta device.
        patterns: vision_tower, projector, language_model, or shell patterns of parameter names.

    Raises:
        LearnerError: a pattern matches nothing, or nothing would be left to train.
    """
    named = dict(policy.hf_model.named_parameters())
    for pattern in patterns:
        matched = _match(policy, list(named), pattern)
        if not matched:
            raise LearnerError(
                f"learner.freeze pattern {pattern!r} matches no parameter; use {', '.join(PARTS)}, or a shell pattern "
                f"of names like {', '.join(list(named)[:: max(1, len(named) // 4)])}"
            )
        for name in matched:
            named[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in named.values()):
        raise LearnerError(f"learner.freeze={list(patterns)} freezes every parameter; leave something to train")
    return sum(not parameter.requires_grad for parameter in named.values())


def _match(policy: Policy, names: list[str], pattern: str) -> list[str]:
    if pattern in PARTS:
        return [name for name in names if name.startswith(policy.family.parts[pattern])]
    return fnmatch.filter(names, pattern)
