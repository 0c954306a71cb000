"""The learner's CUDA paths: kernels, a training step in bfloat16, and a float32 step against the one on the CPU."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "learner"))

from learner_scenarios import start_trainer, train
from test_attention_kernels import whole_softmax
from test_flash_libraries import EDGES
from tiny_learner import write_tiny_model

from learner.attention.flash import FlashAttnLibrary, FlashKernel, Spans, TorchFlash, attend_within, flash_obstacle
from learner.attention.flex import FlexKernel
from learner.attention.sdpa import SdpaKernel

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
GPU = torch.device("cuda")


def flash_or_skip(library):
    if obstacle := flash_obstacle(GPU):
        pytest.skip(obstacle)
    try:
        return FlashKernel(library())
    except ImportError as error:
        pytest.skip(str(error))


KERNELS = {
    "sdpa": SdpaKernel,
    "flex": FlexKernel,
    "flash by torch": lambda: flash_or_skip(TorchFlash),
    "flash by flash-attn": lambda: flash_or_skip(FlashAttnLibrary),
}


@pytest.mark.parametrize("layout", EDGES.values(), ids=EDGES)
@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_equals_the_softmax_written_out_in_float32(name, layout):
    kernel = KERNELS[name]()
    generator = torch.Generator().manual_seed(3)
    shapes = [(layout.num_tokens, heads, 64) for heads in (4, 2, 2, 4)]
    exact = [torch.randn(shape, generator=generator) for shape in shapes]
    narrow = [tensor.to(GPU, torch.bfloat16).requires_grad_() for tensor in exact[:3]]
    wide = [tensor.detach().float().cpu().requires_grad_() for tensor in narrow]

    expected = whole_softmax(*wide, layout, 0.125)
    expected_grads = torch.autograd.grad(expected, wide, exact[3])
    out = kernel.attend(*narrow, kernel.prepare(layout, device=GPU, dtype=torch.bfloat16), scaling=0.125)
    grads = torch.autograd.grad(out, narrow, exact[3].to(GPU, torch.bfloat16))

    # bfloat16 keeps 8 bits: 2^-8 of values around 1, a few times over.
    assert (out.float().cpu() - expected).abs().max() < 0.03
    for found, wanted in zip(grads, expected_grads, strict=True):
        assert (found.float().cpu() - wanted).abs().max() < 0.06


@pytest.mark.parametrize("library", [TorchFlash, FlashAttnLibrary])
@pytest.mark.parametrize("head_dim", [64, 80, 128])
def test_a_tower_of_windows_equals_the_softmax_written_out_in_float32(library, head_dim):
    """80 is Qwen2.5-VL's, which no kernel has as its own width."""
    tower = flash_or_skip(library).tower
    lengths = [64, 16, 64, 4, 1]
    bounds = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32, device=GPU)
    spans = Spans(queries=bounds, keys=bounds, max_queries=64, max_keys=64, is_causal=False)
    generator = torch.Generator().manual_seed(3)
    exact = [torch.randn((sum(lengths), 2, head_dim), generator=generator) for _ in range(4)]
    narrow = [tensor.to(GPU, torch.bfloat16).requires_grad_() for tensor in exact[:3]]
    wide = [tensor.detach().float().cpu().requires_grad_() for tensor in narrow]
    is_hidden = torch.block_diag(*(torch.ones(length, length) for length in lengths)) == 0

    scores = (torch.einsum("qhd,khd->hqk", wide[0], wide[1]) * 0.125).masked_fill(is_hidden, -torch.inf)
    expected = torch.einsum("hqk,khd->qhd", scores.softmax(-1), wide[2])
    expected_grads = torch.autograd.grad(expected, wide, exact[3])
    out = attend_within(*narrow, spans, 0.125, tower)
    grads = torch.autograd.grad(out, narrow, exact[3].to(GPU, torch.bfloat16))

    assert (out.float().cpu() - expected).abs().max() < 0.03
    for found, wanted in zip(grads, expected_grads, strict=True):
        assert (found.float().cpu() - wanted).abs().max() < 0.06


@pytest.fixture(scope="module", params=["qwen2_5_vl", "internvl"])
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param)
    write_tiny_model(path, request.param)
    return request.param, path


def test_a_float32_step_on_the_gpu_equals_the_one_on_the_cpu(folder):
    family, path = folder
    found = {}
    for device in ("cpu", "cuda"):
        trainer = start_trainer(0, 1, 0, path, device=device)
        metrics = train(trainer, 0, 1, 0, 2, family)
        found[device] = (metrics[0], trainer_weights(trainer))
        trainer.close()

    assert found["cuda"][0]["policy/loss"] == pytest.approx(found["cpu"][0]["policy/loss"], abs=1e-4)
    for name, expected in found["cpu"][1].items():
        np.testing.assert_allclose(found["cuda"][1][name], expected, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("attention", ["sdpa", "flex", "flash"])
def test_a_bfloat16_step_trains(folder, attention):
    family, path = folder
    if attention == "flash" and (obstacle := flash_obstacle(GPU)):
        pytest.skip(obstacle)
    trainer = start_trainer(
        0, 1, 0, path, device="cuda", dtype="bfloat16", attention=attention, activation_checkpointing=True
    )

    metrics = train(trainer, 0, 1, 0, 2, family)

    trainer.close()
    assert all(np.isfinite(list(values.values())).all() for values in metrics)


def trainer_weights(trainer):
    return {name: tensor.float().cpu().numpy() for name, tensor in trainer.backend.full_tensors()}
