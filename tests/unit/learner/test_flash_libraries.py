"""Flash attention by torch's own operators, and in the vision tower.

No operator of flash attention runs on a CPU. So the operators are given a CPU implementation here, which checks what
the CUDA kernels check and computes the same, run by run in plain torch; call, schema and algebra are the real ones.
"""

import logging

import numpy as np
import pytest
import torch
from plain_model import whole_policy
from test_attention_kernels import CPU, HEADS, LAYOUTS, WrittenOut, make_layout, runs, whole_softmax
from tiny_learner import mixed_groups

from learner.attention import flash
from learner.attention.flash import FlashKernel, Spans, TorchFlash
from learner.attention.kernel import StreamLayout
from learner.errors import LearnerError
from learner.families.base import join_images
from learner.policy.images import ImageEncoder
from learner.policy.model import choose_kernel

WRITTEN_OUT = WrittenOut()


def check_as_cuda(query, key, value, bounds_q, bounds_k, max_q, max_k):
    """aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp, mha_varlen_fwd and mha_varlen_bwd."""
    num_runs, (total, heads, size), key_heads = len(bounds_q) - 1, query.shape, key.shape[1]
    assert (bounds_q.dtype, bounds_k.dtype) == (torch.int32, torch.int32)
    assert len(bounds_k) == num_runs + 1
    assert bounds_q[-1] == total
    assert bounds_k[-1] == len(key)
    assert max_q >= bounds_q.diff().max()
    assert max_k >= bounds_k.diff().max()
    assert heads % key_heads == 0
    assert key.shape == value.shape == (len(key), key_heads, size)
    assert all(tensor.stride(-1) == 1 for tensor in (query, key, value))
    # One query a run is decoding: queries are then counted by runs.
    assert not (max_q == 1 and heads > key_heads and num_runs != total), "shape is invalid for input"


def aten_forward(
    query,
    key,
    value,
    bounds_q,
    bounds_k,
    max_q,
    max_k,
    dropout_p,
    is_causal,
    return_debug_mask,
    *,
    scale=None,
    **others,
):
    assert (dropout_p, return_debug_mask) == (0.0, False)
    assert not any(value is not None for value in others.values())
    check_as_cuda(query, key, value, bounds_q, bounds_k, max_q, max_k)
    spans = Spans(queries=bounds_q, keys=bounds_k, max_queries=max_q, max_keys=max_k, is_causal=is_causal)
    out, log_sum_exp = WRITTEN_OUT.forward(query, key, value, spans, scale)
    unused = torch.empty(0)
    return out, log_sum_exp, unused, unused.clone(), unused.clone()


def aten_backward(
    grad_out, query, key, value, out, log_sum_exp, bounds_q, bounds_k, max_q, max_k, dropout_p, is_causal, seed, offset,
    *, scale=None, **others,
):  # fmt: skip
    assert dropout_p == 0.0
    assert not any(value is not None for value in others.values())
    check_as_cuda(query, key, value, bounds_q, bounds_k, max_q, max_k)
    # The kernel reads rows of L, whatever the strides say.
    assert log_sum_exp.is_contiguous()
    assert log_sum_exp.shape == (query.shape[1], len(query))
    assert all(tensor.stride(-1) == 1 for tensor in (grad_out, out))
    spans = Spans(queries=bounds_q, keys=bounds_k, max_queries=max_q, max_keys=max_k, is_causal=is_causal)
    return WRITTEN_OUT.backward(grad_out, (query, key, value), out, log_sum_exp, spans, scale)


@pytest.fixture
def operators_on_cpu():
    library = torch.library.Library("aten", "IMPL")
    library.impl("_flash_attention_forward", aten_forward, "CPU")
    library.impl("_flash_attention_backward", aten_backward, "CPU")
    yield
    library._destroy()


EDGES = {
    **{name: make_layout(name) for name in LAYOUTS},
    "branches of one token or none": StreamLayout(
        stem_lengths=np.array([4, 3, 5]), branch_lengths=np.array([1, 0, 0]), stem_of=np.array([0, 0, 2])
    ),
    "stems of one token": StreamLayout(
        stem_lengths=np.array([1, 1]), branch_lengths=np.array([1, 1]), stem_of=np.array([0, 1])
    ),
}


@pytest.mark.parametrize("layout", EDGES.values(), ids=EDGES)
@pytest.mark.usefixtures("operators_on_cpu")
def test_torchs_operators_give_the_softmax_written_out(layout):
    kernel, generator = FlashKernel(TorchFlash()), torch.Generator().manual_seed(3)
    shapes = [(layout.num_tokens, heads, 16) for heads in (HEADS, 2, 2, HEADS)]
    query, key, value, grad_out = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    inputs = [tensor.requires_grad_() for tensor in (query, key, value)]

    expected = whole_softmax(*inputs, layout, 0.3)
    expected_grads = torch.autograd.grad(expected, inputs, grad_out)
    out = kernel.attend(*inputs, kernel.prepare(layout, device=CPU, dtype=torch.float64), scaling=0.3)
    grads = torch.autograd.grad(out, inputs, grad_out)

    # The log-sum-exp is float32 by contract.
    assert (out - expected).abs().max() < 1e-6
    for found, wanted in zip(grads, expected_grads, strict=True):
        assert (found - wanted).abs().max() < 2e-6


