"""LearnerGroup: all learner ranks as one trainer; every call enters every rank."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from learner.batching import partition_groups
from learner.checkpoint import StagedShare
from learner.config import LearnerConfig
from learner.records import StepReport
from learner.store import FileEntry, FileStore
from orchestration.actors import LearnerActor
from orchestration.buffer import GroupTicket
from orchestration.cluster import Placement
from orchestration.config import ExperimentConfig
from orchestration.pools.generators import GeneratorPool
from rollout.config import RolloutConfig


class LearnerGroup:
    """All learner ranks as one trainer; every call enters every rank."""

    def __init__(
        self, config: LearnerConfig, placements: Sequence[Placement], log_dir: Path, staging_dir: Path | None
    ) -> None:
        """Start one actor a rank; `build` loads the model."""
        self._config = config
        self.handles = [
            LearnerActor.options(**placement.actor_options()).remote(rank, config, placement, log_dir, staging_dir)
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

    async def load(self, store: FileStore, step: int) -> None:
        """Restore a checkpoint on every rank."""
        await self._all("load", store, step)

    async def stage(self, step: int) -> StagedShare:
        """Write the state of every rank to its local disk; training waits for this alone."""
        share: StagedShare = (await self._all("stage", step))[0]
        return share

    async def upload(self, store: FileStore, step: int) -> list[FileEntry]:
        """Copy what every rank has staged into the checkpoint directory, beside training; gives all files.

        Ends when every rank has ended, so that no rank still copies when the next checkpoint is staged.
        """
        calls = [handle.upload.remote(store, step) for handle in self.handles]
        shares = await asyncio.gather(*calls, return_exceptions=True)
        for share in shares:
            if isinstance(share, BaseException):
                raise share
        return [entry for share in shares for entry in share]

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


def start_learner(
    config: ExperimentConfig, model_path: Path, placements: Sequence[Placement], log_dir: Path
) -> LearnerGroup:
    """Start one learner actor a placement, told which model and which algorithm."""
    told = replace(config.learner, model_path=str(model_path), algorithm=config.algorithm)
    staging_dir = config.training.staging_dir
    return LearnerGroup(told, placements, log_dir, Path(staging_dir) if staging_dir else None)
