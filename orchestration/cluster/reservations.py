"""Reservations: cores and GPUs for every actor of a job, as Ray placement groups, and the options to start each."""

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestration.cluster.found import FoundMachine, find_machines, is_reachable
from orchestration.cluster.layout import Layout, PlacedActor, lay_out_needs
from orchestration.cluster.machines import Need, Needs, available_cores, describe, needs_of
from orchestration.cluster.process import Placement, actor_environment, judge_keys, placements_of
from orchestration.cluster.session import ray_session
from orchestration.settings.cluster import ActorRole
from orchestration.settings.errors import ConfigError, InfrastructureError
from orchestration.settings.experiment import ExperimentConfig

logger = logging.getLogger(__name__)

FIRST_WAIT_S = 10.0
"""What another job releases is free within seconds; after this time we log what we wait for."""
KIND_SHARE = 0.001
"""How much of the custom resource of its machines a bundle takes: enough to bind it to them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundles:
    """Actors that Ray reserves room for together, on one machine.

    When this machine is lost, Ray moves them together to another one.
    """

    name: str
    machine: int | None
    """Index of the machine that is asked for; None takes whichever has room."""
    actors: tuple[tuple[ActorRole, int], ...]
    """Role and index of the actor of each bundle."""
    resources: tuple[dict[str, float], ...]
    """Of each bundle."""


def bundles_of(layout: Layout, needs: Needs) -> list[Bundles]:
    """Return all that is reserved for a layout, learner first.

    The ranks of one machine come together, and with them the engines that share their GPUs; every other actor comes
    alone, so that losing it moves nobody else.
    """
    groups = []
    for machine in layout.learner_machines():
        ranks = [actor for actor in layout.of("learner") if actor.machine == machine]
        engines = [actor for actor in layout.of("engine") if actor.machine == machine] if needs.is_colocated else []
        name = f"learner ranks {ranks[0].index} to {ranks[-1].index}"
        groups.append(_together(name, layout, needs, [*ranks, *engines]))
    alone = (*(() if needs.is_colocated else layout.of("engine")), *layout.of("judge"), *layout.of("reward"))
    return groups + [_together(f"{actor.role} {actor.index}", layout, needs, [actor]) for actor in alone]


def further_engine(layout: Layout, needs: Needs, index: int) -> Bundles:
    """Return the bundle of one engine beyond those of the layout, on any machine that takes engines."""
    kinds = [machine.resource for machine in layout.machines if "engine" in machine.roles]
    # Where every machine for engines is marked, so will those be that come later.
    marks = list(dict.fromkeys(kind for kind in kinds if kind is not None)) if None not in kinds else []
    resources = _resources(needs.engine, shares_gpus=False, mark=marks[index % len(marks)] if marks else None)
    return Bundles(name=f"engine {index}", machine=None, actors=(("engine", index),), resources=(resources,))


def _together(name: str, layout: Layout, needs: Needs, actors: Sequence[PlacedActor]) -> Bundles:
    machine = actors[0].machine
    resources = (
        _resources(
            needs.of(actor.role, actor.index),
            shares_gpus=needs.is_colocated and actor.role == "engine",
            mark=layout.machines[machine].resource,
        )
        for actor in actors
    )
    return Bundles(
        name=name,
        machine=machine,
        actors=tuple((actor.role, actor.index) for actor in actors),
        resources=tuple(resources),
    )


def _resources(need: Need, *, shares_gpus: bool, mark: str | None) -> dict[str, float]:
    resources: dict[str, float] = {"CPU": 1}
    if need.gpus and not shares_gpus:
        resources["GPU"] = need.gpus * need.share
    if mark is not None:
        resources[mark] = KIND_SHARE
    return resources


class Reservations:
    """Room for every actor of a job, reserved in Ray as placement groups.

    Ray keeps each group on its machine, moves it to another one once it knows that the machine is gone, and removes all
    with the driver, however that ends.
    """

    def __init__(
        self,
        layout: Layout,
        needs: Needs,
        placements: Mapping[ActorRole, Sequence[Placement]],
        machines: Sequence[FoundMachine],
    ) -> None:
        """Reserve nothing yet.

        `placements` has those of every role by index; for engines as many as there may be at most.
        """
        self.layout = layout
        self.placements = placements
        self._needs = needs
        self._machines = machines
        self._held: dict[PlacementGroup, Bundles] = {}
        self._places: dict[tuple[ActorRole, int], tuple[PlacementGroup, int]] = {}

    def start(self, actor: Any, role: ActorRole, index: int, *arguments: Any, **options: Any) -> Any:
        """Start a Ray actor of a role, or one that replaces it, and return its handle.

        `arguments` are those of its class, `options` Ray's beside those of its place.
        """
        return actor.options(**self.options(role, index), **options).remote(*arguments)

    def options(self, role: ActorRole, index: int) -> dict[str, Any]:
        """Return Ray's options for an actor; also for one that replaces it.

        An engine beyond those of the layout is asked for with this, and starts when there is room.
        """
        if role == "engine" and (role, index) not in self._places:
            self._ask(further_engine(self.layout, self._needs, index))
        options = self.placements[role][index].actor_options()
        return {**options, "scheduling_strategy": self._strategy(role, index)}

    def _ask(self, bundles: Bundles) -> PlacementGroup:
        """Ask for room, and return the group at once; actors that are started there wait until there is room."""
        target = None if bundles.machine is None else self._machines[bundles.machine].node_id
        # The target is a preference: Ray places the group elsewhere if that node is gone or full.
        name = f"{bundles.name} ({uuid4().hex[:8]})"  # Ray refuses a name twice in one job
        group = placement_group(list(bundles.resources), strategy="STRICT_PACK", name=name, _soft_target_node_id=target)
        self._held[group] = bundles
        for place, actor in enumerate(bundles.actors):
            self._places[actor] = group, place
        return group

    def reserve(self, *, timeout_s: float) -> None:
        """Wait for room for all actors of the layout.

        Raises:
            InfrastructureError: others hold it for longer than `timeout_s`.
        """
        all_bundles = bundles_of(self.layout, self._needs)
        deadline = time.monotonic() + timeout_s
        is_logged = False
        # One after the other: on an idle machine GPUs are then given out in the order of the layout.
        for number, bundles in enumerate(all_bundles):
            group = self._ask(bundles)
            while not group.wait(min(FIRST_WAIT_S, max(0.1, deadline - time.monotonic()))):
                waiting = all_bundles[number:]
                if time.monotonic() >= deadline:
                    raise InfrastructureError(
                        f"no room within cluster.faults.start_timeout_s={timeout_s:g}: {_waiting_text(waiting)}; wait "
                        "for the jobs that hold the rest, or add nodes"
                    )
                if not is_logged:
                    logger.warning("waiting for room: %s", _waiting_text(waiting))
                    is_logged = True

    def _strategy(self, role: ActorRole, index: int) -> PlacementGroupSchedulingStrategy:
        """Return where an actor is started, also one that replaces another.

        For some seconds Ray counts a machine that is gone as alive, and an actor that is started there in this time is
        lost at once. So a group whose machine does not answer is released, and requested again on any machine.
        """
        group, _ = self._places[role, index]
        node_id = _node_of(group)
        if node_id is not None and not is_reachable(node_id):
            bundles = self._held.pop(group)
            remove_placement_group(group)
            self._ask(replace(bundles, machine=None))
        group, place = self._places[role, index]
        return PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=place)

    def close(self) -> None:
        """Release all reservations; actors in them are ended."""
        while self._held:
            group, _ = self._held.popitem()
            remove_placement_group(group)


def _node_of(group: PlacementGroup) -> str | None:
    """Return the node on which a group is placed; None while it is not."""
    found = placement_group_table(group)
    # All bundles of a group are on one node.
    return next(iter(found["bundles_to_node_id"].values())) if found["state"] == "CREATED" else None


def _waiting_text(waiting: Sequence[Bundles]) -> str:
    """Return what is asked for and what is free, node by node."""
    asked = "; ".join(f"{bundles.name} ({_total(bundles)})" for bundles in waiting[:4])
    more = f" and {len(waiting) - 4} more" if len(waiting) > 4 else ""
    return f"{asked}{more}. Free are: {describe([found.free for found in find_machines(())])}"


def _total(bundles: Bundles) -> str:
    total: dict[str, float] = {}
    for resources in bundles.resources:
        for name, amount in resources.items():
            total[name] = total.get(name, 0.0) + amount
    return ", ".join(f"{amount:g} {name}" for name, amount in total.items())


@contextmanager
def actors_reserved(
    config: ExperimentConfig, log_dir: Path, *, roles: Sequence[ActorRole] = ("learner", "engine", "reward")
) -> Iterator[Reservations]:
    """Start or join Ray and reserve room for the actors of some roles, for the length of the block.

    Raises:
        ConfigError: the cluster could not hold them even if it were empty.
        InfrastructureError: others hold the room for too long; or an actor died that nobody replaced.
    """
    with ray_session(config.cluster, num_actors(config, roles), log_dir), reserved(config, roles=roles) as held:
        yield held


def num_actors(config: ExperimentConfig, roles: Sequence[ActorRole]) -> int:
    """Return the number of actors of these roles that a job waits for; each reserves a core."""
    return needs_of(config).only(*roles).num_actors


@contextmanager
def reserved(config: ExperimentConfig, *, roles: Sequence[ActorRole]) -> Iterator[Reservations]:
    """Reserve room in the cluster that this process has joined; see `actors_reserved`."""
    needs = needs_of(config).only(*roles)
    machines = find_machines(config.cluster.nodes)
    layout = _lay_out(needs, machines)
    placements = placements_of(
        config,
        needs,
        cores=available_cores(),
        max_engines=config.rollout.most_engines if needs.engine.count else 0,
        variables=actor_environment(config.cluster, os.environ) | judge_keys(config.reward, os.environ),
    )
    reservations = Reservations(layout, needs, placements, machines)
    try:
        reservations.reserve(timeout_s=config.cluster.faults.start_timeout_s)
        yield reservations
    finally:
        reservations.close()


def _lay_out(needs: Needs, machines: Sequence[FoundMachine]) -> Layout:
    """Lay out on what is free where that is enough; else on all that there is, and wait for it."""
    try:
        return lay_out_needs(needs, [found.free for found in machines])
    except ConfigError:
        return lay_out_needs(needs, [found.machine for found in machines])
