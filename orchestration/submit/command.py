"""`mixed-r1 submit`: submit a run as a job, follow it to the end, and submit it again where that helps."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestration.models.model_folder import check_model
from orchestration.settings.commands import SubmitConfig
from orchestration.settings.errors import ResumeError
from orchestration.settings.experiment import ExperimentConfig, check_inputs_named
from orchestration.settings.strict import build
from orchestration.submit.client import (
    EXIT_INTERRUPTED,
    JobState,
    JobStatus,
    RayJobServer,
    exit_code,
    is_worth_repeating,
    server_address,
)
from orchestration.submit.job import Job, attempt_of, job_id, make_job


def submit_run(values: Mapping[str, Any], overrides: Sequence[str]) -> int:
    """Submit the run that these settings describe and return the command's exit code.

    Folders are on the cluster's machines, and the job itself checks them; a model folder that exists here too is
    checked here first. Whether the run fits is checked by the job; `mixed-r1 plan` checks it here.

    Args:
        values: composed settings, with folders as they were written.
        overrides: what they were composed from.

    Raises:
        ConfigError: a setting cannot be used.
        ResumeError: a job of this run is there already.
    """
    config = build(ExperimentConfig, values)
    check_inputs_named(config)
    if config.model.folder is not None and config.model.folder.exists():
        check_model(config.model, config.reward, config.rollout.prompt_spec)
    job = make_job(config, overrides, os.environ)
    server = RayJobServer(server_address(config.submit, os.environ), config.submit)
    return run_attempts(job, config.submit, server, say=_say, wait=time.sleep)


def _say(line: str) -> None:
    print(line, flush=True)


def run_attempts(
    job: Job,
    config: SubmitConfig,
    server: RayJobServer,
    *,
    say: Callable[[str], None],
    wait: Callable[[float], None],
) -> int:
    """Submit a job, or follow the one that runs, and submit it again until it succeeds or attempts are used up.

    Args:
        job: What to submit.
        config: Number of attempts, and what Ctrl-C does.
        server: Of the cluster.
        say: Prints one line.
        wait: Waits the seconds between two attempts.

    Returns:
        The exit code of the command.

    Raises:
        ResumeError: A job of this run is there already.
    """
    found = {number: state for key, state in server.jobs().items() if (number := attempt_of(key, job.name))}
    running = [number for number, state in found.items() if not state.is_over]
    if running:
        number = max(running)
        if config.if_running == "refuse":
            raise ResumeError(_refusal(job, job_id(job.name, number), found[number], server.address))
    else:
        number = max(found, default=0) + 1
        _submit(job, number, server, say)
    if not config.follow:
        say(_how_to_return(job_id(job.name, number), server.address))
        return 0
    for attempts_left in reversed(range(config.max_attempts)):
        identity = job_id(job.name, number)
        try:
            state = server.follow(identity)
        except KeyboardInterrupt:
            return _interrupted(identity, config, server, say)
        say(_outcome(identity, state))
        if not is_worth_repeating(state):
            break
        if attempts_left == 0:
            say(f"{config.max_attempts} attempts are used up (submit.max_attempts); the same command continues")
            break
        say(f"submitting again in {config.retry_wait_s:g} s; {attempts_left} attempts are left")
        try:
            wait(config.retry_wait_s)
        except KeyboardInterrupt:
            say("not submitted again; the same command continues")
            return EXIT_INTERRUPTED
        number += 1
        _submit(job, number, server, say)
    return exit_code(state)


def _submit(job: Job, number: int, server: RayJobServer, say: Callable[[str], None]) -> None:
    identity = job_id(job.name, number)
    server.submit(job, identity)
    say(f"submitted {identity} to {server.address}: {job.entrypoint}")


def _interrupted(identity: str, config: SubmitConfig, server: RayJobServer, say: Callable[[str], None]) -> int:
    if config.on_interrupt == "detach":
        say(f"\n{identity} goes on without you. {_how_to_return(identity, server.address)}")
        return EXIT_INTERRUPTED
    say(f"\nasking {identity} to save and end, within {config.stop_wait_s:g} s; Ctrl-C again leaves it to that")
    server.stop(identity)
    try:
        say(_outcome(identity, server.follow(identity)))
    except KeyboardInterrupt:
        say(_how_to_return(identity, server.address))
    return EXIT_INTERRUPTED


def _outcome(identity: str, state: JobState) -> str:
    if state.status is JobStatus.FAILED and state.driver_exit_code is None:
        # This is not in the job's own output; the first line has the reason, the rest is Ray's traceback.
        return f"{identity} {state.status} ({state.error_type}): {state.message.strip().splitlines()[0]}"
    return f"{identity} {state.status} with exit code {exit_code(state)}"


def _refusal(job: Job, identity: str, state: JobState, address: str) -> str:
    return (
        f"{identity} is {state.status} and trains in {job.metadata['run_dir']}; add submit.if_running=follow to see it "
        f"through, or end it first: ray job stop {identity} --address {address}"
    )


def _how_to_return(identity: str, address: str) -> str:
    return (
        f"The same command with submit.if_running=follow returns to it; ray job logs {identity} --follow --address "
        f"{address} only looks, ray job stop {identity} --address {address} lets it save and end"
    )
