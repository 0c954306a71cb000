"""Which actor is placed on which machine and GPU: the same function for `mixed-r1 plan` and for a run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from orchestration.cluster.machines import Machine, Need, Needs, check_sizes, needs_of, shortage
from orchestration.settings.cluster import ActorRole
from orchestration.settings.errors import ConfigError, InfrastructureError
from orchestration.settings.experiment import ExperimentConfig

UNITS = 10_000
"""Parts of a GPU that Ray distinguishes."""


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
    actors: tuple[PlacedActor, ...]

    def of(self, role: ActorRole) -> tuple[PlacedActor, ...]:
        """Return the actors of one role, by index."""
        return tuple(sorted((actor for actor in self.actors if actor.role == role), key=lambda actor: actor.index))

    def learner_machines(self) -> tuple[int, ...]:
        """Return the machines that hold learner ranks, in the order of their ranks."""
        return tuple(dict.fromkeys(actor.machine for actor in self.of("learner")))


@dataclass(slots=True, kw_only=True)
class FreeSpace:
    """What is still free on one machine."""

    index: int
    """Of the machine."""
    machine: Machine
    cpus: int
    units: list[int]
    """Free parts of each GPU, of `UNITS`."""
    actors: list[PlacedActor] = field(default_factory=list)

    def count(self, role: str) -> int:
        """Return the number of actors of a role on this machine."""
        return sum(actor.role == role for actor in self.actors)

    def slots(self, need: Need) -> int:
        """Return how many more actors of a role fit on this machine."""
        if not self.machine.may_hold(need.role):
            return 0
        if need.gpus == 0:
            return self.cpus
        share = units_of(need)
        return min(self.cpus, sum(free // share for free in self.units) // need.gpus)

    def place(self, need: Need, index: int) -> None:
        """Place one actor, on the GPUs that Ray would choose: those in use first, then by number."""
        self.cpus -= 1
        share = units_of(need)
        free = sorted((units, gpu) for gpu, units in enumerate(self.units) if units >= share)
        gpus = tuple(sorted(gpu for _, gpu in free[: need.gpus]))
        for gpu in gpus:
            self.units[gpu] -= share
        self.actors.append(PlacedActor(role=need.role, index=index, machine=self.index, gpus=gpus))

    def share(self, need: Need, index: int, gpus: tuple[int, ...]) -> None:
        """Place one actor on GPUs that other actors have already."""
        self.cpus -= 1
        self.actors.append(PlacedActor(role=need.role, index=index, machine=self.index, gpus=gpus))


def free_spaces(machines: Sequence[Machine]) -> list[FreeSpace]:
    """Return the space of empty machines."""
    return [
        FreeSpace(index=index, machine=machine, cpus=machine.cpus, units=[UNITS] * machine.gpus)
        for index, machine in enumerate(machines)
    ]


def units_of(need: Need) -> int:
    """Return the parts of a GPU that one actor takes of each of its GPUs."""
    return max(1, round(need.share * UNITS))


Shares = list[tuple[int, int]]
"""Learner ranks by machine: index of the machine, ranks there."""


def lay_out(config: ExperimentConfig, machines: Sequence[Machine]) -> Layout:
    """Place every actor of a run; see `lay_out_needs`.

    Raises:
        ConfigError: the machines cannot hold them; names what is missing where, and which key to change.
    """
    return lay_out_needs(needs_of(config), machines)


def lay_out_needs(needs: Needs, machines: Sequence[Machine]) -> Layout:
    """Place the actors of a job.

    Learner ranks come first: on as few machines as hold them, the same number on each where that is possible, ranks
    of one machine one after the other, so that neighbours talk within the machine. Engines take
    the machines without ranks before the rest of the others, and judges follow them on what is left. Reward actors go
    where most cores are free. Among equal machines the first ones are taken.

    Raises:
        ConfigError: the machines cannot hold them; names what is missing where, and which key to change.
    """
    check_sizes(needs, machines)
    missing: dict[str, int] = {}
    for shares in _ways_to_place(needs, machines):
        spaces = free_spaces(machines)
        _place_learner(needs, spaces, shares)
        left = _place_colocated(needs, spaces) if needs.is_colocated else _place_engines(needs.engine, spaces)
        left |= _place_judges(needs.judges, spaces)
        left |= _place_rewards(needs.reward, spaces)
        if not left:
            actors = sorted(
                (actor for space in spaces for actor in space.actors), key=lambda actor: (actor.role, actor.index)
            )
            return Layout(machines=tuple(machines), actors=tuple(actors))
        missing = missing or left
    raise ConfigError(shortage(needs, machines, missing))


def _ways_to_place(needs: Needs, machines: Sequence[Machine]) -> Iterator[Shares]:
    """Yield shares of the ranks, best first; a later one may leave room for engines where the first does not."""
    learner = needs.learner
    if learner.count == 0:
        yield []
        return
    spaces = free_spaces(machines)
    # A colocated engine shares the GPUs of ranks of one machine.
    block = max(1, needs.engine.gpus) if needs.is_colocated else 1
    slots = [space.slots(learner) // block * block for space in spaces]
    if needs.is_colocated:
        slots = [free if "engine" in space.machine.roles else 0 for free, space in zip(slots, spaces, strict=True)]
    for num_machines in range(1, len(spaces) + 1):
        ranks = learner.count // num_machines
        fitting = [space for space in spaces if slots[space.index] >= ranks]
        if learner.count % num_machines == 0 and ranks % block == 0 and len(fitting) >= num_machines:
            best = sorted(fitting, key=lambda space: _preference(space, learner, slots[space.index] - ranks))
            yield [(index, ranks) for index in sorted(space.index for space in best[:num_machines])]
    if sum(slots) >= learner.count:
        yield _fill(learner, spaces, slots)


def _preference(space: FreeSpace, learner: Need, left: int) -> tuple[bool, int, int]:
    """Machines for the learner alone first; of GPU machines those that the ranks fill; of others the first."""
    return "engine" in space.machine.roles, left if learner.gpus else 0, space.index


def _fill(learner: Need, spaces: Sequence[FreeSpace], slots: Sequence[int]) -> Shares:
    shares: dict[int, int] = {}
    for space in sorted(spaces, key=lambda space: ("engine" in space.machine.roles, -slots[space.index], space.index)):
        if ranks := min(slots[space.index], learner.count - sum(shares.values())):
            shares[space.index] = ranks
    return sorted(shares.items())


def _place_learner(needs: Needs, spaces: Sequence[FreeSpace], shares: Shares) -> None:
    machines = [machine for machine, ranks in shares for _ in range(ranks)]
    for rank, machine in enumerate(machines):
        spaces[machine].place(needs.learner, rank)


def _place_colocated(needs: Needs, spaces: Sequence[FreeSpace]) -> dict[str, int]:
    """Place engines on the ranks' own GPUs, in the order of the ranks; where there are no GPUs, on their machines."""
    ranks = sorted((actor for space in spaces for actor in space.actors), key=lambda actor: actor.index)
    engine = needs.engine
    for index in range(engine.count):
        under = ranks[index * len(ranks) // engine.count : (index + 1) * len(ranks) // engine.count] or ranks[-1:]
        space = spaces[under[0].machine]
        if space.cpus < 1:
            return {"engine": engine.count - index}
        space.share(engine, index, tuple(gpu for actor in under for gpu in actor.gpus))
    return {}


def _place_engines(engine: Need, spaces: Sequence[FreeSpace]) -> dict[str, int]:
    """Place engines on GPUs machine by machine; without GPUs over all machines in turn.

    Returns:
        How many found no room, by role.
    """
    for index in range(engine.count):
        free = [space for space in spaces if space.slots(engine)]
        if not free:
            return {"engine": engine.count - index}
        min(free, key=_tightest if engine.gpus else _emptiest).place(engine, index)
    return {}


def _place_judges(judges: Sequence[Need], spaces: Sequence[FreeSpace]) -> dict[str, int]:
    """Place each judge as an engine; one takes GPUs of one machine."""
    missing = 0
    for index, need in enumerate(judges):
        free = [space for space in spaces if space.slots(need)]
        if free:
            min(free, key=_tightest if need.gpus else _emptiest).place(need, index)
        missing += not free
    return {"judge": missing} if missing else {}


def _tightest(space: FreeSpace) -> tuple[bool, bool, int]:
    return space.count("learner") > 0, "learner" in space.machine.roles, space.index


def _emptiest(space: FreeSpace) -> tuple[int, int, int]:
    return space.count("engine"), -space.cpus, space.index


def _place_rewards(reward: Need, spaces: Sequence[FreeSpace]) -> dict[str, int]:
    for index in range(reward.count):
        free = [space for space in spaces if space.slots(reward)]
        if not free:
            return {"reward": reward.count - index}
        max(free, key=lambda space: (space.cpus, -space.index)).place(reward, index)
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class RankDevices:
    """Node and GPUs of a learner rank, for the engine that shares them.

    Example:
        >>> RankDevices(node_id="ab12", visible="3").visible
        '3'
    """

    node_id: str
    """Ray's name of the node."""
    visible: str
    """The rank's CUDA_VISIBLE_DEVICES; empty without a GPU."""


def ranks_under(layout: Layout, engine: int) -> tuple[int, ...]:
    """Return the ranks whose GPUs an engine shares, in their order."""
    actor = layout.of("engine")[engine]
    on_machine = [rank for rank in layout.of("learner") if rank.machine == actor.machine]
    return tuple(rank.index for rank in on_machine if set(rank.gpus) & set(actor.gpus))


def colocated_devices(ranks: Sequence[RankDevices]) -> str:
    """Return the CUDA_VISIBLE_DEVICES of an engine: the GPUs that Ray chose for its ranks.

    Args:
        ranks: Those under the engine, in their order.

    Raises:
        InfrastructureError: the ranks are on several nodes, so no process can use the GPUs of all.

    Example:
        >>> colocated_devices([RankDevices(node_id="ab12", visible="2"), RankDevices(node_id="ab12", visible="3")])
        '2,3'
    """
    nodes = {rank.node_id for rank in ranks}
    if len(nodes) != 1:
        raise InfrastructureError(
            f"an engine shares the GPUs of {len(ranks)} learner ranks, which are on {len(nodes)} nodes; set "
            "rollout.engine.tensor_parallel_size to a divisor of the number of GPUs of a node"
        )
    return ",".join(rank.visible for rank in ranks)
