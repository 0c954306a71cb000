"""What is still free on a machine while actors are seated: pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestration.cluster.machines import Machine, Seating
from orchestration.cluster.needs import Need

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
