"""Which actors a simulated cluster consists of: those that take virtual time, and those that answer at once."""

import math
import random
from typing import Any, Protocol

from orchestration.settings.seeds import derive_seed
from tests.benchmarks.simulation.handles import Mortal, SimulatedEngine, SimulatedReward
from tests.benchmarks.simulation.learner import SimulatedLearner
from tests.benchmarks.simulation.settings import Costs
from tests.benchmarks.simulation.world import World


class Actors(Protocol):
    """How the pools of a run get their actors, and what is measured of them."""

    costs: Costs
    learner: SimulatedLearner

    def start_engine(self, index: int) -> Any:
        """Make an engine."""

    def start_reward(self, index: int) -> Any:
        """Make a reward actor."""

    def start_rank(self, index: int) -> Any:
        """Make a learner rank."""

    def stop(self, handle: Any) -> None:
        """End an actor at once."""

    def now(self) -> float:
        """Seconds of the run's clock."""
        ...

    def busy(self) -> tuple[float, float]:
        """(seconds with anything running, seconds of sequences) over all engines so far."""
        ...

    def simulated_cpu_s(self) -> float:
        """Processor seconds that went into the actors."""
        ...


class SimulatedActors:
    """Actors that take virtual time and die."""

    def __init__(self, world: World, costs: Costs, *, seed: int) -> None:
        self.costs = costs
        self.learner = SimulatedLearner(world, costs.learner)
        self.engines: list[SimulatedEngine] = []
        """All that ever were."""
        self._world = world
        self._seed = seed
        self._num_started = 0

    def start_engine(self, index: int) -> SimulatedEngine:
        """Make an engine with a length of life."""
        life_s = self._life("engine", index, self.costs.failures.engine_per_hour)
        self.engines.append(SimulatedEngine(self._world, self.costs, index=index, life_s=life_s))
        return self.engines[-1]

    def start_reward(self, index: int) -> SimulatedReward:
        """Make a reward actor with a length of life."""
        life_s = self._life("reward", index, self.costs.failures.reward_per_hour)
        seed = derive_seed(self._seed, "score", index, self._num_started)
        return SimulatedReward(self._world, self.costs, index=index, life_s=life_s, seed=seed)

    def start_rank(self, index: int) -> Any:
        """Make a learner rank with a length of life; the first ones live through the start of the run at least."""
        life_s = self._life("learner", index, self.costs.failures.learner_per_hour)
        if self._world.now == 0.0:
            life_s += 2 * (self.costs.learner.process_s + self.costs.learner.start_s + self.costs.engine.start_s)
        return self.learner.rank(index, life_s)

    def stop(self, handle: Mortal) -> None:
        """End an actor."""
        handle.die()

    def now(self) -> float:
        """Virtual seconds."""
        return self._world.now

    def busy(self) -> tuple[float, float]:
        """Over all engines that ever were."""
        sums = self._world.simulate(lambda: [engine.busy() for engine in self.engines])
        return sum(busy for busy, _ in sums), sum(sequences for _, sequences in sums)

    def simulated_cpu_s(self) -> float:
        """As the world has booked it."""
        return self._world.simulated_cpu_s

    def _life(self, role: str, index: int, per_hour: float) -> float:
        self._num_started += 1
        generator = random.Random(derive_seed(self._seed, role, index, self._num_started))
        return generator.expovariate(per_hour / 3600.0) if per_hour > 0.0 else math.inf
