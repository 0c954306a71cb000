"""Checkpoints of a DeepSpeed engine, read on any number of ranks.

<folder>/weights/layout.json     what the checkpoint fits: stage, type, trained parameters, number of ranks
<folder>/weights/ranks/          DeepSpeed's own files, one or two a rank
<folder>/weights/universal/      only while other ranks or another precision read: the same, parameter by parameter

DeepSpeed's files are pickles. They are read as weights only, so that a file that names more than it should is refused.
"""

import argparse
import contextlib
import io
import json
import pickle
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist

from learner.backends.base import run_fused
from learner.backends.plain_loading import weights_only
from learner.errors import CheckpointError
from learner.ranks import exchange

LAYOUT_FILE = "layout.json"
RANKS_TAG = "ranks"
UNIVERSAL_TAG = "universal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Properties that an engine must share with a checkpoint to read it."""

    zero_stage: int
    dtype: str
    trained: tuple[str, ...]
    """Names of the parameters that are not frozen."""
    num_ranks: int
    """Of the writer; the reader's may differ."""


def save_engine(engine: Any, folder: Path, layout: Layout) -> None:
    """Write an engine's state; a collective.

    Raises:
        CheckpointError: the disk does not take it.
    """
    try:
        engine.save_checkpoint(str(folder), tag=RANKS_TAG, save_latest=False)
        if dist.get_rank() == 0:
            (folder / LAYOUT_FILE).write_text(json.dumps(asdict(layout), indent=2))
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{folder} was not written ({error}); is the disk full?") from error


def load_engine(engine: Any, folder: Path, layout: Layout, *, is_writer: bool) -> None:
    """Read what `save_engine` wrote into an engine that has taken no step; a collective.

    For another number of ranks or another type of forward and backward, the writer of each folder first rewrites the
    checkpoint in DeepSpeed's universal format beside it, which holds float32 values parameter by parameter. That takes
    as much disk again and is deleted once all ranks have read it.

    Raises:
        CheckpointError: the checkpoint is not DeepSpeed's, or of another stage or set of trained parameters, or holds
            what is neither tensor nor number.
    """
    written = _read_layout(folder)
    for name in ("zero_stage", "trained"):
        ours, theirs = getattr(layout, name), getattr(written, name)
        if ours != theirs:
            raise CheckpointError(
                f"{folder} does not load into this model and optimiser: {name} is {_shorten(theirs)} there and "
                f"{_shorten(ours)} here; use the settings with which it was written, or start a new run folder"
            )
    try:
        with weights_only(_own_classes()):
            if (written.num_ranks, written.dtype) == (layout.num_ranks, layout.dtype):
                engine.load_checkpoint(str(folder), tag=RANKS_TAG)
            else:
                _load_universal(engine, folder, is_writer=is_writer)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{folder} is not read: {str(error).splitlines()[0]}; take another checkpoint") from error
    optimizer = engine.optimizer.optimizer
    run_fused(optimizer.param_groups)
    for parameter, state in optimizer.state.items():
        # Stage 3 gives all parameter groups one tensor for their number of steps, which each group would then count up;
        # and it is where the writer's state was, which may have been on the host.
        state["step"] = state["step"].to(parameter.device, copy=True)


def _own_classes() -> list[type]:
    """Return the classes whose instances DeepSpeed keeps beside tensors; each holds numbers and does nothing else."""
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [LossScaler, ZeroStageEnum, fragment_address]


def _read_layout(folder: Path) -> Layout:
    path = folder / LAYOUT_FILE
    if not path.is_file():
        raise CheckpointError(f"{folder} was not written by the DeepSpeed backend; set learner.backend=fsdp to read it")
    stored = json.loads(path.read_text())
    return Layout(**{**stored, "trained": tuple(stored["trained"])})


def _shorten(value: object) -> str:
    return f"{len(value)} names" if isinstance(value, tuple) else str(value)


def _load_universal(engine: Any, folder: Path, *, is_writer: bool) -> None:
    failure = None
    if is_writer:
        try:
            _convert(folder)
        # The others wait for the writer, so whatever went wrong must reach them.
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
    try:
        if failures := [message for message in exchange(failure) if message is not None]:
            raise CheckpointError(
                f"{folder} could not be rewritten for {dist.get_world_size()} ranks ({failures[0]}); free as much disk "
                "as it takes, or resume with the number of ranks and the dtype with which it was written"
            )
        engine._config.load_universal_checkpoint = True
        engine.load_checkpoint(str(folder), tag=UNIVERSAL_TAG)
    finally:
        engine._config.load_universal_checkpoint = False
        dist.barrier()
        if is_writer:
            _remove_universal(folder)


def _convert(folder: Path) -> None:
    from deepspeed.checkpoint import ds_to_universal

    _remove_universal(folder)
    arguments = argparse.Namespace(
        input_folder=str(folder / RANKS_TAG),
        output_folder=str(folder / UNIVERSAL_TAG),
        # One worker works in this process; more would be forked from it, with its threads and collectives.
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        ds_to_universal.main(arguments)


def _remove_universal(folder: Path) -> None:
    """Remove the rewritten checkpoint, also what a process that died left of it."""
    shutil.rmtree(folder / UNIVERSAL_TAG, ignore_errors=True)
    (folder / "latest_universal").unlink(missing_ok=True)
