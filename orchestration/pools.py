"""Awaitable clients of the actors: generators, rewards, learner ranks. Decisions live here, work in the actors."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.actor import ActorHandle

from learner.batching import partition_groups
from learner.config import LearnerConfig
from learner.records import StepReport
from orchestration.actors import GeneratorActor, LearnerActor, RewardActor
from orchestration.buffer import GroupSummary, GroupTicket
from orchestration.cluster import Placement
from rewards.mixed import RewardConfig
from rollout.config import RolloutConfig
from rollout.records import Sample, SamplingSpec


@dataclass(slots=True)
class _Pool:
    """Actors with a count of what each is busy with; the least busy one gets the next call."""

    actors: list[ActorHandle]
    busy: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.busy = [0] * len(self.actors)

    def take(self) -> int:
        index = min(range(len(self.actors)), key=self.busy.__getitem__)
        self.busy[index] += 1
        return index

    def give_back(self, index: int) -> None:
        self.busy[index] -= 1


def _options(placement: Placement, **extra: Any) -> dict[str, Any]:
    return {
        "num_cpus": 1,
        "num_gpus": placement.num_gpus,
        "runtime_env": {"env_vars": placement.environment()},
        **extra,
    }


class GeneratorPool:
    """All engines behind one call."""

    def __init__(self, config: RolloutConfig, model_path: Path, placements: Sequence[Placement], log_dir: Path) -> None:
        """Start the engine actors; `ready` waits for them."""
        # A pause or a weight update must reach an engine that has every group of two steps in flight.
        concurrency = {"max_concurrency": 10_000}
        self.handles = [
            GeneratorActor.options(**_options(placement, **concurrency)).remote(
                i, config, model_path, placement, log_dir
            )
            for i, placement in enumerate(placements)
        ]
        self._pool = _Pool(self.handles)

    async def ready(self) -> list[int]:
        """Wait until every engine stands; gives their process ids."""
        return list(await asyncio.gather(*(handle.ready.remote() for handle in self.handles)))

    async def generate_group(self, group_id: str, sample: Sample, spec: SamplingSpec) -> ray.ObjectRef:
        """Sample one group on the least busy engine; the group itself stays where it was made."""
        index = self._pool.take()
        try:
            group, seconds = self.handles[index].generate_group.remote(group_id, sample, spec)
            await seconds
        finally:
            self._pool.give_back(index)
        return group

    async def pause(self) -> None:
        """Stop all engines at a token boundary."""
        await asyncio.gather(*(handle.pause.remote() for handle in self.handles))

    async def resume(self) -> None:
        """Let all engines go on."""
        await asyncio.gather(*(handle.resume.remote() for handle in self.handles))

    async def completion_logprobs(self, payload: ray.ObjectRef, sample: Sample) -> list[NDArray[np.float32]]:
        """Logprobs of the first completion of a scored group, as each engine computes them now."""
        return list(await asyncio.gather(*(h.score_completion.remote(payload, sample, 0) for h in self.handles)))

    async def weight_layout(self, names: list[str]) -> dict[str, str]:
        """Checkpoint name -> the engines' name, for tensors that can be read back."""
        return dict(await self.handles[0].weight_layout.remote(names))

    async def weight_fingerprints(self, names: list[str]) -> list[dict[str, tuple[int, float, float]]]:
        """Fingerprints from every engine."""
        return list(await asyncio.gather(*(handle.weight_fingerprints.remote(names) for handle in self.handles)))

    async def close(self) -> None:
        """End the engines' processes, then the actors."""
        await asyncio.gather(*(handle.close.remote() for handle in self.handles), return_exceptions=True)
        for handle in self.handles:
            ray.kill(handle)


