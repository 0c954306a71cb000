"""Learner ranks: rendezvous, small collectives, link measurements; memory, seeds and random state of one of them."""

import hashlib
import random
import socket
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from learner.records import RankMemory

T = TypeVar("T")
ROUNDS = 3
"""Repetitions of a measurement; the fastest counts."""


def exchange(own: T) -> list[T]:
    """Return what every rank passed in, by rank; a collective of all of them."""
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, own)
    return gathered


def round_trips(num_bytes: int, device: torch.device) -> list[float]:
    """Return the seconds that some bytes take from rank 0 to each other rank and back, the fastest of three.

    A collective: every rank calls it, and one pair after the other exchanges.

    Args:
        num_bytes: one way.
        device: on which they lie.

    Returns:
        [ranks - 1] on rank 0, for ranks 1, 2, ...; empty on the others.
    """
    buffer = torch.zeros(num_bytes, dtype=torch.uint8, device=device)
    rank, found = dist.get_rank(), []
    for peer in range(1, dist.get_world_size()):
        dist.barrier()
        if rank == peer:
            for _ in range(ROUNDS + 1):
                dist.recv(buffer, 0)
                dist.send(buffer, 0)
        if rank == 0:
            rounds = [_timed(buffer, peer) for _ in range(ROUNDS + 1)]
            found.append(min(rounds[1:]))  # the first one opens the connection
    dist.barrier()
    return found


def _timed(buffer: torch.Tensor, peer: int) -> float:
    started = time.perf_counter()
    dist.send(buffer, peer)
    dist.recv(buffer, peer)
    if buffer.device.type == "cuda":
        torch.cuda.synchronize(buffer.device)
    return time.perf_counter() - started


def rank_memory(device: torch.device, *, begin_again: bool) -> RankMemory:
    """Return this process's peak memory on its device since `begin_again` was last true, and the device's total."""
    if device.type == "cuda":
        found = RankMemory(
            device=torch.cuda.get_device_name(device),
            peak_bytes=torch.cuda.max_memory_reserved(device),
            total_bytes=torch.cuda.mem_get_info(device)[1],
        )
        if begin_again:
            torch.cuda.reset_peak_memory_stats(device)
        return found
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    total = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())["MemTotal"]
    if begin_again:
        with suppress(OSError):  # not writable in some containers; the peak is then since the process started
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    peak, whole = (int(text.split()[0]) * 1024 for text in (status["VmHWM"], total))
    return RankMemory(device="cpu", peak_bytes=peak, total_bytes=whole)


def bound_socket(address: str, port: int) -> socket.socket:
    """Return a listening socket that is bound to this address alone, and not to every interface of the machine."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, port), family=family)


def join_store(address: str, port: int, *, rank: int, world_size: int, timeout: timedelta) -> dist.TCPStore:
    """Join torch's store of a group of ranks, which rank 0 serves; returns when all have joined.

    Args:
        address: of rank 0's machine, as the others reach it.
        port: a free port there.
        rank: of this process.
        world_size: number of ranks.
        timeout: to wait for the others, and for an answer of the store later on.
    """
    if rank > 0:
        return dist.TCPStore(address, port, world_size, is_master=False, timeout=timeout)
    # The store owns the descriptor from here on.
    listener = bound_socket(address, port).detach()
    return dist.TCPStore(address, port, world_size, is_master=True, timeout=timeout, master_listen_fd=listener)


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
