"""The stream's attention by variable-length flash attention, without copying a stem for each of its branches.

Stems attend to themselves. Branches attend twice: all branches of a stem together to the stem, and each to itself; the
two results are merged by their log-sum-exps. A flash backward pass needs only the output and the log-sum-exp of the
whole row, so each of the two passes runs backward with the merged ones, and gradients are exact.

Source: FlashAttention-2, arXiv:2307.08691, sections 3.1 and 3.2. Axes: L tokens, H heads, D head size.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from learner.attention.layout import StreamLayout


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """Which queries look at which keys: runs of both, one behind the other."""

    queries: torch.Tensor
    """int32 [runs + 1] cumulated lengths."""
    keys: torch.Tensor
    """int32 [runs + 1]"""
    max_queries: int
    max_keys: int
    is_causal: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FlashPrepared:
    """The three passes of one stream."""

    num_stem_tokens: int
    stems: Spans
    branches_to_stems: Spans
    branches: Spans


class VarlenFlash(Protocol):
    """The two functions of a flash-attention library."""

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, spans: Spans, scaling: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Give output [Lq, H, D] and log-sum-exp float32 [H, Lq]."""
        ...

    def backward(
        self,
        grad_out: torch.Tensor,
        saved: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        out: torch.Tensor,
        log_sum_exp: torch.Tensor,
        spans: Spans,
        scaling: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Give gradients of query, key and value."""
        ...


class FlashAttnLibrary:
    """flash-attn 2 on CUDA."""

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, spans: Spans, scaling: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See VarlenFlash."""
        from flash_attn.flash_attn_interface import flash_attn_varlen_func

        out, log_sum_exp, _ = flash_attn_varlen_func(
            query,
            key,
            value,
            spans.queries,
            spans.keys,
            spans.max_queries,
            spans.max_keys,
            softmax_scale=scaling,
            causal=spans.is_causal,
            return_attn_probs=True,
        )
        return out, log_sum_exp

    def backward(
        self,
        grad_out: torch.Tensor,
        saved: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        out: torch.Tensor,
        log_sum_exp: torch.Tensor,
        spans: Spans,
        scaling: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """See VarlenFlash."""
        from flash_attn.flash_attn_interface import _flash_attn_varlen_backward

        query, key, value = saved
        grads = (torch.empty_like(query), torch.empty_like(key), torch.empty_like(value))
        _flash_attn_varlen_backward(
            dout=grad_out,
            q=query,
            k=key,
            v=value,
            out=out,
            softmax_lse=log_sum_exp,
            dq=grads[0],
            dk=grads[1],
            dv=grads[2],
            cu_seqlens_q=spans.queries,
            cu_seqlens_k=spans.keys,
            max_seqlen_q=spans.max_queries,
            max_seqlen_k=spans.max_keys,
            dropout_p=0.0,
            softmax_scale=scaling,
            causal=spans.is_causal,
            window_size_left=-1,
            window_size_right=-1,
            softcap=0.0,
            alibi_slopes=None,
            deterministic=False,
        )
        return grads


class FlashKernel:
    """Three variable-length passes a layer."""

    name = "flash"
    is_traceable = False

    def __init__(self, library: VarlenFlash | None = None) -> None:
        """Use flash-attn, or another library with the same two functions."""
        self._library = library or FlashAttnLibrary()

    def prepare(self, layout: StreamLayout, *, device: torch.device, dtype: torch.dtype) -> FlashPrepared:
        """See AttentionKernel."""
        in_branches = np.bincount(
            layout.stem_of, weights=layout.branch_lengths, minlength=len(layout.stem_lengths)
        ).astype(np.int64)
        stems, branches = layout.stem_lengths, layout.branch_lengths
        return FlashPrepared(
            num_stem_tokens=int(stems.sum()),
            stems=_spans(stems, stems, device, is_causal=True),
            branches_to_stems=_spans(in_branches, stems, device, is_causal=False),
            branches=_spans(branches, branches, device, is_causal=True),
        )

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, prepared: FlashPrepared, *, scaling: float
    ) -> torch.Tensor:
        """See AttentionKernel."""
        out: torch.Tensor = _StreamAttention.apply(query, key, value, prepared, scaling, self._library)  # type: ignore[no-untyped-call]
        return out


class _StreamAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        prepared: FlashPrepared,
        scaling: float,
        library: VarlenFlash,
    ) -> torch.Tensor:
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        cut = prepared.num_stem_tokens
        out, log_sum_exp = library.forward(query[:cut], key[:cut], value[:cut], prepared.stems, scaling)
        if cut < len(query):
            to_stem, stem_weight = library.forward(
                query[cut:], key[:cut], value[:cut], prepared.branches_to_stems, scaling
            )
            to_self, self_weight = library.forward(query[cut:], key[cut:], value[cut:], prepared.branches, scaling)
            merged = torch.logaddexp(stem_weight, self_weight)
            out = torch.cat([out, _merge(to_stem, stem_weight - merged, to_self, self_weight - merged)])
            log_sum_exp = torch.cat([log_sum_exp, merged], dim=1)
        ctx.save_for_backward(query, key, value, out, log_sum_exp)
        ctx.prepared, ctx.scaling, ctx.library = prepared, scaling, library
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, out, log_sum_exp = ctx.saved_tensors
        prepared: FlashPrepared = ctx.prepared
        cut = prepared.num_stem_tokens
        grad_out = grad_out.contiguous()

        def backward(rows: slice, keys: slice, spans: Spans) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            saved = (query[rows], key[keys], value[keys])
            grads: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = ctx.library.backward(
                grad_out[rows], saved, out[rows], log_sum_exp[:, rows].contiguous(), spans, ctx.scaling
            )
            return grads

        stem, branch = slice(0, cut), slice(cut, len(query))
        grads = backward(stem, stem, prepared.stems)
        if cut < len(query):
            crossed = backward(branch, stem, prepared.branches_to_stems)
            own = backward(branch, branch, prepared.branches)
            grads = (
                torch.cat([grads[0], crossed[0] + own[0]]),
                torch.cat([grads[1] + crossed[1], own[1]]),
                torch.cat([grads[2] + crossed[2], own[2]]),
            )
        return (*grads, None, None, None)


def _merge(
    first: torch.Tensor, first_log: torch.Tensor, second: torch.Tensor, second_log: torch.Tensor
) -> torch.Tensor:
    """Average two outputs [L, H, D] with log-weights [H, L]."""
    first_share, second_share = (log.exp().t()[..., None] for log in (first_log, second_log))
    return (first * first_share + second * second_share).to(first.dtype)


def _spans(queries: NDArray[np.int64], keys: NDArray[np.int64], device: torch.device, *, is_causal: bool) -> Spans:
    def cumulated(lengths: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)).to(device)

    return Spans(
        queries=cumulated(queries),
        keys=cumulated(keys),
        max_queries=int(queries.max(initial=0)),
        max_keys=int(keys.max(initial=0)),
        is_causal=is_causal,
    )
