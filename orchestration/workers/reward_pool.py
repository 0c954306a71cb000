"""RewardPool: groups in, scored groups out, whatever happens to the actors in between."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import ray
from ray.actor import ActorHandle

from orchestration.cluster.ray_errors import in_our_words
from orchestration.cluster.reservations import Seats
from orchestration.settings.cluster import FaultsConfig, RewardPoolConfig
from orchestration.settings.errors import InfrastructureError, RewardLostError, ScoringError
from orchestration.settings.experiment import ExperimentConfig
from orchestration.storage.faults import FaultLog, Role
from orchestration.workers.reward_actor import RewardActor
from orchestration.workers.tickets import GroupSummary

logger = logging.getLogger(__name__)

Start = Callable[[int], ActorHandle]
Stop = Callable[[ActorHandle], None]

TRIES = 2
"""A call is repeated once: what takes two actors with it is the group's own doing."""


class _Lane:
    """The actor of one index, whichever plays it now, and the calls that wait for it; it answers them in order.

    Consumes: calls. Produces: answers, or RewardLostError for the call that took the actor with it.
    Waits for: its turn, then the answer, `timeout_s` at most; beside that the actor's heartbeats.
    """

    def __init__(
        self, index: int, start: Start, stop: Stop, timeout_s: float, faults: FaultsConfig, log: FaultLog
    ) -> None:
        self.num_calls = 0
        self.is_standing = False
        self.watcher: asyncio.Task[None] | None = None
        self._index = index
        self._start = start
        self._stop = stop
        self._timeout_s = timeout_s
        self._faults = faults
        self._log = log
        self._turn = asyncio.Lock()
        self._is_replaced = asyncio.Event()
        self._handle = start(index)

    async def stand(self) -> int:
        """Wait until the actor answers; gives its process id."""
        with in_our_words(Role.REWARD, self._index):
            pid = int(await self._handle.ready.remote())
        self._is_replaced.clear()
        self.is_standing = True
        return pid

    async def call(self, group: ray.ObjectRef, keep_texts: bool) -> tuple[ray.ObjectRef, GroupSummary] | None:
        """Ask the actor; None if it went before this call's turn came, which is not this call's fault."""
        self.num_calls += 1
        try:
            return await self._ask(self._handle, group, keep_texts)
        finally:
            self.num_calls -= 1

    async def _ask(
        self, asked: ActorHandle, group: ray.ObjectRef, keep_texts: bool
    ) -> tuple[ray.ObjectRef, GroupSummary] | None:
        payload, summary = asked.score.remote(group, keep_texts)
        # The clock starts when the calls before this one are through: waiting in line is not hanging.
        async with self._turn:
            if asked is not self._handle:
                return None
            try:
                async with asyncio.timeout(self._timeout_s) as limit:
                    with in_our_words(Role.REWARD, self._index):
                        return payload, await summary
            except TimeoutError:
                if not limit.expired():
                    raise
                lost = RewardLostError(f"no answer within cluster.reward_pool.timeout_s={self._timeout_s:g}")
            except RewardLostError as error:
                lost = error
            self._replace(asked, str(lost))
        raise lost

    async def rise(self) -> None:
        """Wait until the actor stands, or another in its place if it dies on its way; there may be no room for long."""
        while not self.is_standing:
            risen = self._handle
            try:
                await self.stand()
            except RewardLostError as error:
                self._replace(risen, str(error))

    async def beat(self) -> None:
        """Ask the actor for heartbeats until it is replaced, by a call that missed it or for a missing heartbeat."""
        watched, limit_s = self._handle, self._faults.heartbeat_timeout_s
        try:
            while not await self._is_replaced_within(self._faults.heartbeat_s):
                async with asyncio.timeout(limit_s):
                    with in_our_words(Role.REWARD, self._index):
                        await watched.beat.remote()
        except TimeoutError:
            self._replace(watched, f"no heartbeat within cluster.faults.heartbeat_timeout_s={limit_s:g}")
        except RewardLostError as error:
            self._replace(watched, str(error))

    async def _is_replaced_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._is_replaced.wait()
        except TimeoutError:
            return False

    def _replace(self, lost: ActorHandle, cause: str) -> None:
        """Start another actor, unless someone else who missed this one already has."""
        if lost is not self._handle:
            return
        self._log.record(Role.REWARD, self._index, cause)
        logger.warning("reward actor %d is replaced: %s", self._index, cause)
        self._stop(lost)
        self.is_standing = False
        self._is_replaced.set()
        self._handle = self._start(self._index)

    def stop(self) -> None:
        """End the watch and the actor."""
        if self.watcher is not None:
            self.watcher.cancel()
        self._stop(self._handle)


