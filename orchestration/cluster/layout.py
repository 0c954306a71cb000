"""Which actor is placed on which machine and GPU: the same function for `mixed-r1 plan` and for a run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from orchestration.cluster.machines import Layout, Machine, Seating
from orchestration.cluster.needs import Need, Needs, check_sizes, needs_of, shortage
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig

UNITS = 10_000
"""Parts of a GPU that Ray tells apart."""


@dataclass(slots=True, kw_only=True)
class Room:
    """What is still free on one machine."""

    index: int
    """Of the machine."""
    machine: Machine
    cpus: int
    units: list[int]
    """Free parts of each GPU, of `UNITS`."""
    seats: list[Seating] = field(default_factory=list)

    def count(self, role: str) -> int:
        """Actors of a role that stand here."""
        return sum(seat.role == role for seat in self.seats)

    def slots(self, need: Need) -> int:
        """How many more actors of a role find room here."""
        if need.role not in self.machine.roles:
            return 0
        by_cpus = self.cpus // need.cpus if need.cpus else len(self.units)
        if need.gpus == 0:
            return by_cpus
        share = units_of(need)
        return min(by_cpus, sum(free // share for free in self.units) // need.gpus)

    def seat(self, need: Need, index: int) -> None:
        """Seat one actor, on the GPUs that Ray would give it: those in use first, then by number."""
        self.cpus -= need.cpus
        share = units_of(need)
        free = sorted((units, gpu) for gpu, units in enumerate(self.units) if units >= share)
        gpus = tuple(sorted(gpu for _, gpu in free[: need.gpus]))
        for gpu in gpus:
            self.units[gpu] -= share
        self.seats.append(Seating(role=need.role, index=index, machine=self.index, gpus=gpus))

    def share(self, need: Need, index: int, gpus: tuple[int, ...]) -> None:
        """Seat one actor on GPUs that are others' already."""
        self.cpus -= need.cpus
        self.seats.append(Seating(role=need.role, index=index, machine=self.index, gpus=gpus))


def open_rooms(machines: Sequence[Machine]) -> list[Room]:
    """Empty machines."""
    return [
        Room(index=index, machine=machine, cpus=machine.cpus, units=[UNITS] * machine.gpus)
        for index, machine in enumerate(machines)
    ]


def units_of(need: Need) -> int:
    """Parts of a GPU that one actor takes of each of its GPUs."""
    return max(1, round(need.share * UNITS))


Shares = list[tuple[int, int]]
"""Learner ranks by machine: index of the machine, ranks there."""


def lay_out(config: ExperimentConfig, machines: Sequence[Machine]) -> Layout:
    """Seat every actor of a run; see `lay_out_needs`.

    Raises:
        ConfigError: the machines cannot hold them; says what is missing where, and which key to change.
    """
    return lay_out_needs(needs_of(config), machines)


def lay_out_needs(needs: Needs, machines: Sequence[Machine]) -> Layout:
    """Seat the actors of a job.

    Learner ranks come first: on as few machines as hold them, the same number on each where that is possible, ranks
    of one machine one after the other, so that what they say to their neighbours stays on the machine. Engines take
    the machines without ranks before the rest of the others. Reward actors go where most cores are free. Among equal
    machines the first ones are taken.

    Raises:
        ConfigError: the machines cannot hold them; says what is missing where, and which key to change.
    """
    check_sizes(needs, machines)
    missing: dict[str, int] = {}
    for shares in _ways_to_seat(needs, machines):
        rooms = open_rooms(machines)
        _seat_learner(needs, rooms, shares)
        left = _seat_colocated(needs, rooms) if needs.is_colocated else _seat_engines(needs.engine, rooms)
        left |= _seat_rewards(needs.reward, rooms)
        if not left:
            seats = sorted((seat for room in rooms for seat in room.seats), key=lambda seat: (seat.role, seat.index))
            return Layout(machines=tuple(machines), seats=tuple(seats))
        missing = missing or left
    raise ConfigError(shortage(needs, machines, missing))


