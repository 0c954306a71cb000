"""One run, one or more jobs: submit, follow to the end, and submit again where that helps."""

from collections.abc import Callable, Mapping
from typing import Protocol

from orchestration.settings.commands import SubmitConfig
from orchestration.settings.errors import ResumeError
from orchestration.submit.ending import EXIT_INTERRUPTED, JobState, JobStatus, exit_code, is_worth_repeating
from orchestration.submit.job import Job, attempt_of, job_id


class JobServer(Protocol):
    """What a cluster's job server can do; `client.RayJobServer` speaks to a real one."""

    address: str

    def jobs(self) -> Mapping[str, JobState]:
        """Give every job that the cluster remembers, by id."""

    def submit(self, job: Job, identity: str) -> None:
        """Hand the job over; its code is shipped from here.

        Raises:
            ResumeError: Somebody else submitted this id meanwhile.
        """

    def follow(self, identity: str) -> JobState:
        """Show the job's output until it ends; gives its end.

        Raises:
            InfrastructureError: The cluster does not answer any more.
        """

    def stop(self, identity: str) -> None:
        """Ask the job to save and end."""


def run_attempts(
    job: Job,
    config: SubmitConfig,
    server: JobServer,
    *,
    say: Callable[[str], None],
    wait: Callable[[float], None],
) -> int:
    """Submit a job, or join the one that runs, and see it through.

    Args:
        job: What to submit.
        config: How often, and what Ctrl-C means.
        server: Where.
        say: Told in whole lines what happens.
        wait: Passes the seconds between two attempts.

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
        say(_closing_words(identity, state))
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


def _submit(job: Job, number: int, server: JobServer, say: Callable[[str], None]) -> None:
    identity = job_id(job.name, number)
    server.submit(job, identity)
    say(f"submitted {identity} to {server.address}: {job.entrypoint}")


def _interrupted(identity: str, config: SubmitConfig, server: JobServer, say: Callable[[str], None]) -> int:
    if config.on_interrupt == "detach":
        say(f"\n{identity} goes on without you. {_how_to_return(identity, server.address)}")
        return EXIT_INTERRUPTED
    say(f"\nasking {identity} to save and end, within {config.stop_wait_s:g} s; Ctrl-C again leaves it to that")
    server.stop(identity)
    try:
        say(_closing_words(identity, server.follow(identity)))
    except KeyboardInterrupt:
        say(_how_to_return(identity, server.address))
    return EXIT_INTERRUPTED


def _closing_words(identity: str, state: JobState) -> str:
    if state.status is JobStatus.FAILED and state.driver_exit_code is None:
        # Nothing of this is in the job's own output; the first line has the reason, the rest is Ray's traceback.
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
