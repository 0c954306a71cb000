"""Machines and what stands on them: the records of a layout."""

from dataclasses import dataclass

from orchestration.config.cluster import ActorRole


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
class Seating:
    """One actor on its machine.

    Example:
        >>> Seating(role="engine", index=1, machine=0, gpus=(2, 3)).gpus
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
    seats: tuple[Seating, ...]
