"""LearnerActor: one learner rank under Ray, and its client of the engines."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import ObjectLostError

from learner.checkpoint import StagedShare
from learner.config import LearnerConfig
from learner.records import RankMemory, ScoredGroup, StepReport
from learner.store import FileEntry, FileStore
from orchestration.cluster.layout import RankDevices
from orchestration.cluster.process import Placement, settle
from rollout.config import WeightChannelConfig
from rollout.conversation import PromptSpec
from rollout.records import EncodedPrompt, Fingerprint, Sample

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from learner.families.base import ImageInputs
    from learner.weight_sender import WeightSender


class EngineClient:
    """vLLM's weight-sync client for several independent engines.

    Where the channel has ranks, each engine gets its own behind the sender's. Stock senders do not pass a version, so
    it is set here before each transfer.
    """

    def __init__(self, engines: Sequence["ActorHandle"], *, workers_per_engine: int) -> None:
        self._engines = list(engines)
        self._workers = workers_per_engine
        self.weight_version = "0"

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Connect every engine; where the channel has ranks, each engine with its own first rank."""
        ray.get(
            [
                e.init_weight_transfer_engine.remote(self._init_info_of(init_info, i))
                for i, e in enumerate(self._engines)
            ]
        )

    def start_weight_update(self) -> None:
        ray.get([engine.start_weight_update.remote() for engine in self._engines])

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Receive on every engine; returns when all have."""
        ray.get([engine.update_weights.remote(update_info) for engine in self._engines])

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Make the weights live everywhere."""
        version = weight_version or self.weight_version
        ray.get([engine.finish_weight_update.remote(version) for engine in self._engines])

    def _init_info_of(self, init_info: dict[str, Any], index: int) -> dict[str, Any]:
        if "rank_offset" not in init_info:  # ipc has no ranks
            return init_info
        return {**init_info, "rank_offset": init_info["rank_offset"] + index * self._workers}


