"""Simulated engines and reward actors, as the pools see them: `handle.method.remote(...)` gives what can be awaited."""

import asyncio
import math
import random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.exceptions import RayActorError

from rollout.admission import Admission
from rollout.records import Activity, Fingerprint, Sample, SamplingSpec
from tests.benchmarks.simulation.batch_server import BatchServer, GroupRequest
from tests.benchmarks.simulation.groups import SimulatedGroup, draw_group
from tests.benchmarks.simulation.remote import remote_method
from tests.benchmarks.simulation.settings import Costs
from tests.benchmarks.simulation.world import Event, World

PROBED_TOKENS = 4


def fingerprint_of(version: int) -> dict[str, Fingerprint]:
    """The weights of a simulated model are their version, so that the comparison of tensors compares versions."""
    return {"weights": (1, version, 0)}


class Mortal:
    """Something that may die, and whose open calls then fail."""

    def __init__(self, world: World, *, index: int, start_s: float, life_s: float) -> None:
        self.world = world
        self.index = index
        self.stands_at = world.now + start_s
        self.died_at = math.inf
        # A dict, because it keeps the order of its keys: a repeated run fails its calls in the same order.
        self._open: dict[asyncio.Future[Any], None] = {}
        if life_s < math.inf:
            world.at(self.stands_at + life_s, self.die)

    def die(self) -> None:
        """End; whoever waits for an answer is told."""
        if self.died_at < math.inf:
            return
        self.died_at = self.world.now
        for future in list(self._open):
            self.world.fail(future, RayActorError())
        self._open.clear()

    def _call(self) -> "asyncio.Future[Any]":
        """A call that waits for its answer, or fails at once if nobody will give one."""
        future = asyncio.get_running_loop().create_future()
        if self.died_at < math.inf:
            self.world.fail(future, RayActorError())
        else:
            self._open[future] = None
        return future

    def _answer(self, future: "asyncio.Future[Any]", value: Any) -> None:
        if self._open.pop(future, 0) is None:
            self.world.answer(future, value)

    def _answer_at(self, when: float, value: Any) -> "asyncio.Future[Any]":
        future = self._call()
        self.world.at(when, lambda: self._answer(future, value))
        return future

    def _answer_now(self, value: Any) -> "asyncio.Future[Any]":
        if self.world.now < self.stands_at:  # as Ray holds the calls of an actor that is being made
            return self._answer_at(self.stands_at, value)
        future = self._call()
        self._answer(future, value)
        return future


class SimulatedEngine(Mortal):
    """One engine: a BatchServer on the world's clock."""

    def __init__(self, world: World, costs: Costs, *, index: int, life_s: float) -> None:
        super().__init__(world, index=index, start_s=costs.engine.start_s, life_s=life_s)
        self.server = BatchServer(costs.engine)
        self._costs = costs
        self._event: Event | None = None
        self._num_groups = 0
        self._groups: dict[GroupRequest, tuple[SimulatedGroup, asyncio.Future[Any], float]] = {}

    def die(self) -> None:
        """End."""
        super().die()
        if self._event is not None:
            self._event.cancel()

    def receive(self, version: int) -> None:
        """Take new weights."""
        self.server.version = version

    def busy(self) -> tuple[float, float]:
        """(seconds with anything running, seconds summed over running sequences) so far."""
        return self.server.busy(min(self.world.now, self.died_at))

    @remote_method
    def ready(self) -> Any:
        """Stand."""
        return self._answer_at(self.stands_at, self.index)

    @remote_method
    def beat(self) -> Any:
        """Answer."""
        return self._answer_now(0.0)

    @remote_method
    def generate_group(
        self, group_id: str, sample: Sample, spec: SamplingSpec, admission: Admission | None
    ) -> tuple[SimulatedGroup, Any]:
        """Give the group, which fills as it is sampled, and its seconds.

        The groups of a batch come at one instant and are admitted together in any case, so `admission` is not read.
        """
        group, future = draw_group(group_id, sample, spec, self._costs.workload), self._call()
        if not future.done():
            self._num_groups += 1
            self._groups[group.request] = group, future, self.world.now
            self.server.submit(self.world.now, group.request)
            self._look_ahead()
        return group, future

    @remote_method
    def pause(self) -> Any:
        """Stop at a token boundary."""
        stands = self.server.pause(self.world.now)
        self._look_ahead()
        return self._answer_at(stands, None)

    @remote_method
    def resume(self) -> Any:
        """Go on."""
        self.server.resume(self.world.now)
        self._look_ahead()
        return self._answer_now(None)

    @remote_method
    def sleep(self) -> Any:
        """Stop at a token boundary; a simulated engine has no memory to give."""
        stands = self.server.pause(self.world.now)
        self._look_ahead()
        return self._answer_at(stands, self._activity())

    @remote_method
    def wake_weights(self) -> Any:
        """Be ready for weights."""
        return self._answer_now(None)

    @remote_method
    def wake_cache(self) -> Any:
        """Be ready for groups."""
        return self._answer_now(self._activity())

    @remote_method
    def score_completion(self, payload: SimulatedGroup, sample: Sample, index: int) -> Any:
        """Logprobs, the learner's."""
        return self._answer_at(self.world.now + self._costs.engine.probe_s, zero_logprobs())

    @remote_method
    def weight_layout(self, names: list[str]) -> Any:
        """Every tensor under its own name."""
        return self._answer_now({name: name for name in names})

    @remote_method
    def weight_fingerprints(self, names: list[str]) -> Any:
        """Of the live weights."""
        return self._answer_now(fingerprint_of(self.server.version))

    @remote_method
    def close(self) -> Any:
        """End in peace."""
        return self._answer_now(None)

    def _activity(self) -> Activity:
        return Activity(num_requests=self._num_groups, num_unfinished=len(self._groups))

    def _look_ahead(self) -> None:
        """Keep one event in the world: the next change of the batch."""
        when = self.server.next_event()
        if self._event is not None and not self._event.is_cancelled:
            if self._event.when == when:
                return
            self._event.cancel()
        alive = when is not None and self.died_at == math.inf
        self._event = self.world.at(when, self._pass_boundary) if alive and when is not None else None

    def _pass_boundary(self) -> None:
        self._event = None
        for request in self.server.advance(self.world.now):
            group, future, began = self._groups.pop(request)
            group.rollout_s = self.world.now - began
            group.version_end = self.server.version
            self._answer(future, group.rollout_s)
        self._look_ahead()


class SimulatedReward(Mortal):
    """One reward actor, which scores one group after the other."""

    def __init__(self, world: World, costs: Costs, *, index: int, life_s: float, seed: int) -> None:
        super().__init__(world, index=index, start_s=costs.reward.start_s, life_s=life_s)
        self._costs = costs.reward
        self._free_at = self.stands_at
        self._generator = random.Random(seed)

    @remote_method
    def ready(self) -> Any:
        """Stand."""
        return self._answer_at(self.stands_at, self.index)

    @remote_method
    def beat(self) -> Any:
        """Answer."""
        return self._answer_now(None)

    @remote_method
    def score(self, group: SimulatedGroup, keep_texts: bool) -> tuple[SimulatedGroup, Any]:
        """Give the scored group and its summary."""
        seconds = self._costs.median_s * math.exp(self._costs.sigma * self._generator.gauss(0.0, 1.0))
        self._free_at = max(self.world.now, self._free_at) + seconds
        return group, self._answer_at(self._free_at, group.summary(seconds))


def zero_logprobs() -> NDArray[np.float32]:
    """Logprobs of a completion on which both sides agree."""
    return np.zeros(PROBED_TOKENS, np.float32)
