"""Attention kernels by name, and how transformers comes to call them."""

import importlib.util
from typing import Any, Protocol

import torch

from learner.attention.flash import FlashKernel
from learner.attention.flex import FlexKernel
from learner.attention.layout import StreamLayout
from learner.attention.sdpa import SdpaKernel
from learner.errors import LearnerError

PREPARED_KEY = "prepared_layout"
"""Keyword under which a forward call carries what `prepare` gave down to the attention layers."""


class AttentionKernel(Protocol):
    """A way to compute the attention of a stream."""

    name: str
    is_traceable: bool
    """Whether torch.compile may look inside; if not, it compiles what stands before and behind, for all layouts."""

    def prepare(self, layout: StreamLayout, *, device: torch.device, dtype: torch.dtype) -> Any:
        """Put on the device what every layer of a forward pass needs."""
        ...

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
        ...


def choose_kernel(name: str, *, device: torch.device, dtype: torch.dtype) -> AttentionKernel:
    """Give the kernel of learner.attention.

    Raises:
        LearnerError: flash-attn is asked for and not installed.
    """
    has_flash = device.type == "cuda" and importlib.util.find_spec("flash_attn") is not None
    if name == "auto":
        name = "flash" if has_flash and dtype == torch.bfloat16 else "sdpa"
    if name == "sdpa":
        return SdpaKernel()
    if name == "flex":
        return FlexKernel()
    if not has_flash:
        raise LearnerError(
            "learner.attention is flash, but flash-attn is not installed; install it, or use sdpa or flex"
        )
    return FlashKernel()


def register_kernel(kernel: AttentionKernel) -> str:
    """Make a kernel known to transformers; gives the name of the implementation. Calling twice is harmless."""
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
