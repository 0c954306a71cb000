"""What one rank does in the tests of several ranks; importable, so that a fresh process can find it."""

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from tiny_learner import free_port, make_config, make_group, mixed_groups, run_ranks

from learner import checkpoint
from learner.batching import partition_groups
from learner.config import CorrectionConfig, ExpertsConfig, LoraConfig, TaskConfig
from learner.errors import LearnerError, NonFiniteLossError
from learner.ranks import exchange
from learner.store import FileEntry, FileStore, open_store
from learner.training.trainer import PolicyTrainer
from tests.differences import Differences

NUM_STEPS = 2
"""The second update has moments, and gathers weights that the first has moved."""

CASES: dict[str, dict] = {
    "plain": {},
    "recomputation, KL in the loss": {"activation_checkpointing": True, "algorithm": {"kl_coef": 0.05}},
    "GSPO, 2 epochs of 2 minibatches": {
        "algorithm": {
            "name": "gspo",
            "num_epochs": 2,
            "num_minibatches": 2,
            "old_logprobs": "recomputed",
            "correction": CorrectionConfig(level="token", action="truncate", high=2.0),
            "entropy_coef": 0.01,
        }
    },
    "REINFORCE++, KL in the reward": {
        "model": "internvl",
        "algorithm": {"name": "reinforce_plus_plus", "kl_coef": 0.05, "kl_in": "reward", "kl_estimator": "k1"},
    },
    "scale by task, mean of sequences": {"algorithm": {"scale": "task", "aggregation": "sequence"}},
    "parts and weights by task": {
        "algorithm": {"normalise": "parts", "tasks": {"chart": TaskConfig(weight=2.0, kl_coef=0.05)}}
    },
    "frozen tower": {"freeze": ("vision_tower", "projector")},
    "experts, balance loss, recomputation": {
        "model": "qwen3_vl_moe",
        "activation_checkpointing": True,
        "experts": ExpertsConfig(balance_loss_coef=0.1),
        "algorithm": {"num_minibatches": 2},
    },
    "LoRA, KL in the loss": {
        "lora": LoraConfig(rank=4, target_modules=("q_proj", "down_proj")),
        "freeze": ("vision_tower",),
        "algorithm": {"kl_coef": 0.05},
    },
}
"""What must come out the same on one rank and on two, whatever the backend."""


def start_trainer(rank: int, num_ranks: int, port: int, model_path: Path, **changes) -> PolicyTrainer:
    torch.set_num_threads(1)
    staging_dir, seed = changes.pop("staging_dir", None), changes.pop("seed", 1)
    banned_token_ids = changes.pop("banned_token_ids", ())
    config = make_config(model_path, num_ranks=num_ranks, **{"micro_batch_tokens": 60, **changes})
    return PolicyTrainer(
        config,
        rank=rank,
        world_size=num_ranks,
        master_address="127.0.0.1",
        master_port=port,
        seed=seed,
        staging_dir=staging_dir,
        banned_token_ids=banned_token_ids,
    )


def step_groups(step: int, family: str = "qwen2_5_vl") -> list:
    """Groups of one step: images, text, a group without signal, a masked sequence, two tasks."""
    return [
        *mixed_groups(family),
        make_group(f"flat{step}", rewards=(1.0,) * 4, family=family),
        make_group(f"masked{step}", masked=(False, True, False, False), seed=step, family=family),
        replace(make_group(f"long{step}", lengths=(30, 20), seed=step, family=family), task="chart"),
    ]


def share(groups: list, rank: int, num_ranks: int) -> list:
    counts = [len(group.prompt_token_ids) + group.num_completion_tokens for group in groups]
    return [groups[i] for i in partition_groups(counts, num_ranks)[rank]]


def save(trainer: PolicyTrainer, directory: Path, *, step: int, extra: dict | None = None) -> Path:
    """Stage, copy and mark, one after the other; every rank calls it."""
    return save_beside(trainer, directory, lambda: None, step=step, extra=extra)


def save_beside(
    trainer: PolicyTrainer, directory: Path, work: Callable[[], None], *, step: int, extra: dict | None = None
) -> Path:
    """Stage, then copy in a thread beside `work`, then mark: rank 0 copies while it works, the others afterwards."""
    store = open_store(directory)
    share = trainer.stage(step=step)
    may_copy = threading.Event()

    def copy() -> tuple[FileEntry, ...]:
        may_copy.wait()
        return trainer.upload(store, step=step)

    with ThreadPoolExecutor(1) as threads:
        copied = threads.submit(copy)
        if dist.get_rank() == 0:
            may_copy.set()
        work()
        may_copy.set()
        own = copied.result()
    files = [entry for entries in exchange(own) for entry in entries]
    if dist.get_rank() == 0:
        checkpoint.mark(store, share, files, extra=extra or {}, scores={})
    dist.barrier()
    return directory / checkpoint.step_name(step)


