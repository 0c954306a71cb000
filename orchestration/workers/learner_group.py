"""LearnerGroup: all learner ranks as one trainer; every call enters every rank, and losing one loses all."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayError

from learner.batching import partition_groups
from learner.checkpoint import StagedShare
from learner.config import AlgorithmConfig, LearnerConfig
from learner.errors import LearnerError
from learner.records import StepReport
from learner.store import FileEntry, FileStore
from orchestration.cluster.layout import RankDevices
from orchestration.cluster.ray_errors import translate
from orchestration.cluster.reservations import Reservations
from orchestration.settings.cluster import FaultsConfig
from orchestration.settings.errors import LearnerLostError, PayloadLostError, TransferBrokenError
from orchestration.settings.experiment import ExperimentConfig
from orchestration.storage.faults import Role
from orchestration.workers.learner_actor import LearnerActor
from orchestration.workers.supervised import Start, Stop, SupervisedActor
from orchestration.workers.tickets import GroupTicket
from rollout.config import RolloutConfig
from rollout.records import Fingerprint

T = TypeVar("T")


class LearnerGroup:
    """All learner ranks as one trainer; every call enters every rank.

    A rank that dies, or does not answer its heartbeat, makes every call raise LearnerLostError until the next `build`
    has ended: the others wait in a collective that never ends.
    """

    def __init__(self, start: Start, *, stop: Stop, num_ranks: int, faults: FaultsConfig) -> None:
        """Store how ranks are made; `build` starts them."""
        self._start = start
        self._stop = stop
        self._num_ranks = num_ranks
        self._faults = faults
        self._lost: asyncio.Future[LearnerLostError] | None = None
        self._supervision: list[asyncio.Task[None]] = []
        self._actors: list[SupervisedActor] = []
        self.devices: list[RankDevices] = []
        """Node and GPUs of each rank, once `locate` was called."""

    async def build(self, seed: int) -> list[int]:
        """Start the ranks, have them join and load the policy; returns their process ids."""
        self._lost = asyncio.get_running_loop().create_future()
        self._actors = [
            SupervisedActor(Role.LEARNER, rank, self._start, self._stop, self._faults)
            for rank in range(self._num_ranks)
        ]
        address, port = await self._guarded(self.handles[0].rendezvous.remote(), self._faults.start_timeout_s)
        calls = [handle.build.remote(address, port, seed) for handle in self.handles]
        pids = await self._gather(calls, self._faults.start_timeout_s)
        self._supervision = [asyncio.create_task(self._watch(actor)) for actor in self._actors]
        return pids

    async def close(self) -> None:
        for task in self._supervision:
            task.cancel()
        await asyncio.gather(*self._supervision, return_exceptions=True)
        self._supervision = []
        for actor in self._actors:
            actor.end()
        self._actors = []

    @property
    def handles(self) -> list[Any]:
        """The Ray actors by rank."""
        return [actor.handle for actor in self._actors]

    async def or_learner_lost(self, others: Awaitable[T]) -> T:
        """Wait for something that others do.

        Raises:
            LearnerLostError: a rank is gone; without this the others might wait for the learner for ever.
        """
        assert self._lost is not None
        waiting = asyncio.ensure_future(others)
        try:
            either: tuple[asyncio.Future[Any], ...] = (waiting, self._lost)
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if self._lost.done():
                raise self._lost.result()
            return waiting.result()
        finally:
            waiting.cancel()

    async def locate(self) -> None:
        """Fetch the node and the GPUs of every rank."""
        self.devices = await self.on_each("devices")

    async def connect(self, engines: Sequence[Any], config: RolloutConfig) -> None:
        """Open the weight channel to these engines, in place of the one before.

        Raises:
            TransferBrokenError: an engine did not come.
        """
        address, port = await self._guarded(self._ranks[0].rendezvous.remote(), self._faults.call_timeout_s)
        workers = config.engine.tensor_parallel_size
        await self._transfer(
            "connect", list(engines), config.weight_channel, config.engine.dtype, workers, address, port
        )

    async def send_weights(self, version: int) -> int:
        """Stream the weights to the engines; returns their bytes.

        Raises:
            TransferBrokenError: an engine went away before it had all.
        """
        return int((await self._transfer("send_weights", version))[0])

    async def stage(self, step: int) -> StagedShare:
        """Write the state of every rank to its local disk; training waits for this alone."""
        share: StagedShare = (await self.on_each("stage", step))[0]
        return share

    async def upload(self, store: FileStore, step: int) -> list[FileEntry]:
        """Copy what every rank has staged into the checkpoint directory, beside training; returns all files.

        Ends when every rank has ended, so that no rank still copies when the next checkpoint is staged.
        """
        calls = [
            actor.answer(handle.upload.remote(store, step))
            for actor, handle in zip(self._actors, self._ranks, strict=True)
        ]
        entries: list[FileEntry] = []
        for share in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(share, BaseException):
                raise share
            entries.extend(share)
        return entries

    async def missing(self, tickets: Sequence[GroupTicket]) -> list[int]:
        """Fetch the payloads of a step to their ranks; returns the positions whose payload is gone."""
        shares = self._shares(tickets)
        found = await self._gather(
            [
                handle.fetch.remote([tickets[i].payload for i in share])
                for handle, share in zip(self._ranks, shares, strict=True)
            ],
            self._faults.call_timeout_s,
        )
        return [tickets[share[k]].position for share, lost in zip(shares, found, strict=True) for k in lost]

    async def train_step(self, step: int, tickets: Sequence[GroupTicket]) -> StepReport:
        """Share the step's groups between the ranks by tokens and take one optimiser step.

        Raises:
            LearnerLostError: a rank is gone, or one lost a payload and left the others alone in the step.
        """
        calls = [
            handle.train_step.remote(step, [tickets[i].payload for i in share])
            for handle, share in zip(self._ranks, self._shares(tickets), strict=True)
        ]
        report: StepReport = (await self._together(calls))[0]
        return report

    async def completion_logprobs(self, payload: ray.ObjectRef) -> NDArray[np.float32]:
        """Return the logprobs of the first completion of a scored group under the current weights.

        Raises:
            LearnerLostError: as `train_step`.
        """
        calls = [handle.sequence_logprobs.remote(payload) for handle in self._ranks]
        first: list[NDArray[np.float32]] = (await self._together(calls))[0]
        return first[0]

    async def _together(self, calls: Sequence[Any]) -> list[Any]:
        """Wait for a collective; a rank that cannot fetch what it needs leaves the others in it."""
        try:
            return await self._gather(calls, self._faults.call_timeout_s)
        except PayloadLostError as error:
            raise self._lose(str(error)) from error

    async def weight_version(self) -> int:
        """Return the version of the weights that a transfer would send now; a step that is being taken counts."""
        return int((await self.on_each("weight_version"))[0])

    async def weight_names(self) -> list[str]:
        """Return the names of all tensors that are sent to the engines."""
        return list(await self._guarded(self._ranks[0].weight_names.remote(), self._faults.call_timeout_s))

    async def weight_fingerprints(self, names: list[str]) -> dict[str, Fingerprint]:
        """Return the fingerprints of the learner's tensors in the type in which they are sent."""
        prints: dict[str, Fingerprint] = (await self.on_each("weight_fingerprints", names))[0]
        return prints

    async def on_each(self, method: str, *arguments: Any) -> list[Any]:
        """Call a method of every rank and return their answers by rank.

        Raises:
            LearnerLostError: a rank is gone.
        """
        calls = [getattr(handle, method).remote(*arguments) for handle in self._ranks]
        return await self._gather(calls, self._faults.call_timeout_s)

    def _shares(self, tickets: Sequence[GroupTicket]) -> list[list[int]]:
        lengths = [t.summary.num_prompt_tokens + t.summary.num_completion_tokens for t in tickets]
        return partition_groups(lengths, self._num_ranks)

    async def _transfer(self, method: str, *arguments: Any) -> list[Any]:
        try:
            return await self.on_each(method, *arguments)
        except (LearnerLostError, LearnerError):
            raise
        except Exception as error:
            raise TransferBrokenError(f"{method}: {error}") from error

    @property
    def _ranks(self) -> list[Any]:
        """Return the ranks, once all have built their part of the policy."""
        if not self._supervision:
            raise LearnerLostError("the learner is being built again")
        return self.handles

    async def _gather(self, calls: Sequence[Any], timeout_s: float) -> list[Any]:
        return list(await self._guarded(asyncio.gather(*calls), timeout_s))

    async def _guarded(self, call: Any, timeout_s: float) -> Any:
        """Wait for an answer, for news that a rank is lost, or for the time limit."""
        assert self._lost is not None
        answer = asyncio.ensure_future(call)
        answer.add_done_callback(_retrieve_exception)
        try:
            done, _ = await asyncio.wait([answer, self._lost], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            answer.cancel()
            raise
        if answer in done and answer.exception() is None:
            return answer.result()
        answer.cancel()
        if self._lost.done():
            raise self._lost.result()
        if answer not in done:
            raise self._lose(f"no answer within {timeout_s:g} s (cluster.faults.call_timeout_s)")
        error = answer.exception()
        assert error is not None
        found = translate(error, Role.LEARNER, 0) if isinstance(error, RayError) else error
        # A rank that dies breaks the others' collectives; their errors may come before the news of its death.
        causes = [str(found)] if isinstance(found, LearnerLostError) else []
        causes += filter(None, await asyncio.gather(*(self._cause(actor) for actor in self._actors)))
        raise (self._lose(causes[0]) if causes else found) from error

    async def _watch(self, actor: SupervisedActor) -> None:
        self._lose(f"rank {actor.index}: {await actor.watch()}")

    async def _cause(self, actor: SupervisedActor) -> str | None:
        cause = await actor.heartbeat()
        return None if cause is None else f"rank {actor.index}: {cause}"

    def _lose(self, cause: str) -> LearnerLostError:
        assert self._lost is not None
        error = LearnerLostError(f"the learner is lost: {cause}")
        if not self._lost.done():
            self._lost.set_result(error)
        return self._lost.result()


def _retrieve_exception(answer: "asyncio.Future[Any]") -> None:
    """Retrieve the exception of a call that nothing awaits any more, so that asyncio does not log it."""
    if not answer.cancelled():
        answer.exception()


def algorithm_of(config: ExperimentConfig) -> AlgorithmConfig:
    """Return the algorithm with the temperatures and lengths at which single tasks are sampled."""
    tasks = config.rollout.sampling.tasks
    lengths = {name: own.max_completion_tokens for name, own in tasks.items()}
    temperatures = {name: own.temperature for name, own in tasks.items()}
    return replace(
        config.algorithm,
        task_temperatures={name: value for name, value in temperatures.items() if value is not None},
        task_max_completion_tokens={name: value for name, value in lengths.items() if value is not None},
    )


def start_learner(
    config: ExperimentConfig,
    model_path: Path,
    reservations: Reservations,
    log_dir: Path,
    *,
    random_weights: bool = False,
) -> LearnerGroup:
    """Make a group of the learner ranks that have reservations.

    With `random_weights` ranks draw the weights instead of reading them from the folder.
    """
    own_config: LearnerConfig = replace(
        config.learner, model_path=str(model_path), algorithm=algorithm_of(config), family=config.model.own_family
    )
    staging_dir = Path(config.training.staging_dir) if config.training.staging_dir else None

    def start(rank: int) -> Any:
        placement = reservations.placements["learner"][rank]
        return reservations.start(
            LearnerActor, "learner", rank, rank, own_config, placement, log_dir, staging_dir, random_weights
        )

    return LearnerGroup(start, stop=ray.kill, num_ranks=config.learner.num_ranks, faults=config.cluster.faults)
