"""EngineActor: one vLLM engine under Ray."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from learner.records import ScoredGroup
from orchestration.cluster.process import Placement
from orchestration.workers.actor_process import settle
from rollout.admission import Admission
from rollout.config import RolloutConfig
from rollout.records import Activity, EncodedPrompt, Fingerprint, RolloutGroup, Sample, SamplingSpec


@ray.remote
class EngineActor:
    """One vLLM engine."""

    def __init__(
        self,
        index: int,
        config: RolloutConfig,
        model_path: Path,
        placement: Placement,
        log_dir: Path,
        devices: str | None = None,
        loads_weights: bool = True,
    ) -> None:
        """Build the engine; vLLM is imported only after the process is settled."""
        settle(f"engine_{index}", placement, log_dir, devices)
        from rollout.engine import GenerationEngine

        self._engine = GenerationEngine(config, model_path, loads_weights=loads_weights)

    async def ready(self) -> int:
        """Return the process id once the engine stands."""
        await self._engine.beat()
        return os.getpid()

    @ray.method(num_returns=2)
    async def generate_group(
        self, group_id: str, sample: Sample, spec: SamplingSpec, admission: Admission | None = None
    ) -> tuple[RolloutGroup, float]:
        """Return the group, which stays in the object store, and its seconds, which tell the driver that it is done."""
        group = await self._engine.generate_group(group_id, sample, spec, admission)
        return group, group.seconds

    async def answer(self, group_id: str, sample: Sample, spec: SamplingSpec) -> RolloutGroup:
        """Return the group itself, for who asks this engine and no other."""
        return await self._engine.generate_group(group_id, sample, spec)

    async def encode(self, sample: Sample) -> EncodedPrompt:
        """Return a prompt as the engine's core would get it."""
        return await self._engine.encode(sample)

    async def give_up_slot(self, admission: Admission) -> None:
        """Admit a batch without one of its groups, which was lost before it came."""
        self._engine.give_up_slot(admission)

    async def beat(self) -> float:
        """Return for how many seconds the engine's core has been at one step; 0 once it has answered."""
        return await self._engine.beat()

    async def score_completion(self, group: ScoredGroup, sample: Sample, index: int) -> NDArray[np.float32]:
        """Logprobs [T] of one completion of a scored group under the live weights."""
        return await self._engine.score_completion(sample, group.sequences[index].completion_token_ids)

    async def pause(self) -> None:
        """Stop at a token boundary."""
        await self._engine.pause()

    async def resume(self) -> None:
        """Go on."""
        await self._engine.resume()

    async def sleep(self) -> Activity:
        """Stop, and leave the GPU to the learner."""
        return await self._engine.sleep()

    async def wake_weights(self) -> None:
        """Take back the memory of the weights."""
        await self._engine.wake_weights()

    async def wake_cache(self) -> Activity:
        """Take back the memory of an empty cache."""
        return await self._engine.wake_cache()

    async def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Meet the learner."""
        await self._engine.init_weight_transfer_engine(init_info)

    async def start_weight_update(self) -> None:
        """Open an update."""
        await self._engine.start_weight_update()

    async def update_weights(self, update_info: dict[str, Any]) -> None:
        """Receive tensors."""
        await self._engine.update_weights(update_info)

    async def finish_weight_update(self, weight_version: str) -> None:
        """Make received weights live."""
        await self._engine.finish_weight_update(weight_version)

    async def weight_layout(self, names: list[str]) -> dict[str, str]:
        """Checkpoint name -> the engine's own name."""
        return await self._engine.weight_layout(names)

    async def weight_names(self) -> list[str]:
        """The engine's own names of all its tensors."""
        return await self._engine.weight_names()

    async def weight_fingerprints(self, names: list[str]) -> dict[str, Fingerprint]:
        """Fingerprints of the engine's own tensors."""
        return await self._engine.weight_fingerprints(names)

    async def close(self) -> None:
        """End the engine's processes before the actor goes."""
        self._engine.close()
