"""What stays fixed: whole parts of the model by name, or parameters by shell pattern; and what can change."""

import fnmatch
from collections.abc import Mapping

from learner.errors import LearnerError
from learner.families.base import PARTS
from learner.lora import base_name
from learner.model import Policy


def freeze_parameters(policy: Policy, patterns: tuple[str, ...]) -> int:
    """Stop gradients of all parameters that a pattern names; gives how many.

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


def layer_of(name: str) -> str:
    """Return the layer that a parameter belongs to: its transformer block, or else the module that holds it.

    An engine loads all that a module holds by itself or nothing of it, and merges modules of one block (q, k and v)
    into one of its own.

    Example:
        >>> layer_of("model.language_model.layers.3.self_attn.q_proj.lora_A.default.weight")
        'model.language_model.layers.3'
        >>> layer_of("model.multi_modal_projector.linear_1.bias")
        'model.multi_modal_projector.linear_1'
        >>> layer_of("model.vision_tower.embeddings.cls_token")
        'model.vision_tower.embeddings'
    """
    module, is_adapter, _ = base_name(name).partition(".lora_")
    parts = (module if is_adapter else module.rpartition(".")[0]).split(".")
    place = next((place for place, part in enumerate(parts) if part.isdigit()), len(parts))
    return ".".join(parts[: place + 1])


def changing_names(policy: Policy, stored: Mapping[str, str]) -> frozenset[str]:
    """Return the checkpoint names of all tensors of the layers, by `layer_of`, in which something is trained.

    Args:
        policy: its frozen parameters need no gradient.
        stored: checkpoint name by the model's own, adapters left out.
    """
    layers = {layer_of(name) for name, parameter in policy.hf_model.named_parameters() if parameter.requires_grad}
    return frozenset(kept for name, kept in stored.items() if layer_of(name) in layers)
