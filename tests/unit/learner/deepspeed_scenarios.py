"""What one rank does in the tests of the DeepSpeed backend; importable, so that a fresh process can find it."""

import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from learner_scenarios import (
    keep_first_gradients,
    load,
    nan_group,
    save_beside,
    start_trainer,
    train,
    weights_of,
    wrong_image_group,
)
from tiny_learner import make_group, mixed_groups

from learner.errors import CheckpointError, LearnerError, NonFiniteLossError
from learner.training.trainer import PolicyTrainer

NUM_STEPS = 2


def whole_life(rank: int, num_ranks: int, port: int, model_path: Path, directory: Path, changes: dict) -> dict:
    """Train and save, go on, meet a broken image and a NaN, go on with idle ranks and without signal."""
    with tempfile.TemporaryFile() as printed, tempfile.TemporaryDirectory() as working:
        # Forked from a server, so nobody else shares this process's standard output or working directory.
        os.dup2(printed.fileno(), 1)
        os.chdir(working)
        trainer = start_trainer(rank, num_ranks, port, model_path, **changes)
        gradients = keep_first_gradients(trainer)
        metrics = train(trainer, rank, num_ranks, 0, NUM_STEPS)
        result = {
            "gradients": gradients,
            "trained": weights_of(trainer),
            "shapes": list(trainer.backend.full_shapes().items()),
            "logprobs": trainer.sequence_logprobs(make_group("probe")),
        }
        chosen = {name for name in result["trained"] if ".layers.1." in name}
        result["block"] = {name: tensor.numpy() for name, tensor in trainer.backend.full_tensors(chosen)}

        def go_on() -> None:
            result["drawn"] = torch.rand(3).tolist()
            metrics.extend(train(trainer, rank, num_ranks, NUM_STEPS, NUM_STEPS + 1))

        folder = save_beside(trainer, directory, go_on, step=NUM_STEPS)
        result["gone_on"] = weights_of(trainer)
        result["raised"] = _fail_twice(trainer, is_guilty=rank == num_ranks - 1)
        after = weights_of(trainer)
        result["is_unchanged"] = all(np.array_equal(after[name], result["gone_on"][name]) for name in after)
        metrics += [trainer.train_step(groups, step=9).metrics for groups in _uneven_shares(rank, num_ranks)]
        result |= {"ended": weights_of(trainer), "metrics": metrics, "folder": folder}
        trainer.close()
        printed.seek(0)
        result |= {"printed": printed.read(), "left_behind": os.listdir(working)}
        os.chdir("/")
    return result


def _fail_twice(trainer: PolicyTrainer, *, is_guilty: bool) -> list[Exception]:
    raised: list[Exception] = []
    for bad in (wrong_image_group(), nan_group()):
        try:
            trainer.train_step([bad] if is_guilty else [make_group("good")], step=8)
        except (LearnerError, NonFiniteLossError) as error:
            raised.append(error)
    return raised


def _uneven_shares(rank: int, num_ranks: int) -> list[list]:
    """Images against text, everything against nothing, and no signal at all: three steps."""
    images, text = mixed_groups()[:3], mixed_groups()[3:4]
    flat = [make_group("flat", rewards=(1.0,) * 4)]
    if num_ranks == 1:
        return [images + text, images, flat]
    return [images if rank == 0 else text, images if rank == 0 else [], flat if rank == 0 else []]


def resume(rank: int, num_ranks: int, port: int, model_path: Path, folder: Path, changes: dict) -> dict:
    """Take the step that follows the checkpoint."""
    trainer = start_trainer(rank, num_ranks, port, model_path, **changes)
    try:
        load(trainer, folder)
    except CheckpointError as error:
        trainer.close()
        return {"refused": error}
    loaded = weights_of(trainer)
    drawn = torch.rand(3).tolist()
    train(trainer, rank, num_ranks, NUM_STEPS, NUM_STEPS + 1)
    result = {"loaded": loaded, "drawn": drawn, "gone_on": weights_of(trainer), "version": trainer.weight_version}
    trainer.close()
    return result


def narrow_life(rank: int, num_ranks: int, port: int, model_path: Path, changes: dict) -> dict:
    """A step in bfloat16, a NaN, another step: what is trained, and in which type."""
    trainer = start_trainer(rank, num_ranks, port, model_path, dtype="bfloat16", **changes)
    before = weights_of(trainer)
    metrics = train(trainer, rank, num_ranks, 0, 1)
    trained = weights_of(trainer)
    raised = _fail_twice(trainer, is_guilty=rank == num_ranks - 1)
    is_unchanged = all(np.array_equal(tensor, trained[name]) for name, tensor in weights_of(trainer).items())
    metrics += train(trainer, rank, num_ranks, 1, 2)
    computed = {parameter.dtype for parameter in trainer.backend.policy.parameters()}
    result = {"before": before, "after": weights_of(trainer), "metrics": metrics, "computed": computed}
    result |= {"raised": raised, "is_unchanged": is_unchanged}
    trainer.close()
    return result