@ray.remote(concurrency_groups={"io": 1, "health": 1})
class LearnerActor:
    """One rank of the learner; what most methods do is documented in `learner.training.trainer.PolicyTrainer`.

    Methods of a concurrency group run in a thread beside the others.
    """

    def __init__(
        self,
        rank: int,
        config: LearnerConfig,
        placement: Placement,
        log_dir: Path,
        staging_dir: Path | None,
        random_weights: bool = False,
    ) -> None:
        settle(f"learner_{rank}", placement, log_dir)
        self._rank = rank
        self._config = config
        self._staging_dir = staging_dir
        self._random_weights = random_weights
        self._sender: WeightSender | None = None

    @ray.method(concurrency_group="health")
    def beat(self) -> None:
        """Answer, whatever the rank is at."""

    def rendezvous(self) -> tuple[str, int]:
        """Return an address and a free port for the ranks' rendezvous."""
        import socket

        address = ray.util.get_node_ip_address()
        with socket.socket() as probe:
            probe.bind((address, 0))
            return address, probe.getsockname()[1]

    def build(self, address: str, port: int, seed: int) -> int:
        """Join the other ranks and load the policy; returns the process id."""
        from learner.training.trainer import PolicyTrainer
        from rollout.placeholders import banned_token_ids

        self._trainer = PolicyTrainer(
            self._config,
            rank=self._rank,
            world_size=self._config.num_ranks,
            master_address=address,
            master_port=port,
            seed=seed,
            staging_dir=self._staging_dir,
            banned_token_ids=banned_token_ids(Path(self._config.model_path)),
            random_weights=self._random_weights,
        )
        return os.getpid()

    def devices(self) -> RankDevices:
        """Return the node and the GPUs of the rank."""
        return RankDevices(
            node_id=ray.get_runtime_context().get_node_id(), visible=os.environ.get("CUDA_VISIBLE_DEVICES", "")
        )

    def release_cache(self) -> None:
        self._trainer.release_cache()

    def export(self, folder: Path) -> None:
        self._trainer.export(folder)

    def export_adapter(self, folder: Path) -> None:
        self._trainer.export_adapter(folder)

    def sequence_logprobs(self, group: ScoredGroup) -> list[NDArray[np.float32]]:
        return self._trainer.sequence_logprobs(group)

    def offload(self) -> int:
        return self._trainer.backend.offload()

    def onload(self) -> None:
        self._trainer.backend.onload()

    def load(self, store: FileStore, step: int) -> None:
        self._trainer.load(store, step=step)

    def stage(self, step: int) -> StagedShare:
        return self._trainer.stage(step=step)

    @ray.method(concurrency_group="io")
    def upload(self, store: FileStore, step: int) -> tuple[FileEntry, ...]:
        """Copy what was staged into the checkpoint directory, in a thread beside training."""
        return self._trainer.upload(store, step=step)

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
            self._trainer.backend.published_shapes(),
            self._trainer.backend.published_tensors,
            client=self._client,
            backend=config.backend,
            dtype=dtype,
            rank=self._rank,
            num_receivers=len(engines) * workers_per_engine,
            address=address,
            port=port,
            bucket_bytes=config.bucket_bytes,
            timeout_s=config.timeout_s,
            sends_differences=config.differences,
            missing=self._trainer.backend.missing_names(),
            changing=self._trainer.backend.changing_names(),
        )

    def fetch(self, payloads: Sequence[ray.ObjectRef]) -> list[int]:
        """Fetch this rank's groups to this node before a step; returns the indices of those that are lost."""
        return lost_among(payloads)

    def train_step(self, step: int, payloads: Sequence[ray.ObjectRef]) -> StepReport:
        """Fetch this rank's groups and take one training step with the other ranks."""
        return self._trainer.train_step(ray.get(list(payloads)), step=step)

    def send_weights(self, version: int) -> int:
        """Stream the weights to the engines and return their bytes; every rank calls it."""
        self._client.weight_version = str(version)
        return self._connected().send()

    def weight_version(self) -> int:
        return self._trainer.weight_version

    def encode(self, sample: Sample, spec: PromptSpec, max_images: int) -> EncodedPrompt:
        """Return a prompt as this rank's own model folder and image processor make it; no collective."""
        from rollout.prompt import PromptBuilder

        builder = PromptBuilder(Path(self._config.model_path), spec=spec, max_images=max_images)
        prompt, token_ids = builder.build(sample), builder.expanded_ids(sample)
        return EncodedPrompt(
            token_ids=tuple(token_ids),
            pictures=tuple(
                builder.encoded_picture(one.pixel_values, _rows(one))
                for one in self._trainer.encode_images([image.data for image in sample.images])
            ),
            input_sizes=prompt.input_sizes,
            template=prompt.template,
        )

    def round_trips(self, num_bytes: int) -> list[float]:
        """Return the seconds that bytes take from rank 0 to each other rank and back; every rank calls it."""
        from learner.ranks import round_trips

        return round_trips(num_bytes, self._trainer.backend.device)

    def memory(self, begin_again: bool) -> RankMemory:
        """Return what this rank holds of its device."""
        from learner.ranks import rank_memory

        return rank_memory(self._trainer.backend.device, begin_again=begin_again)

    def weight_names(self) -> list[str]:
        """Return the names of all tensors, as the checkpoint writes them."""
        return self._connected().names()

    def weight_fingerprints(self, names: list[str]) -> dict[str, Fingerprint]:
        """Return the fingerprints of tensors in the type in which they travel; every rank calls it."""
        from rollout.fingerprint import fingerprint

        return self._connected().fingerprints(names, fingerprint)

    def _connected(self) -> "WeightSender":
        assert self._sender is not None, "weights are asked for before `connect`"
        return self._sender


def _rows(image: "ImageInputs") -> tuple[int, ...]:
    """Return the shape of an image in rows of its tower; of a tile, the rows inside are none of the tower's."""
    [grid] = image.grids.tolist()
    num_rows = len(image.pixel_values)
    return tuple(grid) if math.prod(grid) == num_rows else (num_rows,)


def lost_among(payloads: Sequence[ray.ObjectRef]) -> list[int]:
    """Fetch objects to this node; returns the indices of those that were lost with a node."""
    try:
        ray.get(list(payloads))
    except ObjectLostError:
        return [place for place, payload in enumerate(payloads) if _is_lost(payload)]
    return []


def _is_lost(payload: ray.ObjectRef) -> bool:
    try:
        ray.get(payload)
    except ObjectLostError:
        return True
    return False
