"""One training job from config to exit: demo artifacts, Ray, the run, the closing words."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from orchestration.config.experiment import ExperimentConfig
from orchestration.faults import FaultKind, kind_of, read_faults
from orchestration.host.garbage import collect_rarely
from orchestration.host.guard import guarded
from orchestration.host.object_store import check_object_store
from orchestration.inputs import check_rewards, prepare_inputs
from orchestration.loop import train_and_finish
from orchestration.persistence.finished import check_finished, read_evaluation
from orchestration.persistence.lock import exclusive
from orchestration.persistence.state import RunFolder, settle_config, write_environment
from orchestration.placement.seats import seated
from orchestration.report.page import write_report
from orchestration.report.tables import before_after_table
from orchestration.run import Run


def run_training(config: ExperimentConfig) -> None:
    """Train as configured, or continue; leaves the exported model and a report in the run folder.

    Raises:
        ResumeError: the folder belongs to other settings, or another process is writing it.
    """
    folder = RunFolder(config.run_path)
    busy = f"another process is training in {folder.root}; wait for it or use another run_dir"
    with exclusive(folder.root, refusal=busy):
        settle_config(folder, config)
        if check_finished(folder, config.training.num_steps):
            say(f"{folder.root} has done all {config.training.num_steps} steps")
        else:
            write_environment(folder)
            _train(config, folder)
        write_report(folder)
        _conclude(folder)


def _train(config: ExperimentConfig, folder: RunFolder) -> None:
    started = time.perf_counter()
    inputs = prepare_inputs(config)
    check_rewards(config.reward, inputs.model, inputs.train, inputs.held_out)
    if (warning := check_object_store(config, inputs.train)) is not None:
        say(warning)
    with guarded(), seated(config, folder.logs) as seats:
        run = Run(config, inputs=inputs, seats=seats, say=say)
        try:
            asyncio.run(_whole(run))
        except BaseExceptionGroup as group:
            raise _first_cause(group) from group
    say(f"trained in {time.perf_counter() - started:.0f} s")


async def _whole(run: Run) -> None:
    try:
        await run.start()
        collect_rarely()
        with _termination_saves(run):
            await _train_or_rescue(run)
    finally:
        await run.close()


async def _train_or_rescue(run: Run) -> None:
    try:
        await train_and_finish(run)
    except Exception as error:
        if kind_of(_first_cause(error)) is FaultKind.INFRASTRUCTURE:
            await run.rescue()
        raise


@contextmanager
def _termination_saves(run: Run) -> Iterator[None]:
    """Within the block, SIGTERM lets the run save a checkpoint first; a second one ends it at once."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, _leave, loop, run)
    try:
        yield
    finally:
        _end_at_once(loop)


def _leave(loop: asyncio.AbstractEventLoop, run: Run) -> None:
    _end_at_once(loop)
    run.request_stop("SIGTERM received")


def _end_at_once(loop: asyncio.AbstractEventLoop) -> None:
    loop.remove_signal_handler(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))


def _first_cause(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _conclude(folder: RunFolder) -> None:
    before, after = read_evaluation(folder, "before"), read_evaluation(folder, "after")
    if before and after:
        say("")
        say(before_after_table(before, after))
    if faults := Counter(fault.role for fault in read_faults(folder.faults)):
        say("")
        words = ", ".join(f"{count} {role} faults" for role, count in sorted(faults.items()))
        say(f"survived: {words}; {folder.faults}")
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
