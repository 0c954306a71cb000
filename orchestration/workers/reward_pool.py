"""RewardActor scores groups under Ray; RewardPool spreads groups over all of them and replaces those that are lost."""

import asyncio
import logging
import os
import time
from dataclasses import replace
from pathlib import Path

import ray
from ray.actor import ActorHandle

from learner.records import ScoredGroup
from orchestration.cluster.process import Placement, settle
from orchestration.cluster.reservations import Reservations
from orchestration.settings.cluster import FaultsConfig, RewardPoolConfig
from orchestration.settings.errors import InfrastructureError, RewardLostError, ScoringError
from orchestration.settings.experiment import ExperimentConfig
from orchestration.storage.faults import FaultLog, Role
from orchestration.workers.judge_pool import JudgePool, start_judge_pool, with_places
from orchestration.workers.supervised import Start, Stop, SupervisedActor
from orchestration.workers.tickets import GroupSummary, summarise, to_reward_requests, to_scored_group
from rewards.core.config import RewardConfig
from rewards.mixed import MixedReward
from rollout.placeholders import placeholder_tokens
from rollout.records import RolloutGroup

logger = logging.getLogger(__name__)

TRIES = 2
"""A call is repeated once: a group over which two actors are lost is taken to be the cause."""


@ray.remote(concurrency_groups={"health": 1})
class RewardActor:
    """Decodes the completions of a group and scores them as one batch, one group after the other."""

    def __init__(
        self,
        index: int,
        config: RewardConfig,
        model_path: Path,
        coord_mode: str,
        keep_parts: bool,
        normalises_parts: bool,
        placement: Placement,
        log_dir: Path,
    ) -> None:
        """Load tokenizer and functions and map the embedding table; neither torch nor transformers is imported.

        `keep_parts` gives the learner each part of a reward, not only the total; with `normalises_parts` summaries say
        whether parts differ.
        """
        settle(f"reward_{index}", placement, log_dir)
        from rewards.functions.tokenizer import CompletionDecoder

        self._config = config
        self._coord_mode = coord_mode
        self._decoder = CompletionDecoder(model_path, hidden=placeholder_tokens(model_path))
        self._keep_parts = keep_parts
        self._normalises_parts = normalises_parts
        self._reward = MixedReward.from_checkpoint(config, model_path)
        self._reward.start()

    def ready(self) -> int:
        return os.getpid()

    @ray.method(concurrency_group="health")
    def beat(self) -> None:
        """Answer on a thread of its own, so that a long score does not look like a dead process."""

    @ray.method(num_returns=2)
    def score(self, group: RolloutGroup, keep_texts: bool) -> tuple[ScoredGroup, GroupSummary]:
        """Return the scored group, which stays in the object store, and its summary."""
        started = time.perf_counter()
        completions = [generation.token_ids.tolist() for generation in group.generations]
        decoded = self._decoder.decode(completions)
        texts = [generation.without_stop(text) for generation, text in zip(group.generations, decoded, strict=True)]
        sample = group.sample
        route = self._config.route(sample.task, sample.source)
        with_images = self._reward.reads_images(sample.task, sample.source)
        requests = to_reward_requests(group, texts, coord_mode=self._coord_mode, with_images=with_images)
        results = self._reward.score(requests)
        summary = summarise(
            group,
            results,
            function=route.function,
            score_s=time.perf_counter() - started,
            texts=texts if keep_texts else (),
            parts=[part.function for part in route.parts] if route.is_sum else (),
            normalises_parts_of=route if self._normalises_parts else None,
        )
        summary = replace(summary, counts=tuple(self._reward.take_counts().items()))
        return to_scored_group(group, results, keep_parts_of=route if self._keep_parts else None), summary


class RewardLane(SupervisedActor):
    """One reward actor and the calls that wait for it; it answers them in order.

    Consumes: calls. Produces: answers, or RewardLostError for the call that an actor was working on when it was lost.
    Waits for: its turn, then the answer, `timeout_s` at most.
    """

    def __init__(
        self, index: int, start: Start, stop: Stop, faults: FaultsConfig, log: FaultLog, timeout_s: float
    ) -> None:
        super().__init__(Role.REWARD, index, start, stop, faults)
        self._log = log
        self.num_calls = 0
        self._timeout_s = timeout_s
        self._turn = asyncio.Lock()

    def lose(self, handle: ActorHandle, cause: str) -> bool:
        """See `SupervisedActor`; counts the loss.

        Raises:
            TooManyFaultsError: too many reward actors were lost within the window.
        """
        is_newly_lost = super().lose(handle, cause)
        if is_newly_lost:
            logger.warning("reward actor %d is replaced: %s", self.index, cause)
            self._log.record(Role.REWARD, self.index, cause)
        return is_newly_lost

    async def score(self, group: ray.ObjectRef, keep_texts: bool) -> tuple[ray.ObjectRef, GroupSummary] | None:
        """Score a group; returns None if the actor was lost before this call's turn, which is not this call's fault."""
        handle = self.handle
        self.num_calls += 1
        try:
            payload, summary = handle.score.remote(group, keep_texts)
            # The clock starts when the calls before this one have ended: waiting in line is not hanging.
            async with self._turn:
                if handle is not self.handle or not self.is_ready:
                    return None
                try:
                    async with asyncio.timeout(self._timeout_s) as limit:
                        return payload, await self.answer(summary)
                except TimeoutError:
                    if not limit.expired():
                        raise
                    lost = RewardLostError(f"no answer within cluster.reward_pool.timeout_s={self._timeout_s:g}")
                except RewardLostError as error:
                    lost = error
                self.lose(handle, str(lost))
            raise lost
        finally:
            self.num_calls -= 1


