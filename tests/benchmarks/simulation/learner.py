"""The simulated learner: ranks that take their time, one version of the weights between them."""

import asyncio
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from learner.checkpoint import StagedShare
from learner.records import StepReport
from learner.store import FileStore
from orchestration.cluster.layout import RankDevices
from tests.benchmarks.simulation.groups import SimulatedGroup
from tests.benchmarks.simulation.handles import Mortal, SimulatedEngine, fingerprint_of, zero_logprobs
from tests.benchmarks.simulation.remote import remote_method
from tests.benchmarks.simulation.settings import LearnerCosts
from tests.benchmarks.simulation.world import World


class SimulatedLearner:
    """What the ranks share."""

    def __init__(self, world: World, costs: LearnerCosts) -> None:
        self.world = world
        self.costs = costs
        self.version = 0
        self.trained: list[tuple[int, str]] = []
        """(step, group) of everything that went into the weights as they are."""
        self.fetch_began_at = 0.0
        self.step_began_at = 0.0
        self.step_ended_at = 0.0
        """Of the latest step; ended when the slowest rank did."""
        self.send_began_at = 0.0
        self.sent_at = 0.0
        """When the latest weights had reached all engines, which stood still meanwhile."""
        self._lost: list[tuple[int, str]] = []
        """What the weights had been trained on that were lost with the ranks."""

    def rank(self, index: int, life_s: float = math.inf) -> "SimulatedRank":
        """Make the actor of one rank."""
        return SimulatedRank(self, index, life_s)

    def begin(self) -> None:
        """Stand with the weights of the beginning."""
        self.version, self._lost, self.trained = 0, self.trained or self._lost, []

    def go_back(self, step: int) -> None:
        """Take the weights of a checkpoint."""
        self.version = step
        self.trained, self._lost = [one for one in self._lost if one[0] < step], []


class SimulatedRank(Mortal):
    """One rank, which takes its calls one after the other; a heartbeat is answered beside them."""

    def __init__(self, learner: SimulatedLearner, index: int, life_s: float) -> None:
        super().__init__(learner.world, index=index, start_s=0.0, life_s=life_s)
        self._learner = learner
        self._costs = learner.costs
        self._engines: list[SimulatedEngine] = []
        self._free_at = 0.0
        self._has_trainer = False

    @remote_method
    def rendezvous(self) -> Any:
        """Where the ranks meet."""
        return self._in_turn(0.0 if self._has_trainer else self._costs.process_s, ("simulated", 1), needs_trainer=False)

    @remote_method
    def build(self, address: str, port: int, seed: int) -> Any:
        """Load."""

        def finish(future: "asyncio.Future[Any]") -> None:
            self._has_trainer = True
            if self.index == 0:
                self._learner.begin()
            self.world.answer(future, self.index)

        return self._do_in_turn(self._costs.start_s, finish, needs_trainer=False)

    @remote_method
    def beat(self) -> Any:
        """Answer."""
        return self._answer_now(None)

    @remote_method
    def devices(self) -> Any:
        """Where it stands."""
        return self._in_turn(0.0, RankDevices(node_id="simulated", visible=str(self.index)))

    @remote_method
    def connect(self, engines: Sequence[SimulatedEngine], *settings: Any) -> Any:
        """Remember the engines."""
        self._engines = list(engines)
        return self._in_turn(self._costs.probe_s, None)

    @remote_method
    def fetch(self, payloads: Sequence[SimulatedGroup]) -> Any:
        """Nothing is gone."""
        self._learner.fetch_began_at = self.world.now
        return self._in_turn(self._costs.fetch_s, [])

    @remote_method
    def train_step(self, step: int, payloads: Sequence[SimulatedGroup]) -> Any:
        """Train on groups with a signal; rank 0 makes the next version when it is done."""
        self._learner.trained += [(step, group.group_id) for group in payloads]
        num_tokens = sum(group.num_tokens for group in payloads if group.has_signal)
        self._learner.step_began_at = max(self.world.now, self._free_at)

        def finish(future: "asyncio.Future[Any]") -> None:
            self._learner.step_ended_at = self.world.now
            if self.index == 0:
                self._learner.version = step + 1
            self.world.answer(future, StepReport(step=step, weight_version=step + 1))

        return self._do_in_turn(self._costs.step_s + self._costs.s_per_token * num_tokens, finish)

    @remote_method
    def send_weights(self, version: int) -> Any:
        """Rank 0 gives the weights to all engines at once; one that died breaks the transfer."""
        self._learner.send_began_at = self.world.now
        doublings = math.log2(max(1, len(self._engines)))

        def deliver(future: "asyncio.Future[Any]") -> None:
            gone = [engine.index for engine in self._engines if engine.died_at < math.inf]
            if gone:
                self.world.fail(future, ConnectionError(f"engine {gone[0]} left the broadcast"))
                return
            if self.index == 0:
                self._learner.sent_at = self.world.now
                for engine in self._engines:
                    engine.receive(version)
            self.world.answer(future, 0)

        return self._do_in_turn(self._costs.transfer_s + doublings * self._costs.transfer_s_per_doubling, deliver)

    @remote_method
    def sequence_logprobs(self, group: SimulatedGroup) -> Any:
        """The engine's."""
        return self._in_turn(self._costs.probe_s, [zero_logprobs()])

    @remote_method
    def weight_version(self) -> Any:
        """Of the weights when the calls before this one are through."""
        return self._do_in_turn(0.0, lambda future: self.world.answer(future, self._learner.version))

    @remote_method
    def weight_names(self) -> Any:
        """The one tensor."""
        return self._in_turn(0.0, list(fingerprint_of(0)))

    @remote_method
    def weight_fingerprints(self, names: list[str]) -> Any:
        """Of the current weights."""
        return self._in_turn(self._costs.probe_s, fingerprint_of(self._learner.version))

    @remote_method
    def load(self, store: FileStore, step: int) -> Any:
        """Go back to a checkpoint."""

        def finish(future: "asyncio.Future[Any]") -> None:
            if self.index == 0:
                self._learner.go_back(step)
            self.world.answer(future, None)

        return self._do_in_turn(self._costs.probe_s, finish)

    @remote_method
    def stage(self, step: int) -> Any:
        """Write nothing."""
        share = StagedShare(step=step, weight_version=step, num_ranks=1)
        return self._in_turn(self._costs.probe_s, share)

    @remote_method
    def upload(self, store: FileStore, step: int) -> Any:
        """Copy nothing."""
        return self._in_turn(self._costs.probe_s, ())

    @remote_method
    def export(self, folder: Path) -> Any:
        """Write nothing."""
        return self._in_turn(self._costs.probe_s, None)

    def _in_turn(self, seconds: float, value: Any, *, needs_trainer: bool = True) -> "asyncio.Future[Any]":
        return self._do_in_turn(seconds, lambda future: self.world.answer(future, value), needs_trainer=needs_trainer)

    def _do_in_turn(
        self, seconds: float, finish: Callable[["asyncio.Future[Any]"], None], *, needs_trainer: bool = True
    ) -> "asyncio.Future[Any]":
        """Work for some seconds once the calls before this one are through, then answer; unless it dies meanwhile."""
        future = self._call()

        def end() -> None:
            if self._open.pop(future, 0) is not None:
                return
            if needs_trainer and not self._has_trainer:
                self.world.fail(future, AttributeError("the actor has no trainer yet"))
            else:
                finish(future)

        if not future.done():
            self._free_at = max(self.world.now, self._free_at) + seconds
            self.world.at(self._free_at, end)
        return future
