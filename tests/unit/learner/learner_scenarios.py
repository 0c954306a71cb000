"""What one rank does in the tests of several ranks; importable, so that a fresh process can find it."""

from pathlib import Path

import numpy as np
import torch
from tiny_learner import make_config, make_group, mixed_groups

from learner.batching import partition_groups
from learner.errors import LearnerError, NonFiniteLossError
from learner.trainer import PolicyTrainer

NUM_STEPS = 3


def start_trainer(rank: int, num_ranks: int, port: int, model_path: Path, **changes) -> PolicyTrainer:
    torch.set_num_threads(1)
    config = make_config(model_path, num_ranks=num_ranks, **{"micro_batch_tokens": 60, **changes})
    return PolicyTrainer(config, rank=rank, world_size=num_ranks, master_address="127.0.0.1", master_port=port, seed=1)


def step_groups(step: int) -> list:
    """Groups of one step: images, text, a group without signal, a masked sequence."""
    return [
        *mixed_groups(),
        make_group(f"flat{step}", rewards=(1.0,) * 4),
        make_group(f"masked{step}", masked=(False, True, False, False), seed=step),
        make_group(f"long{step}", lengths=(30, 20), seed=step),
    ]


def share(groups: list, rank: int, num_ranks: int) -> list:
    counts = [len(group.prompt_token_ids) + group.num_completion_tokens for group in groups]
    return [groups[i] for i in partition_groups(counts, num_ranks)[rank]]


def weights_of(trainer: PolicyTrainer) -> dict[str, np.ndarray]:
    return {name: tensor.clone().numpy() for name, tensor in trainer.named_full_tensors()}


def train(trainer: PolicyTrainer, rank: int, num_ranks: int, first: int, last: int) -> list[dict[str, float]]:
    return [
        trainer.train_step(share(step_groups(step), rank, num_ranks), step=step).metrics for step in range(first, last)
    ]


def train_steps(rank: int, num_ranks: int, port: int, model_path: Path, changes: dict) -> dict:
    trainer = start_trainer(rank, num_ranks, port, model_path, **changes)
    metrics = train(trainer, rank, num_ranks, 0, NUM_STEPS)
    result = {
        "weights": weights_of(trainer),
        "metrics": metrics,
        "logprobs": trainer.sequence_logprobs(make_group("probe")),
    }
    trainer.close()
    return result


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
    """Save after step 2, note the random numbers that would follow and the weights of step 3."""
    trainer = start_trainer(rank, num_ranks, port, model_path)
    train(trainer, rank, num_ranks, 0, 2)
    trainer.save(directory, step=2, extra={"cursor": 5}, keep_last=1)
    drawn = torch.rand(3).tolist()
    train(trainer, rank, num_ranks, 2, 3)
    result = {"drawn": drawn, "weights": weights_of(trainer)}
    trainer.close()
    return result


def resume(rank: int, num_ranks: int, port: int, model_path: Path, folder: Path) -> dict:
    trainer = start_trainer(rank, num_ranks, port, model_path)
    trainer.load(folder)
    version = trainer.weight_version
    drawn = torch.rand(3).tolist()
    train(trainer, rank, num_ranks, 2, 3)
    result = {"drawn": drawn, "weights": weights_of(trainer), "version": version}
    trainer.close()
    return result


def nan_group():
    group = make_group("poisoned")
    sequence = group.sequences[1]
    logprobs = sequence.behaviour_logprobs.copy()
    logprobs[0] = float("nan")
    broken = type(sequence)(
        completion_token_ids=sequence.completion_token_ids,
        behaviour_logprobs=logprobs,
        reward=sequence.reward,
        breakdown={},
        weight_version=0,
        truncated=False,
    )
    sequences = (group.sequences[0], broken, *group.sequences[2:])
    return with_changes(group, sequences=sequences)


def wrong_image_group():
    group = make_group("wrong_image")
    return with_changes(group, images=make_group("x", image_sizes=((56, 56),)).images)


def with_changes(group, **changes):
    names = ("group_id", "sample_id", "source", "task", "prompt_token_ids", "images", "sequences")
    return type(group)(**{**{name: getattr(group, name) for name in names}, **changes})
