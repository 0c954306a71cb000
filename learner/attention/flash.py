"""The stream's attention by variable-length flash attention, without copying a stem for each of its branches.

Stems attend to themselves. Branches attend twice: all branches of a stem together to the stem, and each to itself; the
two results are merged by their log-sum-exps. A flash backward pass needs only the output and the log-sum-exp of the
whole row, so each of the two passes runs backward with the merged ones, and gradients are exact.

Two libraries have the functions: the flash-attn package, and torch itself, which is built with the same kernels.

Source: FlashAttention-2, arXiv:2307.08691, sections 3.1 and 3.2. Axes: L tokens, H heads, D head size.
"""

import importlib.metadata
import importlib.util
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from learner.attention.kernel import Spans, StreamLayout, Triple, VarlenFlash

logger = logging.getLogger(__name__)

MIN_CAPABILITY = (8, 0)
"""Compute capability (Ampere) from which both libraries run."""
MIN_MAX_QUERIES = 2
"""Least value passed as the longest query segment. With 1, both libraries assume decoding, with one query per segment,
but segments may be empty here. A bound that is too high costs nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlashPrepared:
    """The three passes of one stream."""

    num_stem_tokens: int
    stems: Spans
    branches: tuple[Spans, Spans] | None
    """Branches to their stems, and to themselves; None where there are none."""


class FlashAttnLibrary:
    """The flash-attn package, version 2."""

    def __init__(self) -> None:
        """Import the package.

        Raises:
            ImportError: it is not installed, or was built against another torch.
        """
        from flash_attn.flash_attn_interface import _flash_attn_varlen_backward, flash_attn_varlen_func

        self.title = f"flash-attn {importlib.metadata.version('flash-attn')}"
        self._forward = flash_attn_varlen_func
        self._backward = _flash_attn_varlen_backward

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, spans: Spans, scaling: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        out, log_sum_exp, _ = self._forward(
            query, key, value, spans.queries, spans.keys, spans.max_queries, spans.max_keys,
            softmax_scale=scaling, causal=spans.is_causal, return_attn_probs=True,
        )  # fmt: skip
        return out, log_sum_exp

    def backward(
        self, grad_out: torch.Tensor, saved: Triple, out: torch.Tensor, log_sum_exp: torch.Tensor, spans: Spans,
        scaling: float,
    ) -> Triple:  # fmt: skip
        query, key, value = saved
        grads = (torch.empty_like(query), torch.empty_like(key), torch.empty_like(value))
        self._backward(
            dout=grad_out, q=query, k=key, v=value, out=out, softmax_lse=log_sum_exp,
            dq=grads[0], dk=grads[1], dv=grads[2],
            cu_seqlens_q=spans.queries, cu_seqlens_k=spans.keys,
            max_seqlen_q=spans.max_queries, max_seqlen_k=spans.max_keys,
            dropout_p=0.0, softmax_scale=scaling, causal=spans.is_causal, window_size_left=-1, window_size_right=-1,
            softcap=0.0, alibi_slopes=None, deterministic=False,
        )  # fmt: skip
        return grads


class TorchFlash:
    """torch's own flash attention: the operators behind `torch.nn.attention.varlen`.

    Not `varlen_attn` itself, whose backward pass takes the log-sum-exp of its own forward pass and no other; in torch
    2.11 it also wants as many key heads as query heads, which the operators do not.
    """

    title = f"torch {torch.__version__}"

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, spans: Spans, scaling: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        out, log_sum_exp, *_ = torch.ops.aten._flash_attention_forward(
            query, key, value, spans.queries, spans.keys, spans.max_queries, spans.max_keys,
            0.0,  # dropout
            spans.is_causal,
            False,  # return_debug_mask
            scale=scaling,
        )  # fmt: skip
        return out, log_sum_exp

    def backward(
        self, grad_out: torch.Tensor, saved: Triple, out: torch.Tensor, log_sum_exp: torch.Tensor, spans: Spans,
        scaling: float,
    ) -> Triple:  # fmt: skip
        unused = torch.empty(0, device=grad_out.device)  # random state of dropout
        grads: Triple = torch.ops.aten._flash_attention_backward(
            grad_out, *saved, out, log_sum_exp, spans.queries, spans.keys, spans.max_queries, spans.max_keys,
            0.0,  # dropout
            spans.is_causal, unused, unused, scale=scaling,
        )  # fmt: skip
        return grads


def flash_obstacle(device: torch.device) -> str | None:
    """Return why flash attention does not run on a device; None where it does."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return "there is no GPU"
    capability = torch.cuda.get_device_capability(device)
    if capability < MIN_CAPABILITY:
        has, needs = (".".join(map(str, pair)) for pair in (capability, MIN_CAPABILITY))
        return f"{torch.cuda.get_device_name(device)} has compute capability {has}, and it needs {needs}"
    if importlib.util.find_spec("flash_attn") is None and not torch.backends.cuda.is_flash_attention_available():
        return f"torch {torch.__version__} is built without it, and the flash-attn package is not installed"
    return None


