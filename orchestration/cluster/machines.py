"""Machines, what the actors of a run need of them, and the errors where they cannot hold a run."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from orchestration.settings.cluster import ActorRole, JudgeServerConfig, NodeRole, NodesConfig
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig

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
    roles: tuple[NodeRole, ...] = ("engine", "learner", "reward")
    resource: str | None = None
    """Ray's custom resource of these machines."""

    def may_hold(self, role: ActorRole) -> bool:
        """Return whether actors of a role may run here; judges run where engines may."""
        return ("engine" if role == "judge" else role) in self.roles


def planned_machines(nodes: Sequence[NodesConfig]) -> tuple[Machine, ...]:
    """Return the machines that `cluster.nodes` describes, one record each.

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What the actors of one role take, beside the core that each of them reserves.

    Example:
        >>> Need(role="engine", count=4, gpus=2, share=1.0).total_gpus
        8.0
    """

    role: ActorRole
    count: int
    """Actors."""
    gpus: int
    """GPUs that one actor sees, all of one machine."""
    share: float
    """Part of each GPU that it takes; below 1 several actors share a GPU."""

    @property
    def total_gpus(self) -> float:
        """GPUs of all actors together."""
        return self.count * self.gpus * self.share


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a whole run takes."""

    learner: Need
    engine: Need
    reward: Need
    is_colocated: bool
    """Engines use the GPUs of the ranks, and take none of their own."""
    judges: tuple[Need, ...] = ()
    """One for each judge whose server the run starts, which may differ; in the order of `judge_names`."""

    @property
    def every(self) -> tuple[Need, ...]:
        """The needs of all roles, in the order of placement."""
        return (self.learner, self.engine, *self.judges, self.reward)

    @property
    def num_actors(self) -> int:
        """Actors in all, each of which reserves a core."""
        return sum(need.count for need in self.every)

    def of(self, role: ActorRole, index: int) -> Need:
        """Return what one actor takes."""
        return self.judges[index] if role == "judge" else next(need for need in self.every if need.role == role)

    def only(self, *roles: ActorRole) -> "Needs":
        """Return the needs of a job that has these roles alone, such as an evaluation, which has no learner.

        Judges come with the reward actors that ask them.
        """
        kept = {
            role: need if role in roles else replace(need, count=0)
            for role, need in (("learner", self.learner), ("engine", self.engine), ("reward", self.reward))
        }
        # Without a learner there are no ranks whose GPUs engines could share.
        judges = self.judges if "reward" in roles else ()
        return Needs(**kept, is_colocated=self.is_colocated and "learner" in roles, judges=judges)


def needs_of(config: ExperimentConfig) -> Needs:
    """Return what every role takes by the settings.

    Raises:
        ConfigError: the settings share GPUs in a way that is not possible.
    """
    engine, learner, cluster = config.rollout.engine, config.learner, config.cluster
    is_colocated = cluster.layout == "colocated"
    if cluster.gpus_per_engine_worker < 1 and engine.tensor_parallel_size > 1:
        raise ConfigError(
            f"cluster.gpus_per_engine_worker={cluster.gpus_per_engine_worker:g} shares a GPU between engines of one "
            f"worker, and rollout.engine.tensor_parallel_size is {engine.tensor_parallel_size}; set one of them to 1"
        )
    if is_colocated and cluster.gpus_per_learner_rank < 1:
        raise ConfigError(
            f"cluster.gpus_per_learner_rank={cluster.gpus_per_learner_rank:g} with cluster.layout=colocated: ranks and "
            "engines share whole GPUs there; set it to 1"
        )
    if is_colocated and config.rollout.most_engines > config.rollout.engines:
        raise ConfigError(
            f"rollout.max_engines={config.rollout.max_engines} with cluster.layout=colocated: every engine uses "
            "GPUs of the ranks there, so none can join; set it to null, or cluster.layout=disaggregated"
        )
    return Needs(
        learner=Need(
            role="learner",
            count=learner.num_ranks,
            gpus=1 if learner.device == "cuda" else 0,
            share=cluster.gpus_per_learner_rank,
        ),
        engine=Need(
            role="engine",
            count=config.rollout.engines,
            gpus=engine.tensor_parallel_size if engine.device == "cuda" else 0,
            share=cluster.gpus_per_engine_worker,
        ),
        reward=Need(role="reward", count=cluster.reward_pool.num_actors, gpus=0, share=1.0),
        is_colocated=is_colocated,
        judges=tuple(_judge_need(config, name) for name in judge_names(config)),
    )


def judge_names(config: ExperimentConfig) -> tuple[str, ...]:
    """Return the judges whose servers a run starts, in the order of their indices."""
    return tuple(name for name in config.reward.judges_in_use() if config.reward.judges[name].needs_server)


def _judge_need(config: ExperimentConfig, name: str) -> Need:
    default = JudgeServerConfig(num_gpus=0 if config.rollout.engine.device == "cpu" else 1)
    server = config.cluster.judges.get(name, default)
    return Need(role="judge", count=1, gpus=server.num_gpus, share=server.gpu_share)


COUNTED = {"learner": "learner ranks", "engine": "engines", "reward": "reward actors", "judge": "judges"}
KEYS = {
    "learner": "learner.num_ranks",
    "engine": "rollout.engines or rollout.engine.tensor_parallel_size",
    "reward": "cluster.reward_pool.num_actors",
    "judge": "cluster.judges",
}


def check_sizes(needs: Needs, machines: Sequence[Machine]) -> None:
    """Refuse what no number of such machines would hold.

    Raises:
        ConfigError: an engine wider than a machine; engines that do not cover the ranks' GPUs when colocated.
    """
    if not machines:
        raise ConfigError("there is no machine to run on; describe some in cluster.nodes, or start Ray on them")
    for need in needs.every:
        if need.count and not any(machine.may_hold(need.role) for machine in machines):
            role = "engine" if need.role == "judge" else need.role
            raise ConfigError(
                f"no machine may hold {COUNTED[need.role]}: {describe(machines)}; add {role} to the roles of one "
                f"kind in cluster.nodes ({KEYS[need.role]} says how many there are)"
            )
    if needs.engine.count == 0:
        return
    width = needs.engine.gpus
    widest = max(machine.gpus for machine in machines if "engine" in machine.roles)
    if width > 1 and width > widest:
        raise ConfigError(
            f"rollout.engine.tensor_parallel_size={width} does not fit a machine with {widest} GPUs: an engine runs "
            f"on one machine; use {widest} or less" + (", or larger machines" if widest else "")
        )
    ranks, engines = needs.learner.count, needs.engine.count
    if needs.is_colocated and width and engines * width != ranks:
        raise ConfigError(
            f"cluster.layout is colocated, where engines cover the GPUs of the ranks, but rollout.engines={engines} x "
            f"rollout.engine.tensor_parallel_size={width} is not learner.num_ranks={ranks}; "
            + (f"set rollout.engines={ranks // width}" if ranks % width == 0 else f"use ranks in multiples of {width}")
        )


def shortage(needs: Needs, machines: Sequence[Machine], missing: Mapping[str, int]) -> str:
    """Return an error that lists what found no room, what is needed and what exists.

    `missing` counts actors that found no room once the learner was placed, by role; empty if the learner was not.
    """
    every = [need for need in needs.every if need.count]
    if missing:
        counts = Counter[str]()
        for need in every:
            counts[need.role] += need.count
        lead = " and ".join(f"{left} of {counts[role]} {COUNTED[role]}" for role, left in missing.items())
    else:
        lead = f"the {needs.learner.count} learner ranks"
    keys = ", ".join(KEYS[role] for role in (missing or ("learner",)))
    asked = "; ".join(_ask(need, needs) for need in every)
    return (
        f"no room for {lead}. Needed: {asked}; each actor reserves a core as well. There is: {describe(machines)}. "
        f"Lower {keys}, or add machines (cluster.nodes, or nodes of the Ray cluster)"
    )


def _ask(need: Need, needs: Needs) -> str:
    ask = f"{need.count} {COUNTED[need.role]}"
    if need.gpus == 0:
        return ask
    if need.role == "engine" and needs.is_colocated:
        return f"{ask} on {need.gpus} GPUs of the ranks each"
    size = f"{need.gpus * need.share:g} GPU" + ("s" if need.gpus > 1 else "")
    on_one = ", on one machine each" if need.gpus > 1 else ""
    return f"{ask} of {size} (together {need.total_gpus:g}{on_one})"


def describe(machines: Sequence[Machine]) -> str:
    """Return a short description of machines, equal ones together.

    Example:
        >>> kind = dict(gpus=8, gpu="h100_80gb", cpus=96, memory_bytes=1 << 40)
        >>> describe([Machine(name="node 0", **kind), Machine(name="node 1", **kind)])
        'node 0, node 1 with 8 GPUs and 96 cores each'
    """
    kinds: dict[tuple[object, ...], list[str]] = {}
    for machine in machines:
        is_for_all = len(machine.roles) == len(get_args(NodeRole))
        only = "" if is_for_all else f" for {', '.join(machine.roles) or 'nothing'} alone"
        kinds.setdefault((machine.gpus, machine.cpus, only), []).append(machine.name)
    return "; ".join(
        f"{_names(names)} with {gpus} GPUs and {cpus} cores" + (" each" if len(names) > 1 else "") + str(only)
        for (gpus, cpus, only), names in kinds.items()
    )


def _names(names: Sequence[str]) -> str:
    shown = [name if count == 1 else f"{count} x {name}" for name, count in Counter(names).items()]
    return ", ".join(shown) if len(shown) <= 4 else f"{shown[0]} to {shown[-1]} ({len(names)} machines)"


DRIVER_FOLDER = Path("/proc/driver/nvidia/gpus")
"""Where NVIDIA's kernel module lists its devices."""

GPU_DEVICES = (Path("/dev/nvidia0"), Path("/dev/dxg"))
"""What else shows a GPU: in containers that hide the driver's folder, and in Linux under Windows."""


def has_gpu() -> bool:
    """Return whether this machine shows any sign of an NVIDIA GPU; Ray counts them once it runs."""
    listed = DRIVER_FOLDER.is_dir() and any(DRIVER_FOLDER.iterdir())
    return listed or any(path.exists() for path in GPU_DEVICES)


def available_cores() -> tuple[int, ...]:
    """Return the cores that this process may use."""
    return tuple(sorted(os.sched_getaffinity(0)))


def this_machine(needs: Needs) -> Machine:
    """Return this machine, with a core for each actor: a run that starts Ray here shares what cores there are."""
    return Machine(
        name="this machine",
        gpus=len(list(DRIVER_FOLDER.iterdir())) if DRIVER_FOLDER.is_dir() else 0,
        gpu=None,
        cpus=max(len(available_cores()), needs.num_actors),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    )
