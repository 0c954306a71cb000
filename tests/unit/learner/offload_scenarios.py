"""What one rank does in the tests of a learner that leaves its device between two steps; importable."""

from pathlib import Path

import numpy as np
import torch
from learner_scenarios import load, save, start_trainer, train, weights_of
from tiny_learner import make_group

NUM_STEPS = 3


def live(rank: int, num_ranks: int, port: int, model_path: Path, leaves: bool, changes: dict) -> dict:
    """Train, be asked for logprobs and save; a learner that leaves is away before each of them."""
    trainer = start_trainer(rank, num_ranks, port, model_path, **changes)
    freed, held = [], []

    def between() -> None:
        if leaves:
            before = held_bytes(trainer)
            freed.append(trainer.backend.offload())
            held.append((before, held_bytes(trainer)))
            trainer.backend.onload()

    metrics = []
    for step in range(NUM_STEPS):
        between()
        metrics += train(trainer, rank, num_ranks, step, step + 1)
    between()
    result = {"metrics": metrics, "logprobs": trainer.sequence_logprobs(make_group("probe")), "freed": freed}
    between()
    result |= {"weights": weights_of(trainer), "held": held}
    trainer.close()
    return result


def save_after_leaving(rank: int, num_ranks: int, port: int, model_path: Path, directory: Path, changes: dict) -> dict:
    """Save once the state has been away; a learner that loads it has the same weights and goes on alike."""
    trainer = start_trainer(rank, num_ranks, port, model_path, **changes)
    train(trainer, rank, num_ranks, 0, 2)
    trainer.backend.offload()
    trainer.backend.onload()
    folder = save(trainer, directory, step=2)
    train(trainer, rank, num_ranks, 2, 3)
    gone_on = weights_of(trainer)
    trainer.close()
    return {"gone_on": gone_on, "folder": folder}


def resume_and_leave(rank: int, num_ranks: int, port: int, model_path: Path, folder: Path, changes: dict) -> dict:
    """Load, be away, and take the next step."""
    trainer = start_trainer(rank, num_ranks, port, model_path, **changes)
    load(trainer, folder)
    trainer.backend.offload()
    trainer.backend.onload()
    train(trainer, rank, num_ranks, 2, 3)
    gone_on = weights_of(trainer)
    trainer.close()
    return {"gone_on": gone_on}


def held_bytes(trainer) -> int:
    """Bytes behind the parameters, each storage once."""
    storages = {}
    for parameter in trainer.backend.policy.parameters():
        local = parameter.to_local() if hasattr(parameter, "to_local") else parameter
        for tensor in (local, getattr(parameter, "ds_tensor", None)):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                storages[storage._cdata] = storage.nbytes()
    return sum(storages.values())


def same_bits(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> bool:
    return found.keys() == expected.keys() and all(found[n].tobytes() == expected[n].tobytes() for n in expected)
