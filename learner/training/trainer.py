"""PolicyTrainer: one learner rank. It takes scored groups, trains one step on them, and returns the new weights.

Every public method but `close`, `encode_images`, `release_cache` and `upload` is a collective: all ranks call it,
each with its own share where it takes one.
"""

import logging
import socket
from collections.abc import Sequence
from datetime import timedelta
from itertools import chain
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from conf.gpu_driver import driver_fault
from learner import checkpoint
from learner.algorithms.registry import algorithm_of
from learner.backends.base import TrainBackend
from learner.checkpoint import StagedShare
from learner.config import SLOWER, LearnerConfig, learning_rate_at
from learner.errors import CheckpointError, LearnerError
from learner.export import export_adapter, export_model
from learner.families.base import ImageInputs
from learner.policy.model import choose_kernel
from learner.policy.padding import load_encoder, make_builder
from learner.policy.source import FolderSource
from learner.ranks import (
    derive_seed,
    exchange,
    join_store,
    load_random_state,
    save_random_state,
    seed_process,
)
from learner.records import ScoredGroup, StepReport
from learner.store import FileEntry, FileStore, StagingArea
from learner.training.step import StepRunner

logger = logging.getLogger(__name__)

# Ranks wait this long for one another: loading a large model and saving a checkpoint are the longest waits.
COLLECTIVE_TIMEOUT = timedelta(minutes=30)
SHARE_FOLDER = "share"
FETCH_FOLDER = "fetched"


