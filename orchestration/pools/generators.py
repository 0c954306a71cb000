"""GeneratorPool: all engines behind one call; the least busy one gets the next group."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import ray
from numpy.typing import NDArray

from orchestration.actors import GeneratorActor
from orchestration.cluster import Placement
from rollout.config import RolloutConfig
from rollout.records import Sample, SamplingSpec


class GeneratorPool:
    """All engines behind one call."""

    def __init__(self, config: RolloutConfig, model_path: Path, placements: Sequence[Placement], log_dir: Path) -> None:
        """Start the engine actors; `ready` waits for them."""
        # A pause or a weight update must reach an engine that has every group of two steps in flight.
        concurrency = {"max_concurrency": 10_000}
        self.handles = [
            GeneratorActor.options(**placement.actor_options(), **concurrency).remote(
                i, config, model_path, placement, log_dir
            )
            for i, placement in enumerate(placements)
        ]
        self._busy = [0] * len(self.handles)

    async def ready(self) -> list[int]:
        """Wait until every engine stands; gives their process ids."""
        return list(await asyncio.gather(*(handle.ready.remote() for handle in self.handles)))

    async def generate_group(self, group_id: str, sample: Sample, spec: SamplingSpec) -> ray.ObjectRef:
        """Sample one group on the least busy engine; the group itself stays where it was made."""
        index = min(range(len(self.handles)), key=self._busy.__getitem__)
        self._busy[index] += 1
        try:
            group, seconds = self.handles[index].generate_group.remote(group_id, sample, spec)
            await seconds
        finally:
            self._busy[index] -= 1
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