class RewardPool:
    """All reward actors behind one call."""

    def __init__(
        self,
        config: RewardConfig,
        model_path: Path,
        coord_mode: str,
        placements: Sequence[Placement],
        log_dir: Path,
    ) -> None:
        """Start the reward actors."""
        restarts = {"max_restarts": -1, "max_task_retries": 1}
        self.handles = [
            RewardActor.options(**_options(placement, **restarts)).remote(
                i, config, model_path, coord_mode, placement, log_dir
            )
            for i, placement in enumerate(placements)
        ]
        self._pool = _Pool(self.handles)

    async def ready(self) -> list[int]:
        """Wait until every actor stands; gives their process ids."""
        return list(await asyncio.gather(*(handle.ready.remote() for handle in self.handles)))

    async def score(self, group: ray.ObjectRef, *, keep_texts: bool) -> tuple[ray.ObjectRef, GroupSummary]:
        """Score one group on the least busy actor; gives a reference to the ScoredGroup and its summary."""
        index = self._pool.take()
        try:
            payload, summary = self.handles[index].score.remote(group, keep_texts)
            return payload, await summary
        finally:
            self._pool.give_back(index)


class LearnerGroup:
    """All learner ranks as one trainer; every call enters every rank."""

    def __init__(self, config: LearnerConfig, placements: Sequence[Placement], log_dir: Path) -> None:
        """Start one actor a rank; `build` loads the model."""
        self._config = config
        self.handles = [
            LearnerActor.options(**_options(placement)).remote(rank, config, placement, log_dir)
            for rank, placement in enumerate(placements)
        ]

    async def _all(self, method: str, *arguments: Any) -> list[Any]:
        return list(await asyncio.gather(*(getattr(handle, method).remote(*arguments) for handle in self.handles)))

    async def build(self, seed: int) -> list[int]:
        """Let the ranks meet and load the policy; gives their process ids."""
        address, port = await self.handles[0].rendezvous.remote()
        return await self._all("build", address, port, seed)

    async def connect(self, generators: GeneratorPool, config: RolloutConfig) -> None:
        """Open the weight channel to all engines."""
        address, port = await self.handles[0].rendezvous.remote()
        workers = config.engine.tensor_parallel_size
        await self._all(
            "connect", generators.handles, config.weight_channel, config.engine.dtype, workers, address, port
        )

    async def load(self, folder: Path) -> None:
        """Restore a checkpoint on every rank."""
        await self._all("load", folder)

    async def save(self, folder: Path, *, step: int, extra: dict[str, Any], keep_last: int) -> Path:
        """Write one checkpoint; gives its folder."""
        return Path((await self._all("save", folder, step, extra, keep_last))[0])

    async def export(self, folder: Path) -> None:
        """Write a Hugging Face folder."""
        await self._all("export", folder)

    async def train_step(self, step: int, tickets: Sequence[GroupTicket]) -> StepReport:
        """Share the step's groups between the ranks by tokens and take one optimiser step."""
        lengths = [t.summary.num_prompt_tokens + t.summary.num_completion_tokens for t in tickets]
        shares = partition_groups(lengths, len(self.handles))
        reports = await asyncio.gather(
            *(
                handle.train_step.remote(step, [tickets[i].payload for i in share])
                for handle, share in zip(self.handles, shares, strict=True)
            )
        )
        return reports[0]

    async def send_weights(self, version: int) -> None:
        """Stream the weights to the engines."""
        await self._all("send_weights", version)

    async def completion_logprobs(self, payload: ray.ObjectRef) -> NDArray[np.float32]:
        """Logprobs of the first completion of a scored group under the current weights."""
        return (await self._all("sequence_logprobs", payload))[0][0]

    async def weight_names(self) -> list[str]:
        """Names of all tensors that travel to the engines."""
        return list(await self.handles[0].weight_names.remote())

    async def weight_fingerprints(self, names: list[str]) -> dict[str, tuple[int, float, float]]:
        """Fingerprints of the learner's tensors as they travel."""
        return (await self._all("weight_fingerprints", names))[0]
