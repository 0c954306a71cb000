"""The policy: a model of transformers that returns logprobs of completion tokens in one forward call."""

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from learner.algorithms.logprobs import token_logprobs
from learner.attention.flash import FlashKernel, flash_library, flash_obstacle, register_tower
from learner.attention.flex import FlexKernel
from learner.attention.kernel import AttentionKernel, register_kernel
from learner.attention.sdpa import SdpaKernel
from learner.errors import LearnerError
from learner.families.base import BaseFamily
from learner.policy.packing import MicroBatch
from learner.policy.routing import RouterWatch

logger = logging.getLogger(__name__)


class Policy(torch.nn.Module):
    """Embeddings, blocks and logprobs in one forward call.

    One call, because sharded weights are gathered around forward calls, and all ranks must gather in the same order.
    """

    def __init__(
        self,
        hf_model: torch.nn.Module,
        family: BaseFamily,
        *,
        temperature: float,
        banned_token_ids: Sequence[int] = (),
    ) -> None:
        """Wrap a model of transformers; the policy is the distribution that engines sample from."""
        super().__init__()
        self.hf_model: Any = hf_model
        self.family = family
        self._temperature = temperature
        self._banned_token_ids = tuple(banned_token_ids)
        self.routers: RouterWatch | None = None
        """Sums of the last forward pass over no dummy; None until `watch_routers`, or where there are no experts."""

    def watch_routers(self, *, keeps_gradient: bool) -> None:
        """Sum up what routers do in each forward pass, if the model has experts."""
        if layers := self.family.expert_layers(self.hf_model):
            self.routers = RouterWatch(layers, keeps_gradient=keeps_gradient)

    def forward(self, batch: MicroBatch, *, is_raw: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (logprobs [C], entropy [C]) of the completion tokens, float32.

        Args:
            batch: the tokens.
            is_raw: use the model's own logits: temperature 1 and no banned token, as engines do for the tokens of a
                prompt.
        """
        with nullcontext() if self.routers is None or batch.is_dummy else self.routers.recording():
            hidden_states = self.family.hidden_states(self.hf_model, batch.inputs)
        hidden_states = hidden_states.index_select(0, batch.predicting_rows)
        if self.family.logit_scale != 1.0:
            hidden_states = hidden_states * self.family.logit_scale
        return token_logprobs(
            hidden_states,
            self.hf_model.lm_head.weight,
            batch.target_ids,
            temperature=1.0 if is_raw else self._temperature if batch.temperatures is None else batch.temperatures,
            banned_token_ids=() if is_raw else self._banned_token_ids,
            logit_cap=self.family.logit_cap,
        )

    def units(self) -> list[torch.nn.Module]:
        """Units of sharding, inner ones first: the experts of each layer, then the transformer blocks."""
        experts: list[torch.nn.Module] = [layer.experts for layer in self.family.expert_layers(self.hf_model)]
        return [*experts, *self.family.vision_blocks(self.hf_model), *self.family.language_blocks(self.hf_model)]


def choose_kernel(name: str, *, device: torch.device, dtype: torch.dtype) -> AttentionKernel:
    """Return the attention kernel for a value of `learner.attention`, and log which it is.

    Raises:
        LearnerError: `name` is flash, which cannot run here.
    """
    obstacle = flash_obstacle(device)
    if obstacle is None and dtype != torch.bfloat16:
        obstacle = f"learner.dtype is {str(dtype).removeprefix('torch.')}, and it needs bfloat16"
    if name == "flash" and obstacle is not None:
        raise LearnerError(f"learner.attention is flash, which does not run here: {obstacle}; use sdpa or flex")
    if name == "auto":
        name = "flash" if obstacle is None else "sdpa"
    library = flash_library() if name != "sdpa" and obstacle is None else None
    logger.info("attention: %s%s", name, f"; flash attention by {library.title}" if library is not None else "")
    if name == "sdpa":
        return SdpaKernel()
    if name == "flex":
        return FlexKernel(tower=library)
    assert library is not None
    return FlashKernel(library)


def build_skeleton(
    config: Any,
    family: BaseFamily,
    kernel: AttentionKernel,
    *,
    temperature: float,
    banned_token_ids: Sequence[int] = (),
) -> Policy:
    """Build the policy without its weights: parameters are on the meta device, buffers are real.

    Args:
        config: of transformers.
        family: of the model.
        kernel: attention of the language model.
        temperature: sampling temperature of the rollout.
        banned_token_ids: tokens that the rollout never samples.
    """
    with parameters_on_meta():
        # A copy: the model writes its attention implementation into it, which the next model would inherit.
        auto: Any = AutoModelForCausalLM if family.is_text_only else AutoModelForImageTextToText
        model = auto.from_config(copy.deepcopy(config), dtype=torch.float32)
    # Towers attend within images or windows.
    tower = "sdpa" if kernel.tower is None else register_tower(kernel.tower)
    family.set_attention(model, text=register_kernel(kernel), tower=tower)
    family.prepare(model)
    return Policy(model, family, temperature=temperature, banned_token_ids=banned_token_ids)


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Build modules with parameters on the meta device, without storage; their buffers are computed as always."""
    register = torch.nn.Module.register_parameter

    def register_on_meta(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta:
            parameter = torch.nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
        register(module, name, parameter)

    torch.nn.Module.register_parameter = register_on_meta  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        torch.nn.Module.register_parameter = register  # type: ignore[method-assign]
