"""The policy: a Hugging Face vision-language model that gives logprobs of completion tokens."""

import fnmatch
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.core_model_loading import revert_weight_conversion

from learner.algorithms.logprobs import token_logprobs
from learner.attention import ATTENTION_NAME, LAYOUT_KEY, register_attention
from learner.errors import LearnerError
from learner.packing import MicroBatch

# Families whose positions and image features learner/packing.py reproduces, with an equality test for each.
SUPPORTED_FAMILIES = ("qwen2_5_vl",)


class Policy(torch.nn.Module):
    """Embeddings, blocks and logprobs in one forward call.

    One call, because sharded weights are gathered around forward calls: every rank then gathers in one order.
    """

    def __init__(self, language_model: torch.nn.Module, *, temperature: float) -> None:
        """Wrap a model of transformers."""
        super().__init__()
        self.hf_model: Any = language_model
        self._temperature = temperature

    def forward(self, batch: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Give (logprobs [C], entropy [C]) of the completion tokens, float32."""
        inner = self.hf_model.model
        features = torch.cat(
            inner.get_image_features(batch.pixel_values, batch.image_grid_thw, return_dict=True).pooler_output
        )
        embeddings = self.hf_model.get_input_embeddings()(batch.input_ids)[0]
        features = features.to(embeddings.dtype)
        num_used = len(batch.image_rows)
        embeddings = embeddings.index_copy(0, batch.image_rows, features[:num_used])
        # A dummy image has no rows; adding zero times its features keeps the vision tower in the graph of every rank.
        embeddings = embeddings + 0.0 * features[num_used:].sum()
        hidden_states = inner.language_model(
            inputs_embeds=embeddings[None],
            position_ids=batch.position_ids,
            use_cache=False,
            **{LAYOUT_KEY: batch.layout},
        ).last_hidden_state[0]
        return token_logprobs(
            hidden_states.index_select(0, batch.predicting_rows),
            self.hf_model.lm_head.weight,
            batch.target_ids,
            temperature=self._temperature,
        )

    def blocks(self) -> list[torch.nn.Module]:
        """Transformer blocks of the vision tower and the language model: the units of sharding and recomputation."""
        return [*self.hf_model.model.visual.blocks, *self.hf_model.model.language_model.layers]


def load_policy(model_path: str | Path, *, temperature: float) -> Policy:
    """Load a model folder in float32, with prefix-shared attention.

    Raises:
        LearnerError: there is no model, or it is of a family that packing does not know.
    """
    if not (Path(model_path) / "config.json").is_file():
        raise LearnerError(f"learner.model_path={model_path} holds no config.json; point it at a Hugging Face folder")
    family = AutoConfig.from_pretrained(str(model_path)).model_type
    if family not in SUPPORTED_FAMILIES:
        raise LearnerError(
            f"learner.model_path={model_path} is a {family} model; the learner knows {', '.join(SUPPORTED_FAMILIES)}. "
            "A new family needs its positions in learner/packing.py and the equality test"
        )
    model = AutoModelForImageTextToText.from_pretrained(str(model_path), dtype=torch.float32)
    register_attention()
    model.set_attn_implementation({"text_config": ATTENTION_NAME, "vision_config": "sdpa"})
    return Policy(model, temperature=temperature)


def freeze_parameters(policy: Policy, patterns: tuple[str, ...]) -> int:
    """Stop gradients of all parameters whose name matches a shell pattern; gives how many.

    Raises:
        LearnerError: a pattern matches nothing, or nothing would be left to train.
    """
    named = dict(policy.hf_model.named_parameters())
    for pattern in patterns:
        matched = fnmatch.filter(named, pattern)
        if not matched:
            raise LearnerError(
                f"learner.freeze pattern {pattern!r} matches no parameter; names look like "
                f"{', '.join(list(named)[:: max(1, len(named) // 4)])}"
            )
        for name in matched:
            named[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in named.values()):
        raise LearnerError(f"learner.freeze={patterns} freezes every parameter; leave something to train")
    return sum(not parameter.requires_grad for parameter in named.values())


def checkpoint_names(policy: Policy) -> dict[str, str]:
    """Map each parameter's name in the module to its name in a checkpoint of the family.

    transformers renames while loading; engines and exported folders want the names of the original.

    Raises:
        LearnerError: transformers merges tensors of this model while loading, so names are not one to one.
    """
    names = {}
    for name, parameter in policy.hf_model.named_parameters():
        original = list(revert_weight_conversion(policy.hf_model, {name: parameter}))
        if len(original) != 1:
            raise LearnerError(f"parameter {name} is stored as {original}; only one-to-one names are supported")
        names[name] = original[0]
    return names