def test_torchs_operators_take_the_call_and_give_the_shapes_that_the_kernel_counts_on():
    """By torch's own shape functions, which its compiler trusts."""
    query, key = (torch.empty(7, heads, 32, dtype=torch.bfloat16, device="meta") for heads in (4, 2))
    bounds = torch.empty(4, dtype=torch.int32, device="meta")
    spans = Spans(queries=bounds, keys=bounds, max_queries=3, max_keys=3, is_causal=True)

    out, log_sum_exp = TorchFlash().forward(query, key, key, spans, 0.5)
    grads = TorchFlash().backward(out, (query, key, key), out, log_sum_exp, spans, 0.5)

    assert (out.shape, out.dtype) == (query.shape, torch.bfloat16)
    assert (log_sum_exp.shape, log_sum_exp.dtype) == ((4, 7), torch.float32)
    assert [grad.shape for grad in grads] == [query.shape, key.shape, key.shape]


class Counting(WrittenOut):
    """Says how many runs each call was asked for."""

    def __init__(self) -> None:
        self.runs: list[int] = []

    def forward(self, query, key, value, spans, scaling):
        check_as_cuda(query, key, value, spans.queries, spans.keys, spans.max_queries, spans.max_keys)
        assert not spans.is_causal
        self.runs.append(len(runs(spans)))
        return super().forward(query, key, value, spans, scaling)


@pytest.mark.parametrize(
    ("family", "num_runs"),
    # Windows of 2 x 2 tokens, the last ones of a side smaller, in the first layer; whole images in the second. Tiles
    # with a thumbnail, of five pictures.
    [("qwen2_5_vl", [4 + 6 + 2 + 2 + 4, 5]), ("internvl", [5 + 3 + 3 + 5 + 5] * 2)],
)
def test_the_tower_makes_one_call_a_layer_and_gives_what_sdpa_gives(family, num_runs, model_paths):
    path, library = model_paths[family], Counting()
    policies = [whole_policy(path), whole_policy(path, kernel=FlashKernel(library))]
    encoder = ImageEncoder.from_pretrained(path, policies[0].family)
    images = join_images([image for image in encoder.encode(mixed_groups(family)) if image is not None])
    features, gradients = [], []
    for policy in policies:
        found = policy.family.image_features(policy.hf_model, images.pixel_values, images.grids)
        found.backward(torch.randn(found.shape, generator=torch.Generator().manual_seed(0)))
        features.append(found.detach())
        gradients.append({n: p.grad for n, p in policy.hf_model.named_parameters() if p.grad is not None})

    assert library.runs == num_runs
    assert (features[1] - features[0]).abs().max() < 1e-5
    assert gradients[0].keys() == gradients[1].keys()
    assert any("qkv" in name or "q_proj" in name for name in gradients[0])
    for name, expected in gradients[0].items():
        assert (gradients[1][name] - expected).abs().max() < 1e-5 * max(1.0, float(expected.abs().max())), name


def test_flash_that_cannot_run_is_refused_with_the_reason():
    with pytest.raises(LearnerError, match=r"attention is flash, which does not run here: there is no GPU; use sdpa"):
        choose_kernel("flash", device=CPU, dtype=torch.bfloat16)


def on_a_gpu(monkeypatch, *, capability=(9, 0), is_built=True):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA V100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: is_built)
    monkeypatch.setattr(flash.importlib.util, "find_spec", lambda name: None)


GPU = torch.device("cuda", 0)


def test_without_the_package_a_gpu_gets_torchs_flash_attention_and_the_log_says_so(monkeypatch, caplog):
    on_a_gpu(monkeypatch)

    with caplog.at_level(logging.INFO):
        kernels = {name: choose_kernel(name, device=GPU, dtype=torch.bfloat16) for name in ("auto", "flash", "flex")}

    assert {name: kernel.name for name, kernel in kernels.items()} == {
        "auto": "flash",
        "flash": "flash",
        "flex": "flex",
    }
    assert all(isinstance(kernel.tower, TorchFlash) for kernel in kernels.values())
    assert f"attention: flash; flash attention by torch {torch.__version__}" in caplog.text
    assert choose_kernel("sdpa", device=GPU, dtype=torch.bfloat16).tower is None


@pytest.mark.parametrize(
    ("gpu", "dtype", "reason"),
    [
        ({"capability": (7, 0)}, torch.bfloat16, "NVIDIA V100 has compute capability 7.0, and it needs 8.0"),
        ({}, torch.float32, "learner.dtype is float32, and it needs bfloat16"),
        ({"is_built": False}, torch.bfloat16, "is built without it, and the flash-attn package is not installed"),
    ],
)
def test_where_flash_attention_cannot_run_auto_is_sdpa_and_flash_is_refused(monkeypatch, gpu, dtype, reason):
    on_a_gpu(monkeypatch, **gpu)

    assert choose_kernel("auto", device=GPU, dtype=dtype).name == "sdpa"
    assert choose_kernel("flex", device=GPU, dtype=dtype).tower is None
    with pytest.raises(LearnerError, match=reason):
        choose_kernel("flash", device=GPU, dtype=dtype)