class PolicyTrainer:
    """One rank of the learner and its share of the policy.

    Consumes: scored groups. Produces: step reports, weights, checkpoints. Waits for: the other ranks.
    """

    weight_version: int
    """Training steps taken since the model was loaded from `model_path`."""
    backend: TrainBackend
    """Holds the policy: whole tensors for engines, and offloading between two steps."""

    def __init__(
        self,
        config: LearnerConfig,
        *,
        rank: int,
        world_size: int,
        master_address: str,
        master_port: int,
        seed: int = 0,
        staging_dir: Path | None = None,
        banned_token_ids: Sequence[int] = (),
        random_weights: bool = False,
    ) -> None:
        """Join the other ranks and load the policy.

        Args:
            config: the learner's settings, model_path and algorithm included.
            rank: of this process, from 0.
            world_size: number of ranks.
            master_address: host of rank 0.
            master_port: a free port there; 0 lets a single rank choose.
            seed: of the run; each rank derives its own.
            staging_dir: where checkpoints wait on fast local disk; None is the system's temporary directory.
            banned_token_ids: tokens that the rollout never samples; they have no share in the policy.
            random_weights: draw the weights instead of reading them; the folder then needs none.

        Raises:
            LearnerError: model folder, freeze pattern, algorithm name or a function of the user's does not fit.
        """
        self._config = config
        self._rank = rank
        self._staging = StagingArea(staging_dir)
        algorithm = algorithm_of(config.algorithm)
        torch.set_num_threads(config.threads_per_rank)
        device = _pick_device(config, rank)
        kernel = choose_kernel(config.attention, device=device, dtype=getattr(torch, config.dtype))
        store = join_store(master_address, master_port, rank=rank, world_size=world_size, timeout=COLLECTIVE_TIMEOUT)
        dist.init_process_group(
            "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl",
            store=store,
            rank=rank,
            world_size=world_size,
            timeout=COLLECTIVE_TIMEOUT,
        )
        seed_process(derive_seed(seed, "learner", rank))
        source = FolderSource(
            config.model_path,
            kernel,
            temperature=config.algorithm.temperature,
            banned_token_ids=banned_token_ids,
            random_weights=random_weights,
            own_family=config.family,
        )
        self.backend = _make_backend(config, device, source)
        family = self.backend.policy.family
        if family.is_padded and rank == 0:
            logger.warning(SLOWER.format(self.backend.policy.hf_model.config.model_type))
        self._encoder = load_encoder(config.model_path, family)
        self._steps = StepRunner(
            config,
            algorithm,
            backend=self.backend,
            encoder=self._encoder,
            builder=make_builder(
                family,
                self._encoder,
                kernel,
                device=device,
                dtype=self.backend.dtype,
                temperature=config.algorithm.temperature,
                task_temperatures=config.algorithm.task_temperatures,
            ),
            seed=seed,
        )
        self.weight_version = 0

    def train_step(self, groups: Sequence[ScoredGroup], *, step: int) -> StepReport:
        """Take one training step on the groups of all ranks: num_epochs * num_minibatches optimiser updates.

        Args:
            groups: this rank's share; may be empty.
            step: the run's step, for reports and errors.

        Returns:
            The report of the whole step, the same on every rank but for its seconds.

        Raises:
            LearnerError: a group of any rank is unusable. No weight was changed.
            DivergedError: loss or gradient is not finite, or explodes. The update was not applied. Both are raised on
                all ranks.
        """
        learning_rate = learning_rate_at(self.weight_version, self._config.optimizer)
        metrics, seconds = self._steps.run(groups, step=step, learning_rate=learning_rate)
        self.weight_version += 1
        return StepReport(step=step, weight_version=self.weight_version, metrics=metrics, seconds=seconds)

    def sequence_logprobs(self, group: ScoredGroup) -> list[NDArray[np.float32]]:
        """Return the current weights' raw logprobs [T] of each completion of a group; every rank passes the same group.

        Raw: at temperature 1 and with no token banned, as engines score given tokens.

        Raises:
            LearnerError: an image does not decode or does not match its prompt.
        """
        return self._steps.raw_logprobs(group)

    def encode_images(self, images: Sequence[bytes]) -> list[ImageInputs]:
        """Return images as the vision tower gets them, one by one; no collective.

        Raises:
            LearnerError: one does not decode.
        """
        return self._encoder.encode_images(images)

    def stage(self, *, step: int) -> StagedShare:
        """Write this rank's part of the state to its own folder on local disk; the next step may then be taken.

        A collective. Files staged earlier and not uploaded are deleted.

        Raises:
            CheckpointError: the local disk of any rank does not take it; on all ranks.
        """
        folder = self._staging.folder(SHARE_FOLDER)
        failure = None
        try:
            self.backend.save(folder)
            save_random_state(folder / _random_file(self._rank))
        except (OSError, RuntimeError) as error:
            failure = f"rank {self._rank}: {error}"
        if failures := [message for message in exchange(failure) if message is not None]:
            self._staging.remove(SHARE_FOLDER)
            raise CheckpointError(
                f"step {step} was not staged in {folder.parent} ({'; '.join(failures)}); free space there, or set "
                "training.staging_dir to a folder with room for a checkpoint"
            )
        return StagedShare(step=step, weight_version=self.weight_version, num_ranks=dist.get_world_size())

    def upload(self, store: FileStore, *, step: int) -> tuple[FileEntry, ...]:
        """Copy what `stage` wrote into the checkpoint's folder, and delete it here; no collective.

        Reads files alone, so it may run in a thread beside training.

        Raises:
            CheckpointError: the store does not take it.
        """
        try:
            return checkpoint.put_share(store, step, self._staging.path(SHARE_FOLDER))
        finally:
            self._staging.remove(SHARE_FOLDER)

    def load(self, store: FileStore, *, step: int) -> None:
        """Restore weights, optimiser, schedule and random state; the number of ranks may have changed.

        A collective. From a store that is not this machine's file system, one rank of each machine fetches the files
        for all of its ranks. A rank that did not exist when the checkpoint was written keeps its derived seed.

        Raises:
            CheckpointError: the checkpoint is partial, or of another model; on all ranks.
        """
        folder, is_writer = self._fetch(store, step)
        self.backend.load(folder, is_writer=is_writer)
        random_path = folder / _random_file(self._rank)
        if random_path.is_file():
            load_random_state(random_path)
        dist.barrier()
        self._staging.remove(FETCH_FOLDER)
        self.weight_version = checkpoint.read(store, step).weight_version

    def _fetch(self, store: FileStore, step: int) -> tuple[Path, bool]:
        """Return a folder that this rank can read, and whether this rank alone may write into it."""
        machine = store.root if store.local_path("") is not None else socket.gethostname()
        is_writer = exchange(machine).index(machine) == self._rank
        folder = failure = None
        if is_writer:
            try:
                folder = checkpoint.fetch(store, step, self._staging.folder(FETCH_FOLDER))
            except CheckpointError as error:
                failure = error
        found = exchange((machine, folder, failure))
        for _, _, other in found:
            if other is not None:
                raise other
        return next(path for where, path, _ in found if where == machine and path is not None), is_writer

    def export(self, folder: Path) -> None:
        """Write the policy as a Hugging Face folder, in the types in which the model it began from is stored.

        Configuration, tokenizer and processor are those of that model. Training holds what it trains in float32, and
        engines weights in `rollout.engine.dtype`: where a model is stored in less, what is exported is rounded, and its
        scores may differ in the last digits from those of the run. Checkpoints are not rounded.
        """
        tensors = self.backend.full_tensors()
        if self._rank == 0:
            source = Path(self._config.model_path)
            whole = chain(tensors, self.backend.buffers.items())
            export_model(whole, source=source, target=Path(folder), dtypes=self.backend.stored_dtypes)
        else:
            for _ in tensors:
                pass
        dist.barrier()

    def export_adapter(self, folder: Path) -> None:
        """Write the adapters alone, in float32, as a folder that peft reads and `learner.lora.start` takes."""
        config = self._config.lora
        assert config is not None, "there are no adapters to export"
        factors = self.backend.full_factors()
        if self._rank == 0:
            export_adapter(factors, target=Path(folder), config=config, base=self._config.model_path)
        else:
            for _ in factors:
                pass
        dist.barrier()

    def release_cache(self) -> None:
        """Free the GPU memory that torch's allocator keeps and no tensor uses; no collective.

        The allocator keeps what a training step took at its peak, and another process on the GPU cannot have it.
        """
        torch.cuda.empty_cache()  # does nothing in a process that uses no GPU

    def close(self) -> None:
        """Leave the process group, and delete what is staged on local disk."""
        dist.destroy_process_group()
        self._staging.close()


def _random_file(rank: int) -> str:
    return f"random_{rank:05d}.pt"


def _make_backend(config: LearnerConfig, device: torch.device, source: FolderSource) -> TrainBackend:
    if config.backend == "deepspeed":
        from learner.backends.deepspeed import DeepSpeedBackend

        return DeepSpeedBackend(config, device, source)
    from learner.backends.fsdp import FsdpBackend

    return FsdpBackend(config, device, source)


def _pick_device(config: LearnerConfig, rank: int) -> torch.device:
    if config.device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        reason = driver_fault() or "this process sees no GPU; use learner=fsdp_cpu or free a GPU"
        raise LearnerError(f"learner.device is cuda, but {reason}")
    # Ray shows each rank only its own GPU; on a plain machine all are visible.
    device = torch.device("cuda", rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device
