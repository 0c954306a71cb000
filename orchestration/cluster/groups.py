"""Ray placement groups: which actors are reserved together, and how they are reserved."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import uuid4

from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestration.cluster.found import FoundMachine, find_machines, is_reachable
from orchestration.cluster.machines import Layout, Seating
from orchestration.cluster.needs import Need, Needs, describe
from orchestration.settings.cluster import ActorRole
from orchestration.settings.errors import InfrastructureError

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


logger = logging.getLogger(__name__)

FIRST_WAIT_S = 10.0
"""Room that another job gives back is there within seconds; after these we say what we wait for."""


class Groups:
    """The placement groups of one job.

    Ray keeps each on its machine, moves it to another one once it knows that the machine is gone, and removes all with
    the driver, however that ends.
    """

    def __init__(self, machines: Sequence[FoundMachine]) -> None:
        """Reserve nothing yet."""
        self._machines = machines
        self._held: dict[PlacementGroup, Bundles] = {}
        self._places: dict[tuple[ActorRole, int], tuple[PlacementGroup, int]] = {}

    def ask(self, bundles: Bundles) -> PlacementGroup:
        """Ask for room, and give the group at once; actors that are started there wait until there is room."""
        target = None if bundles.machine is None else self._machines[bundles.machine].node_id
        # The target is a wish: a node that is gone, or full, sends the group elsewhere.
        name = f"{bundles.name} ({uuid4().hex[:8]})"  # Ray refuses a name twice in one job
        group = placement_group(list(bundles.resources), strategy="STRICT_PACK", name=name, _soft_target_node_id=target)
        self._held[group] = bundles
        for place, actor in enumerate(bundles.actors):
            self._places[actor] = group, place
        return group

    def reserve(self, all_bundles: Sequence[Bundles], *, timeout_s: float) -> None:
        """Wait for room for all of them.

        Raises:
            InfrastructureError: others hold it for longer than `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        is_told = False
        # One after the other: on an idle machine GPUs are then given out in the order of the layout.
        for number, bundles in enumerate(all_bundles):
            group = self.ask(bundles)
            while not group.wait(min(FIRST_WAIT_S, max(0.1, deadline - time.monotonic()))):
                waiting = all_bundles[number:]
                if time.monotonic() >= deadline:
                    raise InfrastructureError(
                        f"no room within cluster.faults.start_timeout_s={timeout_s:g}: {_still(waiting)}; wait for the "
                        "jobs that hold the rest, or add nodes"
                    )
                if not is_told:
                    logger.warning("waiting for room: %s", _still(waiting))
                    is_told = True

    def strategy(self, role: ActorRole, index: int) -> PlacementGroupSchedulingStrategy:
        """Where an actor is started, also one that replaces another.

        For some seconds Ray takes a machine that is gone for alive, and an actor that is started there in this time is
        lost at once. So a group whose machine does not answer is given back, and asked for again anywhere.
        """
        group, _ = self._places[role, index]
        node_id = _node_of(group)
        if node_id is not None and not is_reachable(node_id):
            bundles = self._held.pop(group)
            remove_placement_group(group)
            self.ask(replace(bundles, machine=None))
        group, place = self._places[role, index]
        return PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=place)

    def has(self, role: ActorRole, index: int) -> bool:
        """Whether there is, or will be, room for this actor."""
        return (role, index) in self._places

    def close(self) -> None:
        """Release all reservations; actors in them are ended."""
        while self._held:
            group, _ = self._held.popitem()
            remove_placement_group(group)


def _node_of(group: PlacementGroup) -> str | None:
    """The node on which a group has its room; None while it has none."""
    found = placement_group_table(group)
    # All bundles of a group are on one node.
    return next(iter(found["bundles_to_node_id"].values())) if found["state"] == "CREATED" else None


def _still(waiting: Sequence[Bundles]) -> str:
    """What is asked for and what is free, node by node."""
    asked = "; ".join(f"{bundles.name} ({_total(bundles)})" for bundles in waiting[:4])
    more = f" and {len(waiting) - 4} more" if len(waiting) > 4 else ""
    return f"{asked}{more}. Free are: {describe([found.free for found in find_machines(())])}"


def _total(bundles: Bundles) -> str:
    total: dict[str, float] = {}
    for resources in bundles.resources:
        for name, amount in resources.items():
            total[name] = total.get(name, 0.0) + amount
    return ", ".join(f"{amount:g} {name}" for name, amount in total.items())
