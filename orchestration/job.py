"""One training job from config to exit: inputs, Ray, the run, the closing table."""

import asyncio
import gc
import json
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from conf.own_code import load_own
from learner.errors import CheckpointError, DivergedError
from orchestration.cluster.local_ray import check_object_store
from orchestration.cluster.reservations import actors_reserved
from orchestration.cluster.session import while_ray_lives
from orchestration.inputs.machine import Located, locate
from orchestration.inputs.prepare import (
    Inputs,
    check_box_frame,
    check_images,
    check_rewards,
    check_same_model,
    check_same_rows,
    held_out_sets,
    prepare_inputs,
)
from orchestration.loop import train_and_finish
from orchestration.plan.plan import check_plan
from orchestration.settings.errors import InterruptedRunError, StoppedError
from orchestration.settings.experiment import ExperimentConfig
from orchestration.settings.own_code import own_code, with_own_code
from orchestration.storage.checkpoints import check_finished, newest_step, store_of
from orchestration.storage.faults import read_faults
from orchestration.storage.files import exclusive, write_json
from orchestration.storage.own_code import to_copies
from orchestration.storage.push import push
from orchestration.storage.run_folder import RunFolder, read_before_after, settle_config, write_environment
from orchestration.train.buffer import load_group_filter
from orchestration.train.failures import count_failed, failed_text, read_failed
from orchestration.train.held_out import before_after_table
from orchestration.train.report import write_report
from orchestration.train.run import Run
from orchestration.train.trackers import Outcome

GC_THRESHOLDS = (100_000, 20, 100)
"""Python itself collects after every 700 new objects; a driver with thousands of groups in flight would then spend most
of its time in the collector."""


def run_training(config: ExperimentConfig) -> None:
    """Train as configured, or continue a run; writes the exported model and a report into the run folder.

    Raises:
        ResumeError: the folder belongs to other settings, or another process is writing it.
    """
    folder = RunFolder(config.run_path)
    busy = f"another process is training in {folder.root}; wait for it or use another run_dir"
    is_new = not folder.config.is_file()
    with _explaining_interrupts(folder):
        # The folder is made when the run begins: a run that is refused writes nothing.
        prepared = _prepare(config, folder) if is_new else None
        with exclusive(folder.root, refusal=busy):
            if not is_new:
                _settle(folder, config)
            if not is_new and check_finished(folder, config.training.num_steps, config.learner.lora):
                say(f"{folder.root} has done all {config.training.num_steps} steps")
            else:
                _train(config, folder, *(prepared or _prepare(config, folder)))
            push_export(folder, config.training.push_to, say)
            write_report(folder)
            _print_outcome(folder)


def push_export(folder: RunFolder, place: str | None, say: Callable[[str], None]) -> None:
    """Copy the export to where the settings want it, unless that was done; a failure is said, and is not the run's."""
    if place is None or (folder.pushed.is_file() and json.loads(folder.pushed.read_text()) == {"to": place}):
        return
    try:
        push(folder.export, place)
    except CheckpointError as error:
        say(
            f"training.push_to={place}: the export was not copied ({error}); it is whole in {folder.export}, and the "
            "same command tries again"
        )
        return
    write_json(folder.pushed, {"to": place})
    say(f"the export is in {place} too")


@contextmanager
def _explaining_interrupts(folder: RunFolder) -> Iterator[None]:
    """Raise Ctrl-C in the block as an error that says where the same command continues."""
    try:
        yield
    except KeyboardInterrupt as error:
        step = newest_step(store_of(folder)) if folder.config.is_file() else None
        raise InterruptedRunError(
            "stopped; nothing is saved yet, and the same command continues from the beginning"
            if step is None
            else f"stopped; step {step} is saved in {folder.root}, and the same command continues there"
        ) from error


def _settle(folder: RunFolder, config: ExperimentConfig) -> None:
    for line in settle_config(folder, config):
        say(line)


def _prepare(config: ExperimentConfig, folder: RunFolder) -> tuple[Inputs, dict[Path, dict[str, Any]]]:
    """Return the inputs, and the records of them to be written, once all that needs no Ray is checked."""
    if (located := locate(config)).train is None:
        check_plan(config, located)  # what cannot fit is refused before model and rows are made
    inputs = prepare_inputs(config, say)
    sets = held_out_sets(config)
    notes = {folder.data: check_same_rows(folder, inputs, sets, is_change_allowed=config.allow_config_change)}
    start = None if config.learner.lora is None else config.learner.lora.start
    if config.model.path is not None or start is not None:  # the demo's model follows from the settings
        notes[folder.model] = check_same_model(
            folder, inputs.model, adapter=start, is_change_allowed=config.allow_config_change
        )
    notes[folder.inputs] = {name: str(path) for name, path in asdict(inputs).items()}
    for key, text in own_code(config).items():
        load_own(key, text)
    load_group_filter(config.training.filter)  # a fault of it is said before anything starts
    check_images(config, inputs.train, inputs.held_out, *sets.values())
    check_box_frame(config, inputs.train, inputs.held_out, *sets.values())
    check_rewards(config.reward, inputs.model, inputs.train, inputs.held_out, *sets.values())
    check_plan(config, Located(train=inputs.train, held_out=inputs.held_out, note=""))
    if (warning := check_object_store(config, inputs.train)) is not None:
        say(warning)
    return inputs, notes


