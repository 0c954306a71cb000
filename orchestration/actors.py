"""Thin Ray classes around engine, reward and trainer: each settles its process, then forwards calls."""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import ObjectLostError

from learner.checkpoint import StagedShare
from learner.config import LearnerConfig
from learner.records import ScoredGroup, StepReport
from learner.store import FileEntry, FileStore
from orchestration.handoff import summarise, to_reward_requests, to_scored_group
from orchestration.placement.colocated import RankDevices
from orchestration.placement.network import interface_of
from orchestration.placement.process import Placement
from orchestration.tickets import GroupSummary
from rewards.config import RewardConfig
from rewards.mixed import MixedReward
from rollout.admission import Admission
from rollout.config import RolloutConfig, WeightChannelConfig
from rollout.records import Activity, RolloutGroup, Sample, SamplingSpec

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from learner.weight_sender import WeightSender


def settle(role: str, placement: Placement, log_dir: Path, devices: str | None = None) -> None:
    """Give the process its cores and variables, and send all it prints, its children included, to its own log file.

    Comes before torch, NCCL and vLLM are imported, which read the variables then or later.

    Args:
        role: of the process, for the file's name.
        placement: what it runs on.
        log_dir: where log files are.
        devices: GPUs that it shall see although Ray reserved others, or none, for it.
    """
    os.environ.update(placement.variables)
    if (interface := interface_of(ray.util.get_node_ip_address())) is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    if placement.cores:
        os.sched_setaffinity(0, placement.cores)
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices
    log = os.open(log_dir / f"{role}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(log, stream.fileno())
    os.close(log)


@ray.remote
class GeneratorActor:
    """One vLLM engine."""

    def __init__(
        self,
        index: int,
        config: RolloutConfig,
        model_path: Path,
        placement: Placement,
        log_dir: Path,
        devices: str | None = None,
    ) -> None:
        """Build the engine; vLLM is imported only after the process is settled."""
        settle(f"engine_{index}", placement, log_dir, devices)
        from rollout.engine import GenerationEngine

        self._engine = GenerationEngine(config, model_path)

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

    async def beat(self) -> None:
        """Return once the engine's core process has answered."""
        await self._engine.beat()

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

    async def weight_fingerprints(self, names: list[str]) -> dict[str, tuple[int, float, float]]:
        """Fingerprints of the engine's own tensors."""
        return await self._engine.weight_fingerprints(names)

    async def close(self) -> None:
        """End the engine's processes before the actor goes."""
        self._engine.close()


@ray.remote(concurrency_groups={"health": 1})
class RewardActor:
    """Decodes the completions of a group and scores them as one batch, one group after the other."""

    def __init__(
        self, index: int, config: RewardConfig, model_path: Path, coord_mode: str, placement: Placement, log_dir: Path
    ) -> None:
        """Load the tokenizer and map the embedding table; neither torch nor transformers is imported."""
        settle(f"reward_{index}", placement, log_dir)
        from rewards.tokenizer import load_tokenizer

        self._config = config
        self._coord_mode = coord_mode
        self._tokenizer = load_tokenizer(model_path)
        self._reward = MixedReward.from_checkpoint(config, model_path)

    def ready(self) -> int:
        """Return the process id."""
        return os.getpid()

    @ray.method(concurrency_group="health")
    def beat(self) -> None:
        """Answer on a thread of its own, so that a long score does not look like a dead process."""

    @ray.method(num_returns=2)
    def score(self, group: RolloutGroup, keep_texts: bool) -> tuple[ScoredGroup, GroupSummary]:
        """Return the scored group, which stays in the object store, and its summary."""
        started = time.perf_counter()
        completions = [generation.token_ids.tolist() for generation in group.generations]
        texts = self._tokenizer.decode_batch(completions, skip_special_tokens=True)
        results = self._reward.score(to_reward_requests(group, texts, coord_mode=self._coord_mode))
        family = self._config.route(group.sample.task, group.sample.source).function
        seconds = time.perf_counter() - started
        summary = summarise(group, results, family=family, score_s=seconds, texts=texts if keep_texts else ())
        return to_scored_group(group, results), summary


@ray.remote(concurrency_groups={"io": 1, "health": 1})
class LearnerActor:
    """One rank of the learner. Methods of a concurrency group run in a thread beside the others."""

    def __init__(
        self, rank: int, config: LearnerConfig, placement: Placement, log_dir: Path, staging_dir: Path | None
    ) -> None:
        """Settle the process; the model is loaded in `build`, when all ranks are there."""
        settle(f"learner_{rank}", placement, log_dir)
        self._rank = rank
        self._config = config
        self._staging_dir = staging_dir
        self._sender: WeightSender | None = None

    @ray.method(concurrency_group="health")
    def beat(self) -> None:
        """Answer, whatever the rank is at."""

    def rendezvous(self) -> tuple[str, int]:
        """Give an address and a free port where the ranks can meet."""
        import socket

        address = ray.util.get_node_ip_address()
        with socket.socket() as probe:
            probe.bind((address, 0))
            return address, probe.getsockname()[1]

    def build(self, address: str, port: int, seed: int) -> int:
        """Join the other ranks and load the policy; returns the process id."""
        from learner.trainer import PolicyTrainer

        self._trainer = PolicyTrainer(
            self._config,
            rank=self._rank,
            world_size=self._config.num_ranks,
            master_address=address,
            master_port=port,
            seed=seed,
            staging_dir=self._staging_dir,
        )
        return os.getpid()

    def devices(self) -> RankDevices:
        """Where the rank stands."""
        return RankDevices(
            node_id=ray.get_runtime_context().get_node_id(), visible=os.environ.get("CUDA_VISIBLE_DEVICES", "")
        )

    def offload(self) -> int:
        """Leave the GPU; gives the bytes freed."""
        return self._trainer.offload()

    def onload(self) -> None:
        """Come back onto the GPU."""
        self._trainer.onload()

    def load(self, store: FileStore, step: int) -> None:
        """Restore weights, optimiser, schedule and random states."""
        self._trainer.load(store, step=step)

    def stage(self, step: int) -> StagedShare:
        """Write this rank's part of a checkpoint to local disk, together with the other ranks."""
        return self._trainer.stage(step=step)

    @ray.method(concurrency_group="io")
    def upload(self, store: FileStore, step: int) -> tuple[FileEntry, ...]:
        """Copy what was staged into the checkpoint directory, beside training."""
        return self._trainer.upload(store, step=step)

    def export(self, folder: Path) -> None:
        """Write a Hugging Face folder."""
        self._trainer.export(folder)

    def connect(
        self, engines: Sequence["ActorHandle"], config: WeightChannelConfig, dtype: str, workers_per_engine: int,
        address: str, port: int,
    ) -> None:  # fmt: skip
        """Open the weight channel to these engines, in place of the one before."""
        from learner.weight_sender import WeightSender

        if self._sender is not None:
            self._sender.close()
            self._sender = None
        self._client = EngineClient(engines, workers_per_engine=workers_per_engine)
        self._sender = WeightSender(
            self._trainer.named_full_tensors,
            client=self._client,
            backend=config.backend,
            dtype=dtype,
            rank=self._rank,
            num_receivers=len(engines) * workers_per_engine,
            address=address,
            port=port,
            bucket_bytes=config.bucket_bytes,
            timeout_s=config.timeout_s,
        )

    def fetch(self, payloads: Sequence[ray.ObjectRef]) -> list[int]:
        """Bring this rank's groups to this node before a step; gives the places of those that are gone."""
        lost = []
        for place, payload in enumerate(payloads):
            try:
                ray.get(payload)
            except ObjectLostError:
                lost.append(place)
        return lost

    def train_step(self, step: int, payloads: Sequence[ray.ObjectRef]) -> StepReport:
        """Fetch this rank's groups and take one training step with the other ranks."""
        return self._trainer.train_step(ray.get(list(payloads)), step=step)

    def send_weights(self, version: int) -> None:
        """Stream the weights to the engines; every rank calls it."""
        self._client.weight_version = str(version)
        self._sender.send()

    def weight_version(self) -> int:
        """Training steps behind the current weights."""
        return self._trainer.weight_version

    def sequence_logprobs(self, group: ScoredGroup) -> list[NDArray[np.float32]]:
        """Logprobs of a group's completions under the current weights; every rank calls it."""
        return self._trainer.sequence_logprobs(group)

    def weight_names(self) -> list[str]:
        """Names of all tensors, as the checkpoint writes them."""
        return self._sender.names()

    def weight_fingerprints(self, names: list[str]) -> dict[str, tuple[int, float, float]]:
        """Fingerprints of tensors in the type in which they travel; every rank calls it."""
        return self._sender.fingerprints(names)


class EngineClient:
    """The learner's line to all engines: vLLM's weight-sync client for several independent engines.

    Each engine gets ranks of its own behind the sender's rank 0. Stock senders do not pass a version, so it is set
    here before each transfer.
    """

    def __init__(self, engines: Sequence["ActorHandle"], *, workers_per_engine: int) -> None:
        """Speak to these engine actors."""
        self._engines = list(engines)
        self._workers = workers_per_engine
        self.weight_version = "0"

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Send every engine to the rendezvous with its own first rank."""
        first = init_info["rank_offset"]
        ray.get(
            [
                engine.init_weight_transfer_engine.remote({**init_info, "rank_offset": first + i * self._workers})
                for i, engine in enumerate(self._engines)
            ]
        )

    def start_weight_update(self) -> None:
        """Open an update on every engine."""
        ray.get([engine.start_weight_update.remote() for engine in self._engines])

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Let every engine receive; returns when all have."""
        ray.get([engine.update_weights.remote(update_info) for engine in self._engines])

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Make the weights live everywhere."""
        version = weight_version or self.weight_version
        ray.get([engine.finish_weight_update.remote(version) for engine in self._engines])
