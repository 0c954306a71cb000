"""The settings of `mixed-r1 check`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckConfig:
    """What `mixed-r1 check` begins with."""

    random_weights: bool
    """Begin with random weights of the model's shape: model.path then needs config, tokenizer and processor alone."""