class RewardPool:
    """All reward actors behind one call.

    A call goes to the actor with the fewest calls before it; more calls than the actors may hold wait here, so that
    a slow reward slows the rollout down instead of filling memory. An actor that dies or hangs, at work or idle, is
    replaced, and the call that it was at work on is repeated once, by another actor.
    """

    def __init__(
        self, start: Start, config: RewardPoolConfig, faults: FaultsConfig, log: FaultLog, *, stop: Stop = ray.kill
    ) -> None:
        """Start the actors; `ready` waits for them.

        Args:
            start: Makes the actor of an index, again after a death. Its `score(group, keep_texts)` gives two
                references: the scored group and its summary; `ready()` and `beat()` answer when it lives, `beat()`
                also while it scores.
            config: Number of actors, calls that one may hold, time limit of a call.
            faults: Period and limit of heartbeats, time in which an actor must stand.
            log: Counts the actors that are replaced.
            stop: Ends an actor at once.
        """
        self._faults = faults
        self._lanes = [_Lane(index, start, stop, config.timeout_s, faults, log) for index in range(config.num_actors)]
        self._places = asyncio.Semaphore(config.num_actors * config.calls_per_actor)
        self._changed = asyncio.Event()
        self._failure: BaseException | None = None

    async def ready(self) -> list[int]:
        """Wait until every actor stands, and watch them from now on; gives their process ids.

        Raises:
            InfrastructureError: they do not stand in time.
            RewardLostError: one died on its way.
        """
        try:
            async with asyncio.timeout(self._faults.start_timeout_s):
                pids = list(await asyncio.gather(*(lane.stand() for lane in self._lanes)))
        except TimeoutError as error:
            raise self._nobody_stands() from error
        for lane in self._lanes:
            lane.watcher = asyncio.create_task(self._watch(lane))
        return pids

    async def score(self, group: ray.ObjectRef, *, keep_texts: bool) -> tuple[ray.ObjectRef, GroupSummary]:
        """Score one group; gives a reference to the ScoredGroup and its summary.

        Raises:
            ScoringError: Two actors died or hung over this group.
            PayloadLostError: The group is gone, or its scores found no room; no actor is to blame.
            InfrastructureError: Too many actors were lost, or none stands any more.
        """
        causes: list[str] = []
        async with self._places:
            while len(causes) < TRIES:
                lane = await self._least_busy()
                try:
                    if (scored := await lane.call(group, keep_texts)) is not None:
                        return scored
                except RewardLostError as error:
                    causes.append(str(error))
        raise ScoringError(f"the group was lost by {TRIES} reward actors: {'; '.join(causes)}")

    def close(self) -> None:
        """End the watch and the actors."""
        for lane in self._lanes:
            lane.stop()

    async def _least_busy(self) -> _Lane:
        """The standing actor with the fewest calls; waits where none stands."""
        while True:
            if self._failure is not None:
                raise self._failure
            standing = [lane for lane in self._lanes if lane.is_standing]
            if standing:
                return min(standing, key=_num_calls)
            self._changed.clear()
            try:
                async with asyncio.timeout(self._faults.start_timeout_s):
                    await self._changed.wait()
            except TimeoutError as error:
                raise self._nobody_stands() from error

    async def _watch(self, lane: _Lane) -> None:
        """Watch one lane's actors, one after the other; what ends the watch ends the calls that wait for an actor."""
        try:
            while True:
                await lane.rise()
                self._changed.set()
                await lane.beat()
        except Exception as error:
            self._failure = error
            self._changed.set()

    def _nobody_stands(self) -> InfrastructureError:
        missing = [index for index, lane in enumerate(self._lanes) if not lane.is_standing]
        return InfrastructureError(
            f"reward actors {missing} do not stand after cluster.faults.start_timeout_s="
            f"{self._faults.start_timeout_s:g}; their logs say why; without a log the cluster has no free CPU"
        )


def _num_calls(lane: _Lane) -> int:
    return lane.num_calls


def start_reward_pool(
    config: ExperimentConfig, model_path: Path, seats: Seats, log_dir: Path, faults: FaultLog
) -> RewardPool:
    """Start the reward actors that have seats."""

    def start(index: int) -> ActorHandle:
        placement = seats.placements("reward")[index]
        told = index, config.reward, model_path, config.model.coord_mode, placement, log_dir
        return seats.start(RewardActor, "reward", index, *told)

    return RewardPool(start, config.cluster.reward_pool, config.cluster.faults, faults)
