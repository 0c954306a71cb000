"""Where ranks meet, and the random state of one of them."""

import os
import random
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import numpy as np
import psutil
import torch
from tiny_learner import free_port

from learner.ranks import join_store, load_random_state, save_random_state, seed_process


def listeners(port: int) -> set[str]:
    """Addresses on which this process listens at a port."""
    connections = psutil.Process(os.getpid()).net_connections(kind="tcp")
    return {found.laddr.ip for found in connections if found.status == "LISTEN" and found.laddr.port == port}


def test_ranks_meet_in_a_store_that_only_its_own_address_reaches():
    port = free_port()
    timeout = timedelta(seconds=20)
    with ThreadPoolExecutor(max_workers=2) as ranks:
        first = ranks.submit(join_store, "127.0.0.1", port, rank=0, world_size=2, timeout=timeout)
        second = ranks.submit(join_store, "127.0.0.1", port, rank=1, world_size=2, timeout=timeout)
        store, other = first.result(), second.result()

    other.set("said", "by the second")

    assert store.get("said") == b"by the second"
    assert listeners(port) == {"127.0.0.1"}


def test_random_state_returns(tmp_path):
    seed_process(5)
    save_random_state(tmp_path / "random.pt")
    drawn = (torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random())

    load_random_state(tmp_path / "random.pt")

    assert (torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()) == drawn
