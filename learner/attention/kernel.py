"""Attention over a stream: which tokens attend to which, the interface of kernels, and how transformers calls them.

A stream is stems first, then the branches that grow from them:

    stream   | stem 0 | stem 1 | stem 2 | branch of 0 | branch of 0 | branch of 2 |

A stem attends to itself, a branch to its whole stem and to itself, always backwards. A prompt with its completions is a
stem with branches; a sequence that shares nothing is a stem alone. There is no padding.

Axes: L tokens of the stream, N stems, S branches, H heads, D head size.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

Triple = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Query, key and value, or their gradients."""

PREPARED_KEY = "prepared_layout"
"""Keyword under which a forward call passes what `prepare` returned to the attention layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLayout:
    """Lengths of stems and branches, in the order of the stream."""

    stem_lengths: NDArray[np.int64]
    """[N] at least 1 each."""
    branch_lengths: NDArray[np.int64]
    """[S] may be 0."""
    stem_of: NDArray[np.int64]
    """[S] ascending: branches of one stem are adjacent."""

    def __post_init__(self) -> None:
        assert (np.diff(self.stem_of) >= 0).all(), "branches must be in the order of their stems"

    @property
    def num_tokens(self) -> int:
        return int(self.stem_lengths.sum() + self.branch_lengths.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """Segments of queries, and of the keys that each of them attends to, concatenated."""

    queries: torch.Tensor
    """int32 [segments + 1] cumulative lengths."""
    keys: torch.Tensor
    """int32 [segments + 1]"""
    max_queries: int
    """At least `flash.MIN_MAX_QUERIES` where segments may be empty."""
    max_keys: int
    is_causal: bool


class VarlenFlash(Protocol):
    """The two functions of a flash-attention library, on CUDA in bfloat16."""

    title: str
    """Which library, and its version."""

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, spans: Spans, scaling: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return output [Lq, H, D] and log-sum-exp float32 [H, Lq]; a key head may serve several query heads."""

    def backward(
        self, grad_out: torch.Tensor, saved: Triple, out: torch.Tensor, log_sum_exp: torch.Tensor, spans: Spans,
        scaling: float,
    ) -> Triple:  # fmt: skip
        """Return gradients of query, key and value; `log_sum_exp` is contiguous."""


class AttentionKernel(Protocol):
    """A way to compute the attention of a stream."""

    name: str
    is_traceable: bool
    """Whether torch.compile may trace it; if not, only the code before and after it is compiled."""

    @property
    def tower(self) -> VarlenFlash | None:
        """Flash attention for the vision tower: all images and windows in one call.

        None: the tower uses SDPA, with one call per window.
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
        """Bridge from transformers' [1, H, L, D] to the kernel's [L, H, D]; the layout is in `arguments`."""
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
