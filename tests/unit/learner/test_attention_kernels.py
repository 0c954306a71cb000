"""Every kernel against a softmax written out over the whole stream, in value and gradient."""

import numpy as np
import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask

from learner.attention.flash import FlashKernel
from learner.attention.flex import FlexKernel
from learner.attention.kernel import StreamLayout
from learner.attention.padding import alike
from learner.attention.sdpa import SdpaKernel
from learner.policy.model import choose_kernel
from tests.benchmarks.live_bytes import peak_live_bytes

CPU = torch.device("cpu")
HEADS, KV_HEADS, HEAD_DIM = 4, 2, 16
LAYOUTS = {
    "one prompt": ((9,), (4, 2, 7), (0, 0, 0)),
    "several": ((5, 30, 1, 12), (3, 8, 1, 20, 2), (0, 0, 1, 3, 3)),
    "nothing shared": ((7, 3, 22), (), ()),
    "an empty branch": ((6, 4), (0, 3, 0), (0, 0, 1)),
}


class WrittenOut:
    """Flash attention's two functions, run by run in plain torch: what the library must compute."""

    title = "written out"

    def forward(self, query, key, value, spans, scaling):
        outs, sums = [], []
        for rows, columns in runs(spans):
            scores = self.scores(query[rows], key[columns], spans, scaling)
            sums.append(torch.logsumexp(scores, -1))
            outs.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), grouped(value[columns], query)))
        return torch.cat(outs), torch.cat(sums, dim=1).float()

    def backward(self, grad_out, saved, out, log_sum_exp, spans, scaling):
        query, key, value = saved
        grads = [torch.zeros_like(tensor) for tensor in saved]
        for rows, columns in runs(spans):
            scores = self.scores(query[rows], key[columns], spans, scaling)
            # The row's own probabilities under the log-sum-exp that was handed in, as the paper's algorithm 2 has it.
            probabilities = torch.exp(scores - log_sum_exp[:, rows, None].to(scores.dtype))
            own = grad_out[rows]
            delta = (own * out[rows]).sum(-1).t()
            of_scores = probabilities * (
                torch.einsum("qhd,khd->hqk", own, grouped(value[columns], query)) - delta[..., None]
            )
            grads[0][rows] += torch.einsum("hqk,khd->qhd", of_scores, grouped(key[columns], query)) * scaling
            grads[1][columns] += ungrouped(torch.einsum("hqk,qhd->khd", of_scores, query[rows]), key) * scaling
            grads[2][columns] += ungrouped(torch.einsum("hqk,qhd->khd", probabilities, own), key)
        return tuple(grads)

    def scores(self, query, key, spans, scaling):
        scores = torch.einsum("qhd,khd->hqk", query, grouped(key, query)) * scaling
        if spans.is_causal:
            is_future = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(is_future, -torch.inf)
        return scores


def runs(spans):
    bounds = zip(
        spans.queries.tolist(), spans.queries.tolist()[1:], spans.keys.tolist(), spans.keys.tolist()[1:], strict=False
    )
    return [(slice(a, b), slice(c, d)) for a, b, c, d in bounds]


def grouped(tensor, query):
    """As many key heads as there are query heads."""
    return tensor.repeat_interleave(query.shape[1] // tensor.shape[1], dim=1)


def ungrouped(tensor, key):
    return tensor.unflatten(1, (key.shape[1], -1)).sum(2)


def whole_softmax(query, key, value, layout, scaling):
    """One [L, L] mask made by a loop over all pairs of tokens."""
    lengths = [*layout.stem_lengths, *layout.branch_lengths]
    segment = np.repeat(np.arange(len(lengths)), lengths)
    stem = [None] * len(layout.stem_lengths) + list(layout.stem_of)
    sees = [
        [j <= i and segment[j] in (segment[i], stem[segment[i]]) for j in range(len(segment))]
        for i in range(len(segment))
    ]
    scores = torch.einsum("qhd,khd->hqk", query, grouped(key, query)) * scaling
    scores = scores.masked_fill(~torch.tensor(sees), -torch.inf)
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), grouped(value, query))


def make_layout(name):
    stems, branches, stem_of = (np.array(values, dtype=np.int64) for values in LAYOUTS[name])
    return StreamLayout(stem_lengths=stems, branch_lengths=branches, stem_of=stem_of)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("kernel", [SdpaKernel(), FlashKernel(WrittenOut())], ids=lambda kernel: kernel.name)
