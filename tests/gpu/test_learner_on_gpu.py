"""The learner's CUDA paths: kernels, a training step in bfloat16, and a float32 step against the one on the CPU."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "learner"))

from learner_scenarios import start_trainer, train
from test_attention_kernels import LAYOUTS, make_layout, whole_softmax
from tiny_learner import write_tiny_model

from learner.attention.registry import choose_kernel
from learner.errors import LearnerError

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
GPU = torch.device("cuda")


def kernel_or_skip(name: str):
    try:
        return choose_kernel(name, device=GPU, dtype=torch.bfloat16)
    except LearnerError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("layout_name", LAYOUTS)
@pytest.mark.parametrize("name", ["sdpa", "flex", "flash"])
def test_a_kernel_equals_the_softmax_written_out_in_float32(name, layout_name):
    kernel, layout = kernel_or_skip(name), make_layout(layout_name)
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
    kernel_or_skip(attention)
    trainer = start_trainer(
        0, 1, 0, path, device="cuda", dtype="bfloat16", attention=attention, activation_checkpointing=True
    )

    metrics = train(trainer, 0, 1, 0, 2, family)

    trainer.close()
    assert all(np.isfinite(list(values.values())).all() for values in metrics)


def trainer_weights(trainer):
    return {name: tensor.float().cpu().numpy() for name, tensor in trainer.named_full_tensors()}
