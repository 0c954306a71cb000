"""A Ray of this machine alone: nothing reaches it from outside, and nothing of it is left when it has ended.

It listens on loopback, asks for a token that only this process and its children know, keeps its files in a folder that
only this user may read, and its processes are in groups of their own: a signal that a terminal, GNU timeout or Slurm
sends to the command's whole process group reaches the driver alone, which still needs Ray to save its work.
"""

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

from ray._private import ray_constants, services

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
def starting_local_ray(folder: Path, marks: Mapping[str, str]) -> Iterator[None]:
    """Within the block, a Ray that is started is one of this machine alone.

    A variable that the user has set stays as it is.

    Args:
        folder: for sockets of its processes.
        marks: variables that its processes get whatever the user has set, see `guarded`.
    """
    before = dict(os.environ)
    wanted: dict[str, str] = {**VARIABLES, "VLLM_RPC_BASE_PATH": str(folder)}
    if "RAY_AUTH_TOKEN_PATH" not in before:
        wanted["RAY_AUTH_TOKEN"] = _token()
    clusters, start = ray_constants.ENABLE_RAY_CLUSTER, services.ConsolePopen
    os.environ.update({**wanted, **before, **marks})
    # Read when ray is imported, which was long ago.
    ray_constants.ENABLE_RAY_CLUSTER = False
    services.ConsolePopen = partial(start, process_group=0)
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER, services.ConsolePopen = clusters, start
        for name in wanted.keys() | marks.keys():
            if name in before:
                os.environ[name] = before[name]
            else:
                del os.environ[name]


@cache
def _token() -> str:
    """Return this process's token; Ray reads it once a process. Without one, it would leave one in the home folder."""
    return secrets.token_hex(32)
