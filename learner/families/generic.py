"""Any other model of transformers, by its own forward pass on right-padded rows: exact, and slower than a stream.

Images are repeated for every completion, and a prompt is computed as often as it has completions. In return positions,
masks, sliding windows and attention in both directions over images are the model's own.

Axes: S rows, T tokens of the longest, D hidden size.
"""

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from learner.errors import LearnerError
from learner.families.base import BaseFamily, PaddedInputs
from learner.families.causal_lm import LENGTH_DEPENDENT

BOTH_WAYS = ("paligemma", "shieldgemma2")
"""Architectures whose prompts attend both ways in transformers, and backwards only in the engine."""
SCALES = MappingProxyType({"logit_scale": 1.0, "logits_scaling": -1.0})
"""Keys of configurations (Cohere, Granite) -> power to which their value multiplies logits."""
LOGIT_TOLERANCE = MappingProxyType({torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3})
"""Largest difference between two ways to compute logits, of the largest logit."""


class Generic(BaseFamily):
    """A model that no other family knows: its own forward pass, and what can be found out from it."""

    is_padded = True

    def __init__(self, config: Any) -> None:
        kind = config.model_type
        self.is_text_only = kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
        text = config.get_text_config()
        self.image_token_id: int | None = None if self.is_text_only else getattr(config, "image_token_id", None)
        """Placeholder of an image's features in a prompt; None of a language model."""
        if obstacle := self._obstacle(config):
            raise LearnerError(f"the checkpoint's model_type is {kind!r}, which does not train: {obstacle}")
        self.logit_cap = getattr(text, "final_logit_softcapping", None)
        for key, power in SCALES.items():
            if (value := getattr(text, key, None)) is not None:
                self.logit_scale = float(value) ** power
        self.parts: Mapping[str, tuple[str, ...]] = {}
        self.accepted: frozenset[str] = frozenset()
        """Keyword arguments of the model's forward pass."""
        self._are_logits_checked = False

    def _obstacle(self, config: Any) -> str | None:
        kind = config.model_type
        if self.is_text_only and kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            return (
                "transformers has it neither for AutoModelForImageTextToText nor for AutoModelForCausalLM; take a "
                "vision-language or language model"
            )
        if config.is_encoder_decoder or config.get_text_config().is_encoder_decoder:
            return "it is an encoder-decoder, and completions continue a prompt; take a decoder-only model"
        if kind in BOTH_WAYS:
            return "its prompts attend both ways, which the engine does not compute; take a causal model"
        if getattr(config, "quantization_config", None):
            return "its weights are quantised (quantization_config); take the checkpoint that is not"
        if rope := _length_dependent_rope(config.get_text_config()):
            return (
                f"its rotary embedding is {rope}, which transformers chooses by the longest sequence of a batch and "
                "the engine once for all; take a checkpoint or a config.json with another rope_type"
            )
        if not self.is_text_only and self.image_token_id is None:
            return "its configuration names no image_token_id, so image tokens cannot be counted; write a family for it"
        return None

    def prepare(self, model: Any) -> None:
        """Find parts, and what the forward pass takes.

        Raises:
            LearnerError: the model's logits are not its lm_head times its last hidden state.
        """
        name = type(model).__name__
        head = getattr(model, "lm_head", None)
        if not isinstance(head, torch.nn.Linear) or head.bias is not None:
            raise LearnerError(f"{name} has no lm_head that is a linear layer without bias; write a family for it")
        parameters = inspect.signature(model.forward).parameters
        inner = inspect.signature(model.base_model.forward).parameters
        if model.base_model is model or "logits_to_keep" not in parameters:
            raise LearnerError(
                f"{name} computes the logits of all tokens (its forward has no logits_to_keep); write a family for it"
            )
        self.accepted = frozenset(parameters) | frozenset(inner)
        names = {id(module): f"{name}." for name, module in model.named_modules()}
        tower = None if self.is_text_only else model.get_encoder(modality="image")
        decoder = model.get_decoder()
        if not self.is_text_only and (tower in (model, model.base_model) or decoder in (model, model.base_model)):
            raise LearnerError(f"{name} does not tell its vision tower from its language model; write a family for it")
        vision = () if tower is None else (names[id(tower)],)
        language = (names[id(decoder)], "lm_head.")
        others = [name for name, _ in model.named_parameters() if not name.startswith((*vision, *language))]
        self.parts = {"vision_tower": vision, "projector": tuple(others), "language_model": language}

    def set_attention(self, model: Any, *, text: str, tower: str) -> None:
        """Leave the model its own: padded rows need its masks. SDPA would leave out the cap of capped attention."""
        if getattr(model.config.get_text_config(), "attn_logit_softcapping", None) is not None:
            model.set_attn_implementation("eager")

    def hidden_states(self, model: Any, inputs: PaddedInputs) -> torch.Tensor:
        """Return the last hidden states [S * T, D], row after row.

        Raises:
            LearnerError: in the first pass, the model's logits are others than those that are trained.
        """
        seen: list[torch.Tensor] = []
        with model.base_model.register_forward_hook(lambda _, __, output: seen.append(output.last_hidden_state)):
            output = model(input_ids=inputs.input_ids, use_cache=False, logits_to_keep=1, **inputs.arguments)
        [hidden] = seen
        if not self._are_logits_checked:
            self._check_logits(model, hidden.detach()[:, -1], output.logits.detach()[:, -1])
            self._are_logits_checked = True
        return hidden.flatten(0, 1)

    def _check_logits(self, model: Any, hidden: torch.Tensor, logits: torch.Tensor) -> None:
        """Compare the logits [S, V] of the last column with head, scale and cap as they are trained."""
        own = torch.nn.functional.linear(hidden * self.logit_scale, model.lm_head.weight.detach()).float()
        if self.logit_cap is not None:
            own = torch.tanh(own / self.logit_cap) * self.logit_cap
        difference = float((own - logits.float()).abs().max())
        if not difference <= LOGIT_TOLERANCE[hidden.dtype] * max(1e-3, float(logits.abs().max())):
            raise LearnerError(
                f"the logits of {type(model).__name__} are not those of its lm_head with scale {self.logit_scale} and "
                f"cap {self.logit_cap}: they differ by {difference:.3g}; write a family for it"
            )

    def vision_blocks(self, model: Any) -> list[torch.nn.Module]:
        return self._blocks(model, self.parts["vision_tower"])

    def language_blocks(self, model: Any) -> list[torch.nn.Module]:
        return self._blocks(model, self.parts["language_model"])

    def _blocks(self, model: Any, beginnings: tuple[str, ...]) -> list[torch.nn.Module]:
        """Return the outermost layers that transformers recomputes, which are its blocks."""
        found: dict[str, torch.nn.Module] = {}
        for name, module in model.named_modules():
            is_block = isinstance(module, GradientCheckpointingLayer) and name.startswith(beginnings)
            if is_block and not name.startswith(tuple(f"{outer}." for outer in found)):
                found[name] = module
        return list(found.values())


def _length_dependent_rope(text: Any) -> str | None:
    """Return the type of a language model's rotary embedding that depends on lengths; None where none does.

    A configuration has the parameters of one embedding, or those of one for each kind of layer.
    """
    found = getattr(text, "rope_parameters", None) or {}
    kinds = {part.get("rope_type") for part in (found, *found.values()) if isinstance(part, Mapping)}
    return next((kind for kind in LENGTH_DEPENDENT if kind in kinds), None)
