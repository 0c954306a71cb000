"""Attention kernels by name, and how transformers comes to call them."""

import logging
from typing import Any, Protocol

import torch

from learner.attention.flash import (
    FlashKernel,
    Spans,
    VarlenFlash,
    attend_within,
    flash_library,
    flash_obstacle,
)
from learner.attention.flex import FlexKernel
from learner.attention.layout import StreamLayout
from learner.attention.sdpa import SdpaKernel
from learner.errors import LearnerError

logger = logging.getLogger(__name__)

PREPARED_KEY = "prepared_layout"
"""Keyword under which a forward call passes what `prepare` returned to the attention layers."""


class AttentionKernel(Protocol):
    """A way to compute the attention of a stream."""

    name: str
    is_traceable: bool
    """Whether torch.compile may trace it; if not, it compiles what comes before and after, for all layouts."""

    @property
    def tower(self) -> VarlenFlash | None:
        """Flash attention for the vision tower: all images and windows in one call.

        None leaves the tower to SDPA, which makes one call a window.
        """

    def prepare(self, layout: StreamLayout, *, device: torch.device, dtype: torch.dtype) -> Any:
        """Return what every layer of a forward pass needs, on the device."""

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, prepared: Any, *, scaling: float
    ) -> torch.Tensor:
        """Attend within a stream.

        Args:
            query: [L, H, D].
            key: [L, KV heads, D].
            value: [L, KV heads, D].
            prepared: from `prepare`.
            scaling: factor on the scores.

        Returns:
            [L, H, D]
        """


def choose_kernel(name: str, *, device: torch.device, dtype: torch.dtype) -> AttentionKernel:
    """Return the kernel of learner.attention, and log which it is.

    Raises:
        LearnerError: flash is asked for, and cannot run here.
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


def register_kernel(kernel: AttentionKernel) -> str:
    """Register a kernel with transformers; returns the name of the implementation. Calling twice is harmless."""
    from transformers import AttentionInterface

    def forward(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        *,
        scaling: float,
        **arguments: Any,
    ) -> tuple[torch.Tensor, None]:
        """Bridge from transformers' [1, H, L, D] to the kernel's [L, H, D]; the layout says who sees whom."""
        out = kernel.attend(
            query[0].transpose(0, 1),
            key[0].transpose(0, 1),
            value[0].transpose(0, 1),
            arguments[PREPARED_KEY],
            scaling=scaling,
        )
        return out[None], None

    name = f"mixed_r1_{kernel.name}"
    AttentionInterface.register(name, forward if kernel.is_traceable else torch.compiler.disable(forward))
    return name


def register_tower(library: VarlenFlash) -> str:
    """Register a flash-attention library with transformers for vision towers; returns the implementation's name."""
    from transformers import AttentionInterface

    def forward(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        *,
        scaling: float,
        cu_seq_lens_q: torch.Tensor | None = None,
        max_length_q: int | None = None,
        **arguments: Any,
    ) -> tuple[torch.Tensor, None]:
        """Bridge from transformers' [B, H, T, D] to [B * T, H, D]: segments as it bounds them, else one a row."""
        num_rows, num_heads, length, head_dim = query.shape
        if cu_seq_lens_q is None:
            bounds, longest = torch.arange(num_rows + 1, device=query.device, dtype=torch.int32) * length, length
        else:
            assert max_length_q is not None
            bounds, longest = cu_seq_lens_q.to(torch.int32), max_length_q
        spans = Spans(queries=bounds, keys=bounds, max_queries=longest, max_keys=longest, is_causal=False)
        query, key, value = (tensor.transpose(1, 2).flatten(0, 1) for tensor in (query, key, value))
        out = attend_within(query, key, value, spans, scaling, library)
        return out.view(num_rows, length, num_heads, head_dim), None

    # transformers hands over the bounds of segments, and all of them at once, where "flash" is in the name.
    name = "mixed_r1_tower_flash"
    AttentionInterface.register(name, torch.compiler.disable(forward))
    return name
