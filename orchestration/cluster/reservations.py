"""Reservations: room in the cluster for every actor of a job, and with what each is started."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestration.cluster.found import FoundMachine, find_machines
from orchestration.cluster.groups import Groups, bundles_of, further_engine
from orchestration.cluster.layout import lay_out_needs
from orchestration.cluster.machines import Layout
from orchestration.cluster.needs import Needs, available_cores, needs_of
from orchestration.cluster.process import Placement, Processes, actor_environment, processes_of
from orchestration.cluster.session import ray_session
from orchestration.settings.cluster import ActorRole
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig


class Reservations:
    """Room for every actor of a job, reserved in Ray."""

    def __init__(self, layout: Layout, needs: Needs, processes: Processes, groups: Groups) -> None:
        """Store what was reserved."""
        self.layout = layout
        self._needs = needs
        self._processes = processes
        self._groups = groups

    def placements(self, role: ActorRole) -> Sequence[Placement]:
        """Return the placements of a role's actors; for engines as many as there may be at most."""
        return {
            "engine": self._processes.engines,
            "learner": self._processes.learner_ranks,
            "reward": self._processes.rewards,
        }[role]

    def start(self, actor: Any, role: ActorRole, index: int, *arguments: Any, **options: Any) -> Any:
        """Start a Ray actor of a role, or one that replaces it, and give its handle.

        Args:
            actor: Its class.
            role: What it is.
            index: Which of its role.
            arguments: Of its construction.
            options: Ray's, beside those of its seat.
        """
        return actor.options(**self.options(role, index), **options).remote(*arguments)

    def options(self, role: ActorRole, index: int) -> dict[str, Any]:
        """Ray's options for an actor; also for one that replaces it.

        An engine beyond those of the layout is asked for with this, and starts when there is room.
        """
        if role == "engine" and not self._groups.has(role, index):
            self._groups.ask(further_engine(self.layout, self._needs, index))
        options = self.placements(role)[index].actor_options()
        return {**options, "scheduling_strategy": self._groups.strategy(role, index)}


@contextmanager
def actors_reserved(
    config: ExperimentConfig, log_dir: Path, *, roles: Sequence[ActorRole] = ("learner", "engine", "reward")
) -> Iterator[Reservations]:
    """Start or join Ray and reserve room for the actors of some roles, for the length of the block.

    Raises:
        ConfigError: the cluster could not hold them even if it were empty.
        InfrastructureError: others hold the room for too long; or an actor died that nobody replaced.
    """
    with ray_session(config.cluster, num_actors(config, roles), log_dir), reserved(config, roles=roles) as seats:
        yield seats


def num_actors(config: ExperimentConfig, roles: Sequence[ActorRole]) -> int:
    """Actors of these roles that a job waits for; each reserves a core."""
    return needs_of(config).only(*roles).num_actors


@contextmanager
def reserved(config: ExperimentConfig, *, roles: Sequence[ActorRole]) -> Iterator[Reservations]:
    """Reserve room in the cluster that this process has joined; see `actors_reserved`."""
    needs = needs_of(config).only(*roles)
    machines = find_machines(config.cluster.nodes)
    layout = _lay_out(needs, machines)
    processes = processes_of(
        config,
        needs,
        cores=available_cores(),
        max_engines=config.rollout.most_engines if needs.engine.count else 0,
        variables=actor_environment(config.cluster, os.environ),
    )
    groups = Groups(machines)
    try:
        groups.reserve(bundles_of(layout, needs), timeout_s=config.cluster.faults.start_timeout_s)
        yield Reservations(layout, needs, processes, groups)
    finally:
        groups.close()


def _lay_out(needs: Needs, machines: Sequence[FoundMachine]) -> Layout:
    """Take what is free where that is enough; else what there is, and wait for it."""
    try:
        return lay_out_needs(needs, [found.free for found in machines])
    except ConfigError:
        return lay_out_needs(needs, [found.machine for found in machines])
