"""What Ray is asked to reserve together: pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestration.cluster.machines import Layout, Seating
from orchestration.cluster.needs import Need, Needs
from orchestration.settings.cluster import ActorRole

KIND_SHARE = 0.001
"""How much of the custom resource of its machines a bundle takes: enough to stand there only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundles:
    """Actors that Ray reserves room for together, on one machine.

    Ray gives what it reserved as a whole to another machine when this one is lost.
    """

    name: str
    machine: int | None
    """Index of the machine that is asked for; None takes whichever has room."""
    actors: tuple[tuple[ActorRole, int], ...]
    """Role and index of the actor of each bundle."""
    resources: tuple[dict[str, float], ...]
    """Of each bundle."""


def bundles_of(layout: Layout, needs: Needs) -> list[Bundles]:
    """All that is reserved for a layout, learner first.

    The ranks of one machine come together, and with them the engines that share their GPUs; every other actor comes
    alone, so that losing it moves nobody else.
    """
    groups = []
    for machine in layout.learner_machines():
        ranks = [seat for seat in layout.of("learner") if seat.machine == machine]
        guests = [seat for seat in layout.of("engine") if seat.machine == machine] if needs.is_colocated else []
        name = f"learner ranks {ranks[0].index} to {ranks[-1].index}"
        groups.append(_together(name, layout, needs, [*ranks, *guests]))
    alone = (*(() if needs.is_colocated else layout.of("engine")), *layout.of("reward"))
    return groups + [_together(f"{seat.role} {seat.index}", layout, needs, [seat]) for seat in alone]


def further_engine(layout: Layout, needs: Needs, index: int) -> Bundles:
    """One engine beyond those of the layout, on any machine that takes engines."""
    kinds = [machine.resource for machine in layout.machines if "engine" in machine.roles]
    # Where every machine for engines is marked, so will those be that come later.
    marks = list(dict.fromkeys(kind for kind in kinds if kind is not None)) if None not in kinds else []
    resources = _resources(needs.engine, is_guest=False, mark=marks[index % len(marks)] if marks else None)
    return Bundles(name=f"engine {index}", machine=None, actors=(("engine", index),), resources=(resources,))


def _together(name: str, layout: Layout, needs: Needs, seats: Sequence[Seating]) -> Bundles:
    machine = seats[0].machine
    of_role = {need.role: need for need in (needs.learner, needs.engine, needs.reward)}
    resources = (
        _resources(
            of_role[seat.role],
            is_guest=needs.is_colocated and seat.role == "engine",
            mark=layout.machines[machine].resource,
        )
        for seat in seats
    )
    return Bundles(
        name=name,
        machine=machine,
        actors=tuple((seat.role, seat.index) for seat in seats),
        resources=tuple(resources),
    )


def _resources(need: Need, *, is_guest: bool, mark: str | None) -> dict[str, float]:
    resources: dict[str, float] = {"CPU": need.cpus}
    if need.gpus and not is_guest:
        resources["GPU"] = need.gpus * need.share
    if mark is not None:
        resources[mark] = KIND_SHARE
    return resources
