"""Where ranks meet is heard on one address alone."""

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psutil
from tiny_learner import free_port

from learner.ranks import join_store


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
