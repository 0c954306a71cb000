"""PolicyTrainer: one learner rank. Scored groups in, one optimiser step, new weights out.

Every public method but `close` is a collective: all ranks call it, each with its own share where it takes one.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from learner import checkpoint
from learner.algorithms.registry import get_algorithm
from learner.backends.base import TrainBackend
from learner.batching import Piece, split_sequences
from learner.config import LearnerConfig
from learner.errors import CheckpointError, LearnerError, NonFiniteLossError
from learner.export import export_model
from learner.images import ImageEncoder
from learner.packing import MicroBatch, TokenIds, build_micro_batch, dummy_micro_batch
from learner.random_state import derive_seed, load_random_state, save_random_state, seed_process
from learner.records import ScoredGroup, StepReport
from learner.schedule import learning_rate_at
from learner.step_metrics import StepSums, report_metrics
from learner.step_plan import StepCounts, StepPlan, plan_step

# Ranks wait this long for one another: loading a large model and saving a checkpoint are the longest waits.
COLLECTIVE_TIMEOUT = timedelta(minutes=30)


class PolicyTrainer:
    """One rank of the learner and its share of the policy.

    Consumes: scored groups. Produces: step reports, weights, checkpoints. Waits for: the other ranks.
    """

    weight_version: int
    """Optimiser steps taken since the model was loaded from `model_path`."""

    def __init__(
        self,
        config: LearnerConfig,
        *,
        rank: int,
        world_size: int,
        master_address: str,
        master_port: int,
        seed: int = 0,
    ) -> None:
        """Join the other ranks and load the policy.

        Args:
            config: the learner's settings, model_path and algorithm included.
            rank: of this process, from 0.
            world_size: number of ranks.
            master_address: host of rank 0.
            master_port: a free port there; 0 lets a single rank choose.
            seed: of the run; each rank derives its own.

        Raises:
            LearnerError: model folder, freeze pattern or algorithm name does not fit.
        """
        self._config = config
        self._algorithm = get_algorithm(config.algorithm.name)
        self._rank = rank
        torch.set_num_threads(config.threads_per_rank)
        device = _pick_device(config, rank)
        store = dist.TCPStore(master_address, master_port, world_size, is_master=rank == 0, timeout=COLLECTIVE_TIMEOUT)
        dist.init_process_group(
            "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl",
            store=store,
            rank=rank,
            world_size=world_size,
            timeout=COLLECTIVE_TIMEOUT,
        )
        seed_process(derive_seed(seed, "learner", rank))
        self._backend: TrainBackend
        if config.backend == "deepspeed":
            from learner.backends.deepspeed import DeepSpeedBackend

            self._backend = backend = DeepSpeedBackend(config, device)
        else:
            from learner.backends.fsdp import FsdpBackend

            self._backend = backend = FsdpBackend(config, device)
        model_config = backend.policy.hf_model.config
        self._images = ImageEncoder.from_pretrained(config.model_path, image_token_id=model_config.image_token_id)
        self._token_ids = TokenIds(image=model_config.image_token_id, merge_size=self._images.merge_size)
        self.weight_version = 0

    def train_step(self, groups: Sequence[ScoredGroup], *, step: int) -> StepReport:
        """Take one optimiser step on the groups of all ranks.

        Args:
            groups: this rank's share; may be empty.
            step: the run's step, for reports and errors.

        Returns:
            The report of the whole step, the same on every rank but for its seconds.

        Raises:
            LearnerError: a group of any rank is unusable. No weight was changed.
            NonFiniteLossError: loss or gradient is not finite. No weight was changed. Both rise on all ranks.
        """
        started = time.perf_counter()
        plan, counts, num_micro_batches = self._plan_together(groups)
        planned = time.perf_counter()
        sums = StepSums(self._backend.device)
        for index in range(num_micro_batches):
            self._run_micro_batch(self._micro_batch(plan, index), sums, counts, is_last=index == num_micro_batches - 1)
        grad_norm = self._backend.grad_norm()
        totals = sums.reduce()
        self._check_finite(totals, grad_norm, sums, groups, step)
        computed = time.perf_counter()
        learning_rate = learning_rate_at(self.weight_version, self._config.optimizer)
        self._backend.step(grad_norm=grad_norm, learning_rate=learning_rate)
        self.weight_version += 1
        return StepReport(
            step=step,
            weight_version=self.weight_version,
            metrics=report_metrics(totals, counts, grad_norm=float(grad_norm), learning_rate=learning_rate),
            seconds={
                "plan": planned - started,
                "forward_backward": computed - planned,
                "optimizer": time.perf_counter() - computed,
            },
        )

    def _plan_together(self, groups: Sequence[ScoredGroup]) -> tuple[StepPlan, StepCounts, int]:
        """Plan this rank's share, then learn of all: counts of the step, and the largest number of micro-batches."""
        plan = StepPlan(micro_batches=[], counts=StepCounts())
        failure: str | None = None
        try:
            plan = plan_step(groups, config=self._config, algorithm=self._algorithm, images=self._images)
        except LearnerError as error:
            failure = f"rank {self._rank}: {error}"
        told: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(told, (failure, plan.counts, len(plan.micro_batches)))
        if failures := [message for message, _, _ in told if message is not None]:
            raise LearnerError("; ".join(failures))
        # Without any signal one dummy still runs: the optimiser needs a gradient, zero, to take its step.
        return plan, sum((c for _, c, _ in told), StepCounts()), max(1, *(number for _, _, number in told))

    def _micro_batch(self, plan: StepPlan, index: int) -> MicroBatch:
        if index >= len(plan.micro_batches):
            return dummy_micro_batch(
                self._images.dummy(),
                token_ids=self._token_ids,
                device=self._backend.device,
                dtype=self._backend.dtype,
            )
        pieces, images = plan.micro_batches[index]
        return build_micro_batch(
            pieces,
            images,
            dummy_image=self._images.dummy(),
            token_ids=self._token_ids,
            device=self._backend.device,
            dtype=self._backend.dtype,
        )

    def _run_micro_batch(self, batch: MicroBatch, sums: StepSums, counts: StepCounts, *, is_last: bool) -> None:
        algorithm = self._config.algorithm
        ref_logprobs = self._backend.reference_logprobs(batch)

        def loss_function(logprobs: torch.Tensor, entropy: torch.Tensor) -> torch.Tensor:
            loss, metrics = self._algorithm.loss(
                logprobs,
                behaviour_logprobs=batch.behaviour_logprobs,
                advantages=batch.advantages,
                completion_mask=batch.completion_mask,
                entropy=entropy,
                ref_logprobs=ref_logprobs,
                clip_low=algorithm.clip_low,
                clip_high=algorithm.clip_high,
                kl_coef=algorithm.kl_coef,
                num_completion_tokens=max(1, counts.num_completion_tokens),
            )
            sums.add(batch, loss=loss, metrics=metrics, logprobs=logprobs)
            return loss

        self._backend.forward_backward(batch, loss_function, is_last=is_last)

    def _check_finite(
        self,
        totals: Mapping[str, float],
        grad_norm: torch.Tensor,
        sums: StepSums,
        groups: Sequence[ScoredGroup],
        step: int,
    ) -> None:
        """Raise on all ranks together; both quantities are the same everywhere, so the ranks agree."""
        if np.isfinite(totals["loss"]) and torch.isfinite(grad_norm):
            return
        self._backend.zero_grad()
        shares: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(shares, (sums.non_finite_groups(), [group.group_id for group in groups]))
        guilty = [group_id for bad, _ in shares for group_id in bad]
        everyone = [group_id for _, share in shares for group_id in share]
        quantity = f"loss {totals['loss']}, gradient norm {float(grad_norm)}"
        raise NonFiniteLossError(step, tuple(guilty or everyone), quantity)

    def sequence_logprobs(self, group: ScoredGroup) -> list[NDArray[np.float32]]:
        """Give the current policy's logprobs [T] of each completion of a group; every rank passes the same group.

        Raises:
            LearnerError: an image does not decode or does not match its prompt.
        """
        [images] = self._images.encode([group])
        found: list[NDArray[np.float32]] = []
        for part in split_sequences(group, range(len(group.sequences)), self._config.micro_batch_tokens):
            piece = Piece(group=group, sequence_indices=tuple(part), advantages=(0.0,) * len(part))
            batch = build_micro_batch(
                [piece],
                [images],
                dummy_image=self._images.dummy(),
                token_ids=self._token_ids,
                device=self._backend.device,
                dtype=self._backend.dtype,
            )
            found.extend(split.numpy() for split in self._backend.logprobs(batch).cpu().split(batch.lengths))
        return found

    def named_full_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Give (checkpoint name, whole float32 tensor) one at a time; every rank consumes the whole iterator."""
        return self._backend.full_tensors()

    def save(self, directory: Path, *, step: int, extra: Mapping[str, Any], keep_last: int) -> Path:
        """Write one whole checkpoint, then delete all but the newest `keep_last`; gives its folder.

        Args:
            directory: shared by all ranks.
            step: names the checkpoint.
            extra: the caller's own, as JSON; `checkpoint.read_extra` gives it back.
            keep_last: whole checkpoints that stay.
        """
        written = checkpoint.step_folder(directory, step).with_suffix(".tmp")
        if self._rank == 0:
            checkpoint.begin(directory, step)
        dist.barrier()
        self._backend.save(written)
        save_random_state(written / f"random_{self._rank:05d}.pt")
        dist.barrier()
        if self._rank == 0:
            meta = {
                "step": step,
                "weight_version": self.weight_version,
                "num_ranks": dist.get_world_size(),
                "extra": dict(extra),
            }
            checkpoint.commit(written, meta)
            checkpoint.prune(directory, keep_last)
        dist.barrier()
        return checkpoint.step_folder(directory, step)

    def load(self, folder: Path) -> None:
        """Restore weights, optimiser, schedule and random state; the number of ranks may have changed.

        A rank that did not exist when the checkpoint was written keeps its derived seed.

        Raises:
            CheckpointError: the folder is partial, or of another model.
        """
        meta = checkpoint.read_meta(folder)
        if "weight_version" not in meta:
            raise CheckpointError(f"{folder} names no weight_version in {checkpoint.META_FILE}; take another one")
        self._backend.load(folder)
        random_path = folder / f"random_{self._rank:05d}.pt"
        if random_path.is_file():
            load_random_state(random_path)
        self.weight_version = int(meta["weight_version"])

    def export(self, folder: Path) -> None:
        """Write the policy as a Hugging Face folder, in the type of forward and backward.

        Configuration, tokenizer and processor are those of the model it began from.
        """
        tensors = self.named_full_tensors()
        if self._rank == 0:
            source = Path(self._config.model_path)
            export_model(tensors, source=source, target=Path(folder), dtype=self._backend.dtype)
        else:
            for _ in tensors:
                pass
        dist.barrier()

    def close(self) -> None:
        """Leave the process group."""
        dist.destroy_process_group()


def _pick_device(config: LearnerConfig, rank: int) -> torch.device:
    if config.device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise LearnerError("learner.device is cuda, but this process sees no GPU; use learner=fsdp_cpu or free a GPU")
    # Ray shows each rank only its own GPU; on a plain machine all are visible.
    device = torch.device("cuda", rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device
