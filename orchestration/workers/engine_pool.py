"""GeneratorPool: all engines behind one call, whatever happens to the engines in between."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayError

from orchestration.cluster.ray_errors import in_our_words
from orchestration.cluster.reservations import Seats
from orchestration.settings.cluster import FaultsConfig
from orchestration.settings.errors import EngineLostError, PayloadLostError
from orchestration.storage.faults import FaultLog, Role
from orchestration.workers.dispatch import FULLNESS, Assignment, LengthEstimates, Seat
from orchestration.workers.engine_actor import GeneratorActor
from orchestration.workers.engine_keeper import Engine, EngineKeeper, Start, Stop
from orchestration.workers.gate import BuildGate
from orchestration.workers.places import Places
from rollout.config import RolloutConfig
from rollout.records import Sample, SamplingSpec

MAX_PROBED = 8
"""Engines compared with the learner after one publication."""

DevicesOf = Callable[[int], str]
Admit = Callable[["Engine"], Awaitable[None]]


class GeneratorPool:
    """All engines behind one call.

    Consumes: samples. Produces: references to groups. Waits for: an engine with room.
    Woken by: a group that ends, an engine that goes live. A lost engine's groups go to others, and a new one is built
    in its place, which takes groups once it has the current weights.
    """

    def __init__(
        self,
        start: Start,
        *,
        stop: Stop,
        config: RolloutConfig,
        faults: FaultsConfig,
        log: FaultLog,
    ) -> None:
        """Settle how engines are made; `ready` starts them.

        Args:
            start: Makes the actor of an index, again after a loss.
            stop: Ends an actor at once.
            config: How many engines there are, how many completions one decodes at once, and how many a group has.
            faults: Heartbeats and time limits.
            log: Counts engines lost.
        """
        self._keeper = EngineKeeper(
            start,
            stop=stop,
            num_engines=config.engines,
            max_engines=config.most_engines,
            faults=faults,
            log=log,
            owner=self,
        )
        self._admit: Admit | None = None
        self._places = Places(capacity=max(1, ceil(FULLNESS * config.engine.max_num_seqs / config.sampling.group_size)))
        self._num_probes = 0
        self.lengths = LengthEstimates(first_guess=config.sampling.max_completion_tokens / 2)
        self.num_repeated = 0
        """Groups begun again because their engine was lost."""
        self.num_by_elastic = 0
        """Groups sampled by engines beyond `rollout.engines`."""

    async def ready(self, admit: Admit | None = None) -> list[int]:
        """Start the engines, wait until they stand, and look after them from then on; gives their process ids.

        Further engines, up to `rollout.max_engines`, join whenever there is room for them.

        Args:
            admit: Gives an engine the current weights and then calls `go_live`, also one that is built later. Without
                it engines keep the weights that they load and go live at once.
        """
        self._admit = admit
        pids = await self._keeper.ready()
        if admit is None:
            self.go_live(self._keeper.engines)
        self._keeper.begin()
        return pids

    async def generate_group(
        self, group_id: str, sample: Sample, spec: SamplingSpec, *, urgency: int = 0, seat: Seat | None = None
    ) -> ray.ObjectRef:
        """Sample one group; the group itself stays where it was made.

        Args:
            group_id: Of the group.
            sample: Its prompt.
            spec: How its completions are sampled.
            urgency: Among waiting groups the lowest goes first.
            seat: The group's place in a batch; lost with its engine.

        Raises:
            RolloutError: the sample cannot be a prompt.
            PayloadLostError: the sample was lost on its way to the engine, or the group found no room behind it.
            InfrastructureError: more engines were lost than `cluster.faults` allows.
        """
        while True:
            self._keeper.check()
            tokens = self.lengths.expected_tokens(sample, spec.group_size)
            place = self._places.sit(seat, tokens) if seat is not None else None
            admission = seat.admission if seat is not None and place is not None else None
            seat = None
            if place is None:
                place = await self._places.take(tokens, urgency=urgency)
            engine = self._keeper.engines[place.engine]
            if not engine.is_live:  # lost since it was chosen
                self._places.give_back(place)
                continue
            handle = engine.handle
            try:
                with in_our_words(Role.ENGINE, engine.index):
                    group, seconds = self._ask(place, handle, group_id, sample, spec, admission)
                    await self._places.hold(place, asyncio.ensure_future(seconds))
                self.num_by_elastic += engine.is_elastic
                return group
            except EngineLostError as error:
                engine.lose(handle, str(error))
                self.num_repeated += 1
            except PayloadLostError:
                if admission is not None:  # it may have been lost before it took its seat; the others wait for it
                    handle.give_up_seat.remote(admission)
                raise

    def _ask(self, place: Assignment, handle: Any, *told: Any) -> tuple[ray.ObjectRef, ray.ObjectRef]:
        """Send a group to an engine; Ray raises here already where its images find no room in the object store."""
        try:
            group, seconds = handle.generate_group.remote(*told)
        except RayError:
            self._places.give_back(place)
            raise
        return group, seconds

    def seats(self, batch: str, samples: Mapping[int, Sample], group_size: int) -> dict[int, Seat]:
        """Share a batch of groups, by position, between the live engines."""
        expected = self.lengths.expected_tokens
        return self._places.seats(batch, {p: expected(sample, group_size) for p, sample in samples.items()})

    def standing(self) -> list[Engine]:
        """Engines that answer, live or still without the current weights."""
        return self._keeper.standing()

    @property
    def num_live(self) -> int:
        """Engines that take groups."""
        return len(self._places.engines)

    async def some_standing(self) -> list[Engine]:
        """Wait for at least one engine that answers.

        Raises:
            InfrastructureError: more engines were lost than `cluster.faults` allows.
        """
        return await self._keeper.some_standing()

    @property
    def gate(self) -> BuildGate:
        """Before which engines that were lost wait to be built."""
        return self._keeper.gate

    def is_any_live(self) -> bool:
        """Whether any engine takes groups."""
        return any(engine.is_live for engine in self._keeper.engines)

    async def on_those_left(self, method: str, *arguments: Any) -> list[Any]:
        """Call a method of every engine that answers; one that dies under the call is given up and gives nothing."""
        calls = [self._call(engine, method, *arguments) for engine in self.standing()]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, EngineLostError):
                raise answer
        return [answer for answer in answers if not isinstance(answer, BaseException)]

    async def find_lost(self, engines: Sequence[Engine]) -> int:
        """Ask engines for a heartbeat and give up those that do not answer; gives how many are lost in all."""
        return await self._keeper.find_lost(engines)

    def go_live(self, engines: Sequence[Engine]) -> None:
        """Let engines take groups; they have the current weights."""
        new = [engine for engine in engines if engine.is_standing and not engine.is_live]
        for engine in new:
            engine.is_live = True
        self._places.join(engine.index for engine in new)

    async def on_each(self, engines: Sequence[Engine], method: str, *arguments: Any) -> list[Any]:
        """Call a method of several engines; gives their answers in order.

        Raises:
            EngineLostError: one of them died under the call; it is given up.
        """
        calls = [self._call(engine, method, *arguments) for engine in engines]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers

    async def _call(self, engine: Engine, method: str, *arguments: Any) -> Any:
        if not engine.is_standing:
            # Its new actor has not what the old one was told before; asked for weights, it would give its first ones.
            raise EngineLostError(f"engine {engine.index} was lost meanwhile")
        handle = engine.handle
        try:
            with in_our_words(Role.ENGINE, engine.index):
                return await getattr(handle, method).remote(*arguments)
        except EngineLostError as error:
            engine.lose(handle, str(error))
            raise

    async def completion_logprobs(self, payload: ray.ObjectRef, sample: Sample) -> list[NDArray[np.float32]]:
        """Logprobs of the first completion of a scored group, as a few live engines compute them now, others each time.

        An engine that is lost meanwhile gives none.
        """
        everyone = [engine for engine in self._keeper.engines if engine.is_live]
        first = self._num_probes % max(1, len(everyone))
        live = (everyone[first:] + everyone[:first])[:MAX_PROBED]
        self._num_probes += MAX_PROBED
        calls = [self._call(engine, "score_completion", payload, sample, 0) for engine in live]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, EngineLostError):
                raise answer
        return [answer for answer in answers if not isinstance(answer, BaseException)]

    async def close(self) -> None:
        """End the engines' processes, then the actors."""
        await self._keeper.close()

    def engine_lost(self, engine: Engine) -> None:
        """See `Owner`."""
        self._places.leave(engine.index)

    async def engine_stands(self, engine: Engine) -> None:
        """See `Owner`."""
        if self._admit is None:
            self.go_live([engine])
        else:
            await self._admit(engine)

    def engines_failed(self, error: Exception) -> None:
        """See `Owner`."""
        self._places.fail(error)


def start_generators(
    config: RolloutConfig,
    model_path: Path,
    seats: Seats,
    log_dir: Path,
    *,
    faults: FaultsConfig,
    log: FaultLog,
    devices_of: DevicesOf | None = None,
    loads_weights: bool = True,
) -> GeneratorPool:
    """Make a pool of the engines that have seats, and of those that may come later.

    Args:
        config: Of the engines.
        model_path: Folder of their first weights.
        seats: Where they stand.
        log_dir: Where their log files are.
        faults: Heartbeats and time limits.
        log: Counts engines lost.
        devices_of: Colocated, the GPUs of the learner ranks that the engine of an index shares.
        loads_weights: False lets engines begin with weights of which none is the model's.
    """

    def start(index: int) -> Any:
        placement = seats.placements("engine")[index]
        devices = devices_of(index) if devices_of is not None and placement.borrows_gpus else None
        told = index, config, model_path, placement, log_dir, devices, loads_weights
        # A pause or a weight update must reach an engine that has every group of several steps in flight.
        return seats.start(GeneratorActor, "engine", index, *told, max_concurrency=10_000)

    return GeneratorPool(start, stop=ray.kill, config=config, faults=faults, log=log)
