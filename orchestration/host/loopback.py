"""A Ray of this machine alone: nothing that it starts listens where other machines could reach it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ray._private import ray_constants

LOOPBACK = "127.0.0.1"
VARIABLES = {
    # Ray binds to every interface of a Linux machine and to loopback where it supports no clusters. This is its own
    # switch between the two, and its only one: the address that it is given is turned into the outside one again.
    ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0",
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
    "VLLM_HOST_IP": LOOPBACK,
}


@contextmanager
def on_loopback() -> Iterator[None]:
    """Within the block, a Ray that is started binds to loopback, and so do collectives of its actors.

    A variable that the user has set stays as it is.
    """
    added = {name: value for name, value in VARIABLES.items() if name not in os.environ}
    clusters = ray_constants.ENABLE_RAY_CLUSTER
    os.environ.update(added)
    # Read when ray is imported, which was long ago.
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = clusters
        for name in added:
            del os.environ[name]
