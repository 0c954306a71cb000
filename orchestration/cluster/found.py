"""The machines of the cluster as Ray sees them, and calls of functions on them."""

import asyncio
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, get_args

import ray
from ray._private.state import available_resources_per_node
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestration.cluster.machines import Machine
from orchestration.settings.cluster import NodeRole, NodesConfig

PROBE_S = 1.0
"""Time for one connection within a cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundMachine:
    """One node of the cluster."""

    node_id: str
    machine: Machine
    """With all that it has."""
    free: Machine
    """With what is not reserved."""


def find_machines(nodes: Sequence[NodesConfig]) -> list[FoundMachine]:
    """Return the live nodes of the cluster, the driver's first; `nodes` has the roles that they take.

    A node that has the custom resource of a kind is of that kind. Others are of the kind without a resource; where
    `nodes` names none such, they are left alone.
    """
    own = ray.get_runtime_context().get_node_id()
    alive = [node for node in ray.nodes() if node["Alive"]]
    alive.sort(key=lambda node: (node["NodeID"] != own, node["NodeManagerAddress"], node["NodeID"]))
    free = available_resources_per_node()
    addresses = Counter(node["NodeManagerAddress"] for node in alive)
    found = []
    for node in alive:
        kind = kind_of(node["Resources"], nodes)
        if nodes and kind is None:
            continue
        address, node_id = node["NodeManagerAddress"], node["NodeID"]
        machine = _machine(
            address if addresses[address] == 1 else f"{address} ({node_id[:6]})", node["Resources"], kind
        )
        left = _count(free.get(node_id, {}))
        found.append(FoundMachine(node_id=node_id, machine=machine, free=replace(machine, **left)))
    return found


def is_reachable(node_id: str) -> bool:
    """Return whether a node's raylet takes a connection now; Ray itself needs about ten seconds to notice a loss."""
    node = next((node for node in ray.nodes() if node["NodeID"] == node_id), None)
    if node is None or not node["Alive"]:
        return False
    try:
        with socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), timeout=PROBE_S):
            return True
    except OSError:
        return False


def kind_of(resources: Mapping[str, float], nodes: Sequence[NodesConfig]) -> NodesConfig | None:
    """Return the kind of `cluster.nodes` that a node with these resources is; None for none of them."""
    marked = [kind for kind in nodes if kind.resource is not None and kind.resource in resources]
    plain = [kind for kind in nodes if kind.resource is None]
    return next(iter(marked + plain), None)


def _machine(name: str, resources: Mapping[str, float], kind: NodesConfig | None) -> Machine:
    roles: tuple[NodeRole, ...] = kind.roles if kind else get_args(NodeRole)
    return Machine(
        name=name,
        gpu=kind.gpu if kind else None,
        memory_bytes=int(resources.get("memory", 0)),
        roles=roles,
        resource=kind.resource if kind else None,
        **_count(resources),
    )


def _count(resources: Mapping[str, float]) -> dict[str, Any]:
    return {"gpus": int(resources.get("GPU", 0)), "cpus": int(resources.get("CPU", 0))}


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


Item = TypeVar("Item")
Result = TypeVar("Result")

QUEUED_PER_WORKER = 2
"""One task at work and one behind it, so that no worker waits for the driver."""


def _call(function: Callable[[Any], Any], item: Any) -> Any:
    return function(item)


_TASK = ray.remote(num_cpus=1, max_retries=2)(_call)


def map_in_tasks(
    function: Callable[[Item], Result], items: Iterable[Item], *, num_workers: int | None
) -> Iterator[Result]:
    """Call a function on every item in Ray tasks and return the results in order.

    A task whose worker dies is run again, twice at most.

    Args:
        function: importable by its name.
        items: small ones, as the results must be: rows stay in files.
        num_workers: tasks at work at once; None takes every core of the cluster.
    """
    cores = int(ray.cluster_resources().get("CPU", 1))
    window = QUEUED_PER_WORKER * (num_workers or cores)
    waiting: deque[Any] = deque()
    for item in items:
        waiting.append(_TASK.remote(function, item))
        if len(waiting) >= window:
            yield ray.get(waiting.popleft())
    while waiting:
        yield ray.get(waiting.popleft())


hold = ray.put
"""Puts a value into the object store and returns the reference that actors take."""