def _ways_to_seat(needs: Needs, machines: Sequence[Machine]) -> Iterator[Shares]:
    """Shares of the ranks, best first; a later one may leave room for engines where the first does not."""
    learner = needs.learner
    if learner.count == 0:
        yield []
        return
    rooms = open_rooms(machines)
    # Colocated engines stand on ranks of one machine.
    block = max(1, needs.engine.gpus) if needs.is_colocated else 1
    slots = [room.slots(learner) // block * block for room in rooms]
    if needs.is_colocated:
        slots = [free if "engine" in room.machine.roles else 0 for free, room in zip(slots, rooms, strict=True)]
    for num_machines in range(1, len(rooms) + 1):
        ranks = learner.count // num_machines
        fitting = [room for room in rooms if slots[room.index] >= ranks]
        if learner.count % num_machines == 0 and ranks % block == 0 and len(fitting) >= num_machines:
            best = sorted(fitting, key=lambda room: _preference(room, learner, slots[room.index] - ranks))
            yield [(index, ranks) for index in sorted(room.index for room in best[:num_machines])]
    if sum(slots) >= learner.count:
        yield _fill(learner, rooms, slots)


def _preference(room: Room, learner: Need, left: int) -> tuple[bool, int, int]:
    """Machines for the learner alone first; of GPU machines those that the ranks fill; of others the first."""
    return "engine" in room.machine.roles, left if learner.gpus else 0, room.index


def _fill(learner: Need, rooms: Sequence[Room], slots: Sequence[int]) -> Shares:
    shares: dict[int, int] = {}
    for room in sorted(rooms, key=lambda room: ("engine" in room.machine.roles, -slots[room.index], room.index)):
        if ranks := min(slots[room.index], learner.count - sum(shares.values())):
            shares[room.index] = ranks
    return sorted(shares.items())


def _seat_learner(needs: Needs, rooms: Sequence[Room], shares: Shares) -> None:
    machines = [machine for machine, ranks in shares for _ in range(ranks)]
    for rank, machine in enumerate(machines):
        rooms[machine].seat(needs.learner, rank)


def _seat_colocated(needs: Needs, rooms: Sequence[Room]) -> dict[str, int]:
    """Seat engines on the ranks' own GPUs, in the order of the ranks; where there are no GPUs, on their machines."""
    ranks = sorted((seat for room in rooms for seat in room.seats), key=lambda seat: seat.index)
    engine = needs.engine
    for index in range(engine.count):
        under = ranks[index * len(ranks) // engine.count : (index + 1) * len(ranks) // engine.count] or ranks[-1:]
        room = rooms[under[0].machine]
        if room.cpus < engine.cpus:
            return {"engine": engine.count - index}
        room.share(engine, index, tuple(gpu for seat in under for gpu in seat.gpus))
    return {}


def _seat_engines(engine: Need, rooms: Sequence[Room]) -> dict[str, int]:
    """Seat engines on GPUs machine by machine; without GPUs over all machines in turn.

    Returns:
        How many found no room, by role.
    """
    for index in range(engine.count):
        free = [room for room in rooms if room.slots(engine)]
        if not free:
            return {"engine": engine.count - index}
        min(free, key=_tightest if engine.gpus else _emptiest).seat(engine, index)
    return {}


def _tightest(room: Room) -> tuple[bool, bool, int]:
    return room.count("learner") > 0, "learner" in room.machine.roles, room.index


def _emptiest(room: Room) -> tuple[int, int, int]:
    return room.count("engine"), -room.cpus, room.index


def _seat_rewards(reward: Need, rooms: Sequence[Room]) -> dict[str, int]:
    for index in range(reward.count):
        free = [room for room in rooms if room.slots(reward)]
        if not free:
            return {"reward": reward.count - index}
        max(free, key=lambda room: (room.cpus, -room.index)).seat(reward, index)
    return {}