def load(trainer: PolicyTrainer, folder: Path) -> None:
    """Restore the checkpoint in a step's folder."""
    trainer.load(open_store(folder.parent), step=int(folder.name.removeprefix("step_")))


def weights_of(trainer: PolicyTrainer) -> dict[str, np.ndarray]:
    return {name: tensor.float().clone().numpy() for name, tensor in trainer.backend.full_tensors()}


def assert_same_weights(found: dict, expected: dict, atol: float) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=atol, err_msg=name)


NOT_COMPARED = {"learner/num_forward_tokens"}
"""How many prompts are repeated depends on the cut into micro-batches, which differs between ranks."""


def check_two_ranks(differences: Differences, what: str, name: str, one: dict, two: list[dict]) -> None:
    """Compare a case of `live_case` on two ranks with the same on one."""
    first, second = two
    assert [(key, value.shape) for key, value in first["weights"].items()] == first["shapes"] == second["shapes"]
    assert any(not np.array_equal(one["before"][key], value) for key, value in one["weights"].items())
    differences.check(f"{what}: gradients", name, first["gradients"], one["gradients"], atol=1e-5)
    # Adam divides by the gradient's own size, which blows rounding up where a gradient is nearly 0.
    differences.check(f"{what}: weights, 2 steps", name, first["weights"], one["weights"], atol=1e-4)
    assert_same_weights(second["weights"], first["weights"], atol=0)
    assert_same_weights(second["begun_again"], first["weights"], atol=0)
    assert second["metrics"] == first["metrics"]
    for ours, alone in zip(first["metrics"], one["metrics"], strict=True):
        differences.check(f"{what}: loss", name, ours["policy/loss"], alone["policy/loss"], atol=1e-4)
        for key in alone.keys() - NOT_COMPARED:
            assert ours[key] == pytest.approx(alone[key], rel=1e-3, abs=1e-4), key
    for ours, alone in zip(first["logprobs"], one["logprobs"], strict=True):
        np.testing.assert_allclose(ours, alone, atol=1e-3)


def train(
    trainer: PolicyTrainer, rank: int, num_ranks: int, first: int, last: int, family: str = "qwen2_5_vl"
) -> list[dict[str, float]]:
    return [
        trainer.train_step(share(step_groups(step, family), rank, num_ranks), step=step).metrics
        for step in range(first, last)
    ]


def train_steps(rank: int, num_ranks: int, port: int, model_path: Path, changes: dict) -> dict:
    trainer = start_trainer(rank, num_ranks, port, model_path, **changes)
    metrics = train(trainer, rank, num_ranks, 0, NUM_STEPS)
    result = {"weights": weights_of(trainer), "metrics": metrics}
    trainer.close()
    return result


@contextmanager
def one_process_group() -> Iterator[None]:
    """Have the trainers of this process, one after the other, share the group that the first of them makes.

    DeepSpeed keeps groups of its own, which would not outlive it.
    """
    make, destroy = dist.init_process_group, dist.destroy_process_group

    def make_once(*arguments: Any, **options: Any) -> None:
        if not dist.is_initialized():
            make(*arguments, **options)

    dist.init_process_group, dist.destroy_process_group = make_once, lambda: None
    try:
        yield
    finally:
        dist.init_process_group, dist.destroy_process_group = make, destroy
    destroy()


def run_in_turn(num_ranks: int, folder: Path, calls: list[tuple]) -> list[list]:
    """Run (function, *arguments) one after the other in the same processes, one a rank, and in one process group.

    Starting processes costs more than most of what is called. Gives for each call what its ranks returned.
    """
    with_ports = [(function, free_port(), *arguments) for function, *arguments in calls]
    return [list(found) for found in zip(*run_ranks(num_ranks, _in_turn, folder, with_ports), strict=True)]


def _in_turn(rank: int, num_ranks: int, _: int, calls: list[tuple]) -> list:
    with one_process_group():
        return [function(rank, num_ranks, port, *arguments) for function, port, *arguments in calls]


