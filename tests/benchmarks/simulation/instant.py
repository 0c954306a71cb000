"""Actors that answer at once on the ordinary clock: what is left of a run's time is the controller's own."""

import asyncio
from typing import Any

from rollout.admission import Admission
from rollout.records import Sample, SamplingSpec
from tests.benchmarks.simulation.actors import SimulatedActors
from tests.benchmarks.simulation.groups import SimulatedGroup, draw_group
from tests.benchmarks.simulation.handles import SimulatedEngine
from tests.benchmarks.simulation.remote import remote_method
from tests.benchmarks.simulation.settings import Costs, EngineCosts, LearnerCosts, RewardCosts
from tests.benchmarks.simulation.world import Action, Event, World

NOTHING = Costs(
    engine=EngineCosts(start_s=0.0, probe_s=0.0),
    learner=LearnerCosts(
        step_s=0.0,
        s_per_token=0.0,
        fetch_s=0.0,
        transfer_s=0.0,
        transfer_s_per_doubling=0.0,
        probe_s=0.0,
        process_s=0.0,
        start_s=0.0,
    ),
    reward=RewardCosts(median_s=0.0, start_s=0.0),
)
"""Costs of actors that take no time."""


class InstantWorld(World):
    """A world in which whatever will happen happens in the event loop's next round."""

    def at(self, when: float, action: Action) -> Event:
        """Let something happen now; it cannot be cancelled."""
        event = Event(self.now, action)
        asyncio.get_running_loop().call_soon(self.simulate, action)
        return event


class InstantEngine(SimulatedEngine):
    """An engine that samples nothing."""

    @remote_method
    def generate_group(
        self, group_id: str, sample: Sample, spec: SamplingSpec, admission: Admission | None
    ) -> tuple[SimulatedGroup, Any]:
        """Give a group that is there already."""
        group = draw_group(group_id, sample, spec, NOTHING.workload)
        group.request.version_start = group.version_end = self.server.version
        return group, self._answer_at(self.world.now, 0.0)


class InstantActors(SimulatedActors):
    """A cluster of them."""

    def start_engine(self, index: int) -> SimulatedEngine:
        """Make an engine that lives for ever."""
        self.engines.append(InstantEngine(self._world, self.costs, index=index, life_s=float("inf")))
        return self.engines[-1]
