"""RewardPool: groups in, scored groups out, whatever happens to the actors in between."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError

from orchestration.actors import RewardActor
from orchestration.cluster import Placement
from orchestration.config import ExperimentConfig, RewardPoolConfig
from orchestration.errors import InfrastructureError, ScoringError
from orchestration.tickets import GroupSummary

logger = logging.getLogger(__name__)

Start = Callable[[int], ActorHandle]
Stop = Callable[[ActorHandle], None]

TRIES = 2
"""A call is repeated once: what takes two actors with it is the group's own doing."""

LOSSES_IN_A_ROW = 8
"""So many lost calls without one answer between them are no bad groups; the cluster is broken."""


class _LostCallError(Exception):
    """The actor died under a call, or did not answer in time."""


class _Lane:
    """One actor and the calls that wait for it; it answers them in order.

    Consumes: calls. Produces: answers, or _LostCallError for the call that took the actor with it.
    Waits for: its turn, then the answer, `timeout_s` at most.
    """

    def __init__(self, index: int, start: Start, stop: Stop, timeout_s: float) -> None:
        self.num_calls = 0
        self.num_restarts = 0
        self._index = index
        self._start = start
        self._stop = stop
        self._timeout_s = timeout_s
        self._turn = asyncio.Lock()
        self.handle = start(index)

    async def call(self, group: ray.ObjectRef, keep_texts: bool) -> tuple[ray.ObjectRef, GroupSummary]:
        self.num_calls += 1
        try:
            while (answer := await self._try(group, keep_texts)) is None:
                pass
            return answer
        finally:
            self.num_calls -= 1

    async def _try(self, group: ray.ObjectRef, keep_texts: bool) -> tuple[ray.ObjectRef, GroupSummary] | None:
        """Ask the actor; None if a call before this one took it away, which is not this call's fault."""
        asked = self.handle
        payload, summary = asked.score.remote(group, keep_texts)
        # The clock starts when the calls before this one are through: waiting in line is not hanging.
        async with self._turn:
            if asked is not self.handle:
                return None
            try:
                async with asyncio.timeout(self._timeout_s):
                    return payload, await summary
            except TimeoutError:
                cause = f"no answer within cluster.reward_pool.timeout_s={self._timeout_s:g}"
            except RayActorError as error:
                cause = f"the actor died: {str(error).strip().splitlines()[0]}"
            self._replace(cause)
        raise _LostCallError(cause)

    def _replace(self, cause: str) -> None:
        logger.warning("reward actor %d is replaced: %s", self._index, cause)
        self._stop(self.handle)
        self.handle = self._start(self._index)
        self.num_restarts += 1


class RewardPool:
    """All reward actors behind one call.

    A call goes to the actor with the fewest calls before it; more calls than the actors may hold wait here, so that
    a slow reward slows the rollout down instead of filling memory. An actor that dies or hangs is replaced and its
    call repeated once, elsewhere if elsewhere is less busy.
    """

    def __init__(self, start: Start, config: RewardPoolConfig, *, stop: Stop = ray.kill) -> None:
        """Start the actors; `ready` waits for them.

        Args:
            start: Makes the actor of an index, again after a death. Its `score(group, keep_texts)` gives two
                references: the scored group and its summary.
            config: Number of actors, calls that one may hold, time limit of a call.
            stop: Ends an actor at once.
        """
        self._stop = stop
        self._lanes = [_Lane(index, start, stop, config.timeout_s) for index in range(config.num_actors)]
        self._places = asyncio.Semaphore(config.num_actors * config.calls_per_actor)
        self._losses_in_a_row = 0

    @property
    def num_restarts(self) -> int:
        """Actors replaced so far."""
        return sum(lane.num_restarts for lane in self._lanes)

    async def ready(self) -> list[int]:
        """Wait until every actor stands; gives their process ids."""
        return list(await asyncio.gather(*(lane.handle.ready.remote() for lane in self._lanes)))

    async def score(self, group: ray.ObjectRef, *, keep_texts: bool) -> tuple[ray.ObjectRef, GroupSummary]:
        """Score one group; gives a reference to the ScoredGroup and its summary.

        Raises:
            ScoringError: Two actors died or hung over this group.
            InfrastructureError: No actor answers any more.
        """
        causes = []
        async with self._places:
            for _ in range(TRIES):
                lane = min(self._lanes, key=lambda lane: lane.num_calls)
                try:
                    scored = await lane.call(group, keep_texts)
                except _LostCallError as error:
                    causes.append(str(error))
                    self._count_loss(str(error))
                else:
                    self._losses_in_a_row = 0
                    return scored
        raise ScoringError(f"the group was lost by {TRIES} reward actors: {'; '.join(causes)}")

    def close(self) -> None:
        """End the actors."""
        for lane in self._lanes:
            self._stop(lane.handle)

    def _count_loss(self, cause: str) -> None:
        self._losses_in_a_row += 1
        if self._losses_in_a_row >= LOSSES_IN_A_ROW:
            raise InfrastructureError(
                f"reward actors lost {self._losses_in_a_row} calls in a row and answered none; the last: {cause}"
            )


def start_reward_pool(
    config: ExperimentConfig, model_path: Path, placements: Sequence[Placement], log_dir: Path
) -> RewardPool:
    """Start one reward actor a placement."""

    def start(index: int) -> ActorHandle:
        options = placements[index].actor_options()
        return RewardActor.options(**options).remote(
            index, config.reward, model_path, config.model.coord_mode, placements[index], log_dir
        )

    return RewardPool(start, config.cluster.reward_pool)