def live_case(rank: int, num_ranks: int, port: int, model_paths: dict, name: str, changes: dict) -> dict:
    case = {**CASES[name], **changes}
    family = case.pop("model", "qwen2_5_vl")
    trainer = start_trainer(rank, num_ranks, port, model_paths[family], **case)
    before = weights_of(trainer)
    gradients = keep_first_gradients(trainer)
    metrics = train(trainer, rank, num_ranks, 0, 1, family)
    if name in ("plain", "LoRA, KL in the loss"):
        break_off(trainer, rank)
    metrics += train(trainer, rank, num_ranks, 1, NUM_STEPS, family)
    result = {
        "before": before,
        "shapes": list(trainer.backend.full_shapes().items()),
        "gradients": gradients,
        "weights": weights_of(trainer),
        "metrics": metrics,
        "logprobs": trainer.sequence_logprobs(make_group("probe", family=family)),
    }
    result["begun_again"] = result["weights"]
    if (lora := case.get("lora")) is not None:
        mine = (Path(tempfile.mkdtemp()), free_port() if port else 0) if rank == 0 else None
        [place, port] = next(found for found in exchange(mine) if found is not None)
        folder = place / "adapter"
        trainer.export_adapter(folder)
        trainer.close()
        again = {**case, "lora": replace(lora, start=str(folder))}
        trainer = start_trainer(rank, num_ranks, port, model_paths[family], **again)
        result["begun_again"] = weights_of(trainer)
        if rank == 0:
            shutil.rmtree(place)
    trainer.close()
    return result


def break_off(trainer: PolicyTrainer, rank: int) -> None:
    """Stream all tensors as a sender does: rank 0 takes as many as there are and not one more, others all."""
    number = len(list(trainer.backend.full_tensors()))
    kept = trainer.backend.full_tensors()
    if rank == 0:
        for _ in range(number):
            next(kept)
        HELD.append(kept)
    else:
        for _ in kept:
            pass


HELD: list = []
"""Iterators that nobody closes."""


def keep_first_gradients(trainer: PolicyTrainer) -> dict[str, np.ndarray]:
    """Fill the returned dictionary with the whole gradients of the first update, just before it is applied."""
    backend, step = trainer.backend, trainer.backend.step
    kept: dict[str, np.ndarray] = {}

    def step_and_keep(**arguments) -> None:
        if not kept:
            kept.update({name: gradient.clone().numpy() for name, gradient in full_gradients(backend)})
        step(**arguments)

    backend.step = step_and_keep
    return kept


def full_gradients(backend):
    for name, parameter in backend.policy.hf_model.named_parameters():
        if not parameter.requires_grad:
            continue
        if hasattr(backend, "_engine"):
            from deepspeed.utils import safe_get_full_grad

            gradient = safe_get_full_grad(parameter)
        else:
            gradient = None if parameter.grad is None else parameter.grad.full_tensor()
        if gradient is not None:
            yield name, gradient


def own_code_fails(rank: int, num_ranks: int, port: int, model_path: Path, algorithms: list[dict]) -> list[str]:
    """The error that a step with each of the user's functions raises on this rank."""
    found = []
    for algorithm in algorithms:
        trainer = start_trainer(rank, num_ranks, port, model_path, algorithm=algorithm)
        try:
            trainer.train_step([make_group(f"own{rank}", lengths=(4 + rank, 2))], step=0)
        except LearnerError as error:
            found.append(str(error))
        trainer.close()
    return found


def one_rank_has_nothing(rank: int, num_ranks: int, port: int, model_path: Path) -> dict:
    """Rank 0 has images in several micro-batches, rank 1 one text group, then nothing, then nobody has signal."""
    trainer = start_trainer(rank, num_ranks, port, model_path)
    images, text = mixed_groups()[:3], mixed_groups()[3:4]
    flat = [make_group(f"flat{rank}", rewards=(1.0,) * 4)]
    metrics = [
        trainer.train_step(mine, step=step).metrics
        for step, mine in enumerate([images if rank == 0 else text, images if rank == 0 else [], flat])
    ]
    trainer.close()
    return {"metrics": metrics}


def fail_together(rank: int, num_ranks: int, port: int, model_path: Path) -> dict:
    """Rank 1 brings a broken image, then a NaN logprob: both ranks raise, no weight moves, then training goes on."""
    trainer = start_trainer(rank, num_ranks, port, model_path)
    before = weights_of(trainer)
    raised = []
    for step, bad in enumerate([wrong_image_group(), nan_group()]):
        try:
            trainer.train_step([bad] if rank == 1 else [make_group("good")], step=step)
        except (LearnerError, NonFiniteLossError) as error:
            raised.append(error)
    after = weights_of(trainer)
    report = trainer.train_step([make_group(f"good{rank}")], step=2)
    trainer.close()
    is_unchanged = all(np.array_equal(before[name], after[name]) for name in before)
    return {"raised": raised, "is_unchanged": is_unchanged, "weight_version": report.weight_version}


