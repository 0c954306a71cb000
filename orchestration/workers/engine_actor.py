"""EngineActor: one vLLM engine under Ray."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from learner.records import ScoredGroup
from orchestration.cluster.process import Placement, settle
from rollout.admission import Admission
from rollout.config import AdapterConfig, RolloutConfig
from rollout.records import RolloutGroup, Sample, SamplingSpec


def _of_engine(name: str) -> Callable[..., Any]:
    """Return an actor method that calls the engine's method of this name."""

    async def method(self: Any, *arguments: Any) -> Any:
        return await getattr(self._engine, name)(*arguments)

    return method


@ray.remote
class EngineActor:
    """One vLLM engine; what most methods do is documented in `rollout.engine.GenerationEngine`."""

    def __init__(
        self,
        index: int,
        config: RolloutConfig,
        model_path: Path,
        placement: Placement,
        log_dir: Path,
        devices: str | None = None,
        loads_weights: bool = True,
        adapter: AdapterConfig | None = None,
    ) -> None:
        """Build the engine; vLLM is imported only after the process is settled."""
        settle(f"engine_{index}", placement, log_dir, devices)
        from rollout.engine import GenerationEngine

        self._engine = GenerationEngine(config, model_path, loads_weights=loads_weights, adapter=adapter)

    async def ready(self) -> int:
        """Return the process id once the engine answers."""
        await self._engine.beat()
        return os.getpid()

    @ray.method(num_returns=2)
    async def generate_group(
        self, group_id: str, sample: Sample, spec: SamplingSpec, admission: Admission | None = None
    ) -> tuple[RolloutGroup, float]:
        """Return the group, which stays in the object store, and its seconds, which the driver receives."""
        group = await self._engine.generate_group(group_id, sample, spec, admission)
        return group, group.seconds

    async def give_up_slot(self, admission: Admission) -> None:
        self._engine.give_up_slot(admission)

    async def score_completion(self, group: ScoredGroup, sample: Sample, index: int) -> NDArray[np.float32]:
        """Return the logprobs [T] of one completion of a scored group under the live weights."""
        return await self._engine.score_completion(sample, group.sequences[index].completion_token_ids)

    async def close(self) -> None:
        self._engine.close()

    answer = _of_engine("generate_group")  # returns the group itself, to a caller that asks this engine and no other
    beat = _of_engine("beat")
    encode = _of_engine("encode")
    pause = _of_engine("pause")
    resume = _of_engine("resume")
    sleep = _of_engine("sleep")
    wake_weights = _of_engine("wake_weights")
    wake_cache = _of_engine("wake_cache")
    init_weight_transfer_engine = _of_engine("init_weight_transfer_engine")
    start_weight_update = _of_engine("start_weight_update")
    update_weights = _of_engine("update_weights")
    finish_weight_update = _of_engine("finish_weight_update")
    weight_layout = _of_engine("weight_layout")
    weight_names = _of_engine("weight_names")
    weight_fingerprints = _of_engine("weight_fingerprints")
