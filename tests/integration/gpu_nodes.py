"""A head and two nodes that declare GPUs which are not there, so that Ray hands out their numbers."""

from collections.abc import Iterator
from contextlib import contextmanager

from ray.cluster_utils import Cluster

GPUS = 4
"""Of each node but the head."""


@contextmanager
def gpu_nodes() -> Iterator[Cluster]:
    """A head without GPUs, `plain`, and two nodes, `fast` and `cheap`; none is left after the block."""
    common = {"object_store_memory": 100 << 20}
    cluster = Cluster()
    try:
        cluster.add_node(num_cpus=4, num_gpus=0, resources={"plain": 1}, include_dashboard=False, **common)
        for mark in ("fast", "cheap"):
            cluster.add_node(num_cpus=8, num_gpus=GPUS, resources={mark: 1}, **common)
        yield cluster
    finally:
        cluster.shutdown()