class RewardPool:
    """All reward actors behind one call.

    A call goes to the actor with the fewest calls before it; more calls than the actors may hold wait here, so that
    a slow reward slows the rollout down instead of filling memory. An actor that dies or hangs, busy or idle, is
    replaced, and the call that it was working on is repeated once, by another actor.
    """

    def __init__(
        self, start: Start, config: RewardPoolConfig, faults: FaultsConfig, log: FaultLog, *, stop: Stop = ray.kill,
        judges: JudgePool | None = None,
    ) -> None:  # fmt: skip
        """Start the actors; `ready` waits for them.

        Args:
            start: Makes the actor of an index, again after a death. Its `score(group, keep_texts)` returns two
                references: the scored group and its summary; `ready()` and `beat()` answer when it lives, `beat()`
                also while it scores.
            config: Number of actors, calls that one may hold, time limit of a call.
            faults: Period and limit of heartbeats, time in which an actor must answer first.
            log: Counts the actors that are replaced.
            stop: Ends an actor at once.
            judges: Servers that the actors ask; they start, and end, with the pool.
        """
        self._faults = faults
        self._judges = judges
        self._lanes = [
            RewardLane(index, start, stop, faults, log, config.timeout_s) for index in range(config.num_actors)
        ]
        self._supervision: list[asyncio.Task[None]] = []
        self._places = asyncio.Semaphore(config.num_actors * config.calls_per_actor)
        self._changed = asyncio.Event()
        self._failure: BaseException | None = None

    async def ready(self) -> list[int]:
        """Wait until every actor answers, and supervise them from then on; returns their process ids.

        Raises:
            InfrastructureError: they do not answer in time.
            RewardLostError: one died before it answered.
        """
        try:
            async with asyncio.timeout(self._faults.start_timeout_s):
                pids = list(await asyncio.gather(*(lane.ready() for lane in self._lanes)))
        except TimeoutError as error:
            raise self._none_is_ready() from error
        if self._judges is not None:
            await self._judges.ready()
        self._supervision = [asyncio.create_task(self._supervise(lane)) for lane in self._lanes]
        return pids

    async def score(self, group: ray.ObjectRef, *, keep_texts: bool) -> tuple[ray.ObjectRef, GroupSummary]:
        """Score one group; returns a reference to the ScoredGroup, and its summary.

        Raises:
            ScoringError: Two actors died or hung over this group.
            PayloadLostError: The group is gone, or its scores found no room; no actor is to blame.
            InfrastructureError: Too many actors were lost, or none is left.
        """
        causes: list[str] = []
        async with self._places:
            while len(causes) < TRIES:
                lane = await self._least_busy()
                try:
                    if (scored := await lane.score(group, keep_texts)) is not None:
                        return scored
                except RewardLostError as error:
                    causes.append(str(error))
        raise ScoringError(f"the group was lost by {TRIES} reward actors: {'; '.join(causes)}")

    def close(self) -> None:
        """End supervision, the actors, and the judges that they ask."""
        if self._judges is not None:
            self._judges.close()
        for task in self._supervision:
            task.cancel()
        for lane in self._lanes:
            lane.end()

    async def _least_busy(self) -> RewardLane:
        """Return the actor with the fewest calls; waits while none is ready."""
        while True:
            failure = self._failure or (self._judges.failure if self._judges is not None else None)
            if failure is not None:
                raise failure
            ready = [lane for lane in self._lanes if lane.is_ready]
            if ready:
                return min(ready, key=lambda lane: lane.num_calls)
            self._changed.clear()
            try:
                async with asyncio.timeout(self._faults.start_timeout_s):
                    await self._changed.wait()
            except TimeoutError as error:
                raise self._none_is_ready() from error

    async def _supervise(self, lane: RewardLane) -> None:
        """Replace the actor of a lane each time it is lost; what ends this ends the calls that wait for an actor."""
        try:
            while True:
                await lane.replace_when_lost(RewardLostError)
                self._changed.set()
        except Exception as error:
            self._failure = error
            self._changed.set()

    def _none_is_ready(self) -> InfrastructureError:
        missing = [index for index, lane in enumerate(self._lanes) if not lane.is_ready]
        return InfrastructureError(
            f"reward actors {missing} have not started within cluster.faults.start_timeout_s="
            f"{self._faults.start_timeout_s:g}; their logs say why; without a log the cluster has no free CPU"
        )


def largest_group(config: ExperimentConfig) -> int:
    """Return the most completions that a reward actor gets at once, in training or in an evaluation."""
    of_recipe = config.data.recipe.difficulty.num_completions if config.data.recipe is not None else 1
    asked = (config.evaluation.completions_per_sample, config.evaluate.num_completions, of_recipe)
    return max(config.rollout.sampling.largest_group, *asked)


def start_reward_pool(
    config: ExperimentConfig, model_path: Path, reservations: Reservations, log_dir: Path, faults: FaultLog
) -> RewardPool:
    """Start the reward actors that have reservations, and the judges that they ask.

    The time for one group grows by what judges may take: a judge that is slow or away is no reward actor that hangs.
    """
    reward = with_places(config, log_dir)

    def start(index: int) -> ActorHandle:
        placement = reservations.placements["reward"][index]
        by_parts = config.algorithm.normalise == "parts"
        keeps = by_parts or config.algorithm.advantage is not None
        arguments = index, reward, model_path, config.model.box_frame, keeps, by_parts, placement, log_dir
        return reservations.start(RewardActor, "reward", index, *arguments)

    pool, limits = config.cluster.reward_pool, config.cluster.faults
    pool = replace(pool, timeout_s=pool.timeout_s + reward.seconds_of_own(largest_group(config)))
    judges = start_judge_pool(config, reservations, log_dir, faults)
    return RewardPool(start, pool, limits, faults, judges=judges)
