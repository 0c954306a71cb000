"""A process that says where it stands and what it was given; imports nothing heavy."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import ray


@dataclass(frozen=True)
class Place:
    node_id: str
    gpus: tuple[str, ...]
    """That the process sees."""
    variable: str | None
    """NCCL_SOCKET_IFNAME."""


@ray.remote
class Probe:
    def __init__(self, variables: Mapping[str, str]) -> None:
        os.environ.update(variables)

    def place(self) -> Place:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        return Place(
            node_id=ray.get_runtime_context().get_node_id(),
            gpus=tuple(seen.split(",")) if seen else (),
            variable=os.environ.get("NCCL_SOCKET_IFNAME"),
        )
