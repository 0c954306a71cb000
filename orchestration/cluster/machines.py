"""Machines: their cores and GPUs, stated or found on this host."""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestration.settings.cluster import ActorRole, NodesConfig

GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One machine, planned or found.

    Example:
        >>> Machine(name="node 0", gpus=8, gpu="h100_80gb", cpus=96, memory_bytes=1 << 40).gpus
        8
    """

    name: str
    gpus: int
    gpu: str | None
    """Kind of GPU, a key of `plan.gpus`; None where unknown or without."""
    cpus: int
    memory_bytes: int
    roles: tuple[ActorRole, ...] = ("engine", "learner", "reward")
    resource: str | None = None
    """Ray's custom resource of these machines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedActor:
    """One actor on its machine.

    Example:
        >>> PlacedActor(role="engine", index=1, machine=0, gpus=(2, 3)).gpus
        (2, 3)
    """

    role: ActorRole
    index: int
    """Of the engine, learner rank or reward actor."""
    machine: int
    """Index of the machine."""
    gpus: tuple[int, ...]
    """Local numbers of its GPUs; an engine has one a tensor-parallel worker, and shares them when colocated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Every actor of a run on its machine."""

    machines: tuple[Machine, ...]
    seats: tuple[PlacedActor, ...]

    def of(self, role: ActorRole) -> tuple[PlacedActor, ...]:
        """The actors of one role, by index."""
        return tuple(sorted((actor for actor in self.seats if actor.role == role), key=lambda actor: actor.index))

    def learner_machines(self) -> tuple[int, ...]:
        """Machines that hold learner ranks, in the order of their ranks."""
        return tuple(dict.fromkeys(actor.machine for actor in self.of("learner")))


def planned_machines(nodes: Sequence[NodesConfig]) -> tuple[Machine, ...]:
    """The machines that `cluster.nodes` describes, one record each.

    Example:
        >>> kind = NodesConfig(count=2, gpus=8, gpu="h100_80gb", cpus=96, memory_gib=1024.0)
        >>> [machine.name for machine in planned_machines([kind])]
        ['node 0', 'node 1']
    """
    kinds = [kind for kind in nodes for _ in range(kind.count)]
    return tuple(
        Machine(
            name=f"node {number}",
            gpus=kind.gpus,
            gpu=kind.gpu,
            cpus=kind.cpus,
            memory_bytes=round(kind.memory_gib * GIB),
            roles=kind.roles,
            resource=kind.resource,
        )
        for number, kind in enumerate(kinds)
    )
