"""The machines under a job: a look at each of them, and what the driver itself puts into the object store."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestration.cluster.found import find_machines
from orchestration.settings.cluster import NodesConfig

T = TypeVar("T")


async def on_every_node(nodes: Sequence[NodesConfig], function: Callable[..., T], *arguments: Any) -> list[T]:
    """Call a function in a process of its own on every machine of the cluster that a run may use.

    Args:
        nodes: `cluster.nodes`, which says which machines these are; empty takes all.
        function: found by its module on the other side.
        arguments: after the first, which is the machine's name.

    Returns:
        Its answers, the driver's machine first.
    """
    calls = []
    for found in find_machines(nodes):
        strategy = NodeAffinitySchedulingStrategy(found.node_id, soft=False)
        task = ray.remote(function).options(num_cpus=0, scheduling_strategy=strategy)
        calls.append(task.remote(found.machine.name, *arguments))
    return list(await asyncio.gather(*calls))


def hold(value: Any) -> ray.ObjectRef:
    """Put a value into the object store and return the reference that actors take."""
    return ray.put(value)