def test_a_kernel_equals_the_softmax_written_out(kernel, name):
    layout = make_layout(name)
    generator = torch.Generator().manual_seed(3)
    shapes = [(layout.num_tokens, heads, HEAD_DIM) for heads in (HEADS, KV_HEADS, KV_HEADS, HEADS)]
    query, key, value, grad_out = (torch.randn(shape, generator=generator) for shape in shapes)
    inputs = [tensor.requires_grad_() for tensor in (query, key, value)]

    expected = whole_softmax(*inputs, layout, 0.3)
    expected_grads = torch.autograd.grad(expected, inputs, grad_out)
    out = kernel.attend(*inputs, kernel.prepare(layout, device=CPU, dtype=torch.float32), scaling=0.3)
    grads = torch.autograd.grad(out, inputs, grad_out)

    assert (out - expected).abs().max() < 1e-5
    for found, wanted in zip(grads, expected_grads, strict=True):
        assert (found - wanted).abs().max() < 2e-5


@pytest.mark.parametrize("name", LAYOUTS)
def test_flex_equals_the_softmax_written_out_in_value(name):
    """torch has no backward pass of FlexAttention on CPU; tests/gpu compares gradients."""
    layout, kernel = make_layout(name), FlexKernel(is_compiled=False)
    generator = torch.Generator().manual_seed(3)
    inputs = [torch.randn(layout.num_tokens, heads, HEAD_DIM, generator=generator) for heads in (HEADS, 2, 2)]

    out = kernel.attend(*inputs, kernel.prepare(layout, device=CPU, dtype=torch.float32), scaling=0.3)

    assert (out - whole_softmax(*inputs, layout, 0.3)).abs().max() < 1e-5


STREAMS = {
    **{name: make_layout(name) for name in LAYOUTS},
    "many blocks": StreamLayout(
        stem_lengths=np.array([400, 128, 1, 700]),
        branch_lengths=np.array([300, 0, 90, 128, 5, 260]),
        stem_of=np.array([0, 0, 0, 1, 3, 3]),
    ),
    "whole blocks": StreamLayout(
        stem_lengths=np.array([256, 128]), branch_lengths=np.array([128, 256]), stem_of=np.array([0, 1])
    ),
    "short groups": StreamLayout(
        stem_lengths=np.full(40, 9), branch_lengths=np.full(160, 3), stem_of=np.repeat(np.arange(40), 4)
    ),
}


@pytest.mark.parametrize("layout", STREAMS.values(), ids=STREAMS)
def test_the_block_mask_that_is_counted_from_lengths_is_the_one_that_torch_finds_by_looking(layout):
    found = FlexKernel(is_compiled=False).prepare(layout, device=CPU, dtype=torch.float32)

    expected = create_block_mask(found.mask_mod, None, None, layout.num_tokens, layout.num_tokens, device="cpu")

    assert found.shape == expected.shape
    for part in ("kv", "full_kv", "q", "full_q"):
        number, order = (getattr(found, f"{part}_{what}")[0, 0].tolist() for what in ("num_blocks", "indices"))
        numbers, orders = (getattr(expected, f"{part}_{what}")[0, 0].tolist() for what in ("num_blocks", "indices"))
        assert number == numbers, part
        assert [row[:n] for row, n in zip(order, number, strict=True)] == [
            row[:n] for row, n in zip(orders, numbers, strict=True)
        ]


def test_the_block_mask_of_a_long_stream_takes_megabytes():
    layout = StreamLayout(
        stem_lengths=np.full(4, 2048), branch_lengths=np.full(32, 768), stem_of=np.repeat(np.arange(4), 8)
    )
    kernel = FlexKernel(is_compiled=False)

    peak = peak_live_bytes(lambda: kernel.prepare(layout, device=CPU, dtype=torch.float32))

    assert layout.num_tokens == 32_768
    assert peak < 4 * 2**20


def test_blocks_of_like_length_hold_every_row_once_and_little_padding():
    lengths = np.random.default_rng(0).lognormal(4, 1, 200).astype(np.int64)

    blocks = alike(lengths)

    assert sorted(np.concatenate(blocks).tolist()) == np.flatnonzero(lengths).tolist()
    assert all(lengths[block].min() >= 0.5 * lengths[block].max() for block in blocks)
    assert len(blocks) < 12


def test_auto_is_sdpa_on_a_cpu():
    assert choose_kernel("auto", device=CPU, dtype=torch.bfloat16).name == "sdpa"