def flash_library() -> VarlenFlash:
    """Return flash-attn where it is installed and loads, and torch's own functions otherwise."""
    if importlib.util.find_spec("flash_attn") is not None:
        try:
            return FlashAttnLibrary()
        except ImportError as error:
            logger.warning("flash-attn is installed and does not load (%s); torch's flash attention is used", error)
    return TorchFlash()


class FlashKernel:
    """Three variable-length passes a layer."""

    name = "flash"
    is_traceable = False

    def __init__(self, library: VarlenFlash) -> None:
        self.tower = library

    def prepare(self, layout: StreamLayout, *, device: torch.device, dtype: torch.dtype) -> FlashPrepared:
        in_branches = np.bincount(
            layout.stem_of, weights=layout.branch_lengths, minlength=len(layout.stem_lengths)
        ).astype(np.int64)
        stems, branches = layout.stem_lengths, layout.branch_lengths
        return FlashPrepared(
            num_stem_tokens=int(stems.sum()),
            stems=_spans(stems, stems, device, is_causal=True),
            branches=None
            if not branches.sum()
            else (
                _spans(in_branches, stems, device, is_causal=False),
                _spans(branches, branches, device, is_causal=True),
            ),
        )

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, prepared: FlashPrepared, *, scaling: float
    ) -> torch.Tensor:
        out: torch.Tensor = _StreamAttention.apply(query, key, value, prepared, scaling, self.tower)  # type: ignore[no-untyped-call]
        return out


def attend_within(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, spans: Spans, scaling: float, library: VarlenFlash
) -> torch.Tensor:
    """Return the attention [L, H, D] within segments that share nothing: images, or windows of images.

    Args:
        query: [L, H, D].
        key: [L, KV heads, D].
        value: [L, KV heads, D].
        spans: the segments; of queries and keys the same.
        scaling: factor on the scores.
        library: that computes it.
    """
    prepared = FlashPrepared(num_stem_tokens=len(query), stems=spans, branches=None)
    out: torch.Tensor = _StreamAttention.apply(query, key, value, prepared, scaling, library)  # type: ignore[no-untyped-call]
    return out


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

    # transformers passes the bounds of all segments in one call if the name contains "flash".
    name = "mixed_r1_tower_flash"
    AttentionInterface.register(name, torch.compiler.disable(forward))
    return name


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
        if prepared.branches is not None:
            stem_spans, own_spans = prepared.branches
            to_stem, stem_weight = library.forward(query[cut:], key[:cut], value[:cut], stem_spans, scaling)
            to_self, self_weight = library.forward(query[cut:], key[cut:], value[cut:], own_spans, scaling)
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

        def backward(rows: slice, keys: slice, spans: Spans) -> Triple:
            saved = (query[rows], key[keys], value[keys])
            grads: Triple = ctx.library.backward(
                grad_out[rows], saved, out[rows], log_sum_exp[:, rows].contiguous(), spans, ctx.scaling
            )
            return grads

        stem, branch = slice(0, cut), slice(cut, len(query))
        grads = backward(stem, stem, prepared.stems)
        if prepared.branches is not None:
            stem_spans, own_spans = prepared.branches
            crossed = backward(branch, stem, stem_spans)
            own = backward(branch, branch, own_spans)
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
    def cumulative(lengths: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)).to(device)

    return Spans(
        queries=cumulative(queries),
        keys=cumulative(keys),
        max_queries=int(queries.max(initial=MIN_MAX_QUERIES)),
        max_keys=int(keys.max(initial=0)),
        is_causal=is_causal,
    )