def _train(config: ExperimentConfig, folder: RunFolder, inputs: Inputs, notes: dict[Path, dict[str, Any]]) -> None:
    started = time.perf_counter()
    with actors_reserved(config, folder.logs) as reservations:
        _settle(folder, config)
        write_environment(folder)
        for path, value in notes.items():
            write_json(path, value)
        config = with_own_code(config, to_copies(folder.own_code, folder.own_code_copies))
        run = Run(config, inputs=inputs, reservations=reservations, say=say)
        try:
            asyncio.run(_run_and_close(run))
        except BaseExceptionGroup as group:
            raise _first_cause(group) from group
    say(f"trained in {time.perf_counter() - started:.0f} s")


async def _run_and_close(run: Run) -> None:
    try:
        await while_ray_lives(_start_and_train(run))
    except BaseException as ended:
        if isinstance(ended, asyncio.CancelledError):
            # Nothing awaits the calls to processes that end now; asyncio would log their errors.
            asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        try:
            await run.close(_outcome(ended))
        except Exception as error:  # the error that ended the run matters more
            say(f"while the run was closed: {error}")
        raise
    await run.close("finished")


def _outcome(ended: BaseException) -> Outcome:
    """Return what trackers are told of a run that an error, a signal or the end of its allocation ended."""
    stops = (StoppedError, KeyboardInterrupt, asyncio.CancelledError)
    return "stopped" if isinstance(_first_cause(ended), stops) else "failed"


async def _start_and_train(run: Run) -> None:
    await run.start()
    collect_rarely()
    with _saving_on_signals(run):
        await _train_or_rescue(run)


def collect_rarely() -> None:
    """Exclude existing objects from Python's cycle collector, and run it less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def _train_or_rescue(run: Run) -> None:
    try:
        await train_and_finish(run)
    except Exception as error:
        # A diverged learner is not kept: its weights led there, and the checkpoints before it may be taken instead.
        if not isinstance(_first_cause(error), (DivergedError, StoppedError)):
            await run.rescue()
        raise


@contextmanager
def _saving_on_signals(run: Run) -> Iterator[None]:
    """Save a checkpoint when SIGTERM or Ctrl-C comes within the block; a second signal ends the run at once.

    Raises:
        InterruptedRunError: in place of StoppedError, where it was Ctrl-C.
    """
    loop = asyncio.get_running_loop()
    at_once = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    received: list[signal.Signals] = []

    def end_at_once() -> None:
        for number, handler in at_once.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)

    def stop_after_step(number: signal.Signals) -> None:
        end_at_once()
        received.append(number)
        run.request_stop("Ctrl-C; a second one ends the run at once" if number == signal.SIGINT else "SIGTERM received")

    for number in at_once:
        loop.add_signal_handler(number, stop_after_step, number)
    try:
        yield
    except StoppedError as error:
        if received == [signal.SIGINT]:
            raise InterruptedRunError(str(error)) from error
        raise
    finally:
        end_at_once()


def _first_cause(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _print_outcome(folder: RunFolder) -> None:
    before, after = read_before_after(folder)
    if before and after:
        say("")
        say(before_after_table(before["families"], after["families"]))
    if failed := count_failed(read_failed(folder.failures)):
        say("")
        say(f"{failed.total()} completions have no reward: {failed_text(failed)}; {folder.failures}")
    if faults := Counter(fault.role for fault in read_faults(folder.faults)):
        say("")
        counts = ", ".join(f"{count} {role} faults" for role, count in sorted(faults.items()))
        say(f"survived: {counts}; {folder.faults}")
    say("")
    for title, path in {
        "model": folder.export,
        "report": folder.report,
        "metrics": folder.metrics,
        "checkpoints": folder.checkpoints,
        "logs": folder.logs,
    }.items():
        say(f"{title:>12}  {path}")


def say(line: str) -> None:
    """Print one line to the user, at once."""
    print(line, flush=True)
