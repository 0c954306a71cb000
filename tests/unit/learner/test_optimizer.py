"""AdamW as the backends run it: fused, on the host too."""

import numpy as np
import torch
from learner_scenarios import load, save, start_trainer, train, weights_of

from learner.backends.base import make_optimizer, parameter_groups
from learner.config import OptimizerConfig
from tests.benchmarks.live_bytes import peak_live_bytes

CONFIG = OptimizerConfig(learning_rate=3e-3, betas=(0.9, 0.99), eps=1e-6, weight_decay=0.1)
STEPS = 6


class Tensors(torch.nn.Module):
    """A matrix, a vector, a scalar axis, and an empty shard, as the last of many ranks holds it."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        for name, shape in {"matrix": (37, 19), "vector": (23,), "one": (1,), "empty": (0, 5)}.items():
            self.register_parameter(name, torch.nn.Parameter(torch.randn(shape, generator=generator)))


def adamw_in_float64(start: np.ndarray, gradients: list[np.ndarray], decay: float) -> np.ndarray:
    """Decoupled weight decay, arXiv:1711.05101, algorithm 2, in numpy."""
    weight, first, second = start.astype(np.float64), 0.0, 0.0
    beta_1, beta_2 = CONFIG.betas
    for step, gradient in enumerate(gradients, start=1):
        own = gradient.astype(np.float64)
        first, second = beta_1 * first + (1 - beta_1) * own, beta_2 * second + (1 - beta_2) * own**2
        weight = weight * (1 - CONFIG.learning_rate * decay)
        corrected = np.sqrt(second / (1 - beta_2**step)) + CONFIG.eps
        weight = weight - CONFIG.learning_rate * first / (1 - beta_1**step) / corrected
    return weight


def test_the_host_takes_the_steps_of_adamw_written_out_in_float64():
    model, generator = Tensors(), torch.Generator().manual_seed(1)
    optimizer = make_optimizer(parameter_groups(model, CONFIG), CONFIG)
    start = {name: tensor.detach().numpy().copy() for name, tensor in model.named_parameters()}
    # Over nine orders of magnitude: a gradient far below eps must not move a weight by a whole step.
    scales = [10.0 ** (3 - 2 * step) for step in range(STEPS)]
    gradients = {name: [] for name in start}
    for scale in scales:
        for name, parameter in model.named_parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator) * scale
            gradients[name].append(parameter.grad.numpy().copy())
        optimizer.step()

    for name, parameter in model.named_parameters():
        expected = adamw_in_float64(start[name], gradients[name], 0.1 if parameter.ndim > 1 else 0.0)
        # float32 keeps 24 bits: a few roundings of values around 1.
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=0, atol=1e-6, err_msg=name)


def test_a_step_takes_no_memory_beside_the_state():
    model = torch.nn.Linear(512, 512, bias=False)
    optimizer = make_optimizer(parameter_groups(model, CONFIG), CONFIG)
    model.weight.grad = torch.ones_like(model.weight)
    optimizer.step()

    assert peak_live_bytes(optimizer.step) < 0.01 * model.weight.nbytes


def test_a_checkpoint_that_another_kernel_wrote_goes_on_with_the_fused_one(model_path, tmp_path):
    writer = start_trainer(0, 1, 0, model_path)
    for group in writer.backend._optimizer.param_groups:
        group.update(fused=False, foreach=True)
    train(writer, 0, 1, 0, 2)
    folder, written = save(writer, tmp_path, step=2), weights_of(writer)
    writer.close()

    reader = start_trainer(0, 1, 0, model_path)
    load(reader, folder)
    groups = reader.backend._optimizer.param_groups
    found = weights_of(reader)
    train(reader, 0, 1, 2, 3)
    reader.close()

    assert all(group["fused"] and not group["foreach"] for group in groups)
    assert all((found[name] == weight).all() for name, weight in written.items())