def save_and_go_on(rank: int, num_ranks: int, port: int, model_path: Path, directory: Path) -> dict:
    """Save after step 2, and meanwhile note the random numbers that follow and take step 3."""
    trainer = start_trainer(rank, num_ranks, port, model_path)
    train(trainer, rank, num_ranks, 0, 2)
    result = {"staged": weights_of(trainer)}

    def go_on() -> None:
        result["drawn"] = torch.rand(3).tolist()
        train(trainer, rank, num_ranks, 2, 3)

    save_beside(trainer, directory, go_on, step=2, extra={"cursor": 5})
    result["weights"] = weights_of(trainer)
    trainer.close()
    return result


def fetch(
    rank: int, num_ranks: int, port: int, model_path: Path, store: FileStore, step: int, staging_dir: Path
) -> dict:
    """Load from a store that gives no paths; tell what the backend was given to read."""
    trainer = start_trainer(rank, num_ranks, port, model_path, staging_dir=staging_dir)
    result: dict = {}
    load_backend = trainer.backend.load

    def look_and_load(folder: Path, *, is_writer: bool) -> None:
        files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        result.update(folder=folder, files=files, is_writer=is_writer)
        load_backend(folder, is_writer=is_writer)

    trainer.backend.load = look_and_load
    trainer.load(store, step=step)
    result["loaded"] = weights_of(trainer)
    trainer.close()
    return result


def resume(rank: int, num_ranks: int, port: int, model_path: Path, folder: Path) -> dict:
    trainer = start_trainer(rank, num_ranks, port, model_path)
    load(trainer, folder)
    result = {"loaded": weights_of(trainer), "version": trainer.weight_version, "drawn": torch.rand(3).tolist()}
    train(trainer, rank, num_ranks, 2, 3)
    result["weights"] = weights_of(trainer)
    trainer.close()
    return result


SAVED_STEP, NUM_EXACT_STEPS = 2, 4
EXACT: dict = {
    "optimizer": {"warmup_steps": 3, "total_steps": NUM_EXACT_STEPS, "schedule": "cosine"},
    "algorithm": {
        "num_epochs": 2,
        "num_minibatches": 2,
        "old_logprobs": "recomputed",
        "kl_coef": 0.05,
        "entropy_coef": 0.01,
    },
}
"""Everything that a resumed learner has to find again: moments, schedule, the order of minibatches, the reference."""


def train_and_save_on_the_way(rank: int, num_ranks: int, port: int, model_path: Path, directory: Path) -> dict:
    """Train, and save halfway; give the metrics that follow, the weights saved and the last ones."""
    trainer = start_trainer(rank, num_ranks, port, model_path, **EXACT)
    train(trainer, rank, num_ranks, 0, SAVED_STEP)
    saved = weights_of(trainer)
    save(trainer, directory, step=SAVED_STEP)
    return {"saved": saved, **_to_the_end(trainer, rank, num_ranks)}


def train_on(rank: int, num_ranks: int, port: int, model_path: Path, directory: Path) -> dict:
    """Resume halfway and train to the end."""
    trainer = start_trainer(rank, num_ranks, port, model_path, **EXACT)
    trainer.load(open_store(directory), step=SAVED_STEP)
    return _to_the_end(trainer, rank, num_ranks)


def _to_the_end(trainer: PolicyTrainer, rank: int, num_ranks: int) -> dict:
    result = {"metrics": train(trainer, rank, num_ranks, SAVED_STEP, NUM_EXACT_STEPS), "weights": weights_of(trainer)}
    trainer.close()
    return result


def nan_group():
    group = make_group("poisoned")
    sequence = group.sequences[1]
    logprobs = sequence.behaviour_logprobs.copy()
    logprobs[0] = float("nan")
    broken = replace(sequence, behaviour_logprobs=logprobs)
    sequences = (group.sequences[0], broken, *group.sequences[2:])
    return replace(group, sequences=sequences)


def wrong_image_group():
    group = make_group("wrong_image")
    return replace(group, images=make_group("x", image_sizes=((56, 56),)).images)
