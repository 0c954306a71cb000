"""Seeds by purpose, and the random state of a process as something that can be saved."""

import hashlib
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch


def derive_seed(*parts: int | str) -> int:
    """Hash the parts into a seed in [0, 2**32), the same on every machine.

    Example:
        >>> derive_seed(0, "learner", 1) == derive_seed(0, "learner", 1)
        True
    """
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")


def seed_process(seed: int) -> None:
    """Seed torch (CPU and GPU), numpy and random."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def save_random_state(path: Path) -> None:
    """Write the states of torch, numpy and random."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    version, words, python_gauss = random.getstate()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "numpy": [str(name), torch.from_numpy(np.asarray(keys)), int(position), int(has_gauss), float(gauss)],
        "random": [version, list(words), python_gauss],
    }
    torch.save(state, path)


def load_random_state(path: Path) -> None:
    """Restore what `save_random_state` wrote."""
    state = torch.load(path, weights_only=True)
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy(), position, has_gauss, gauss))
    version, words, python_gauss = state["random"]
    random.setstate((version, tuple(words), python_gauss))
