"""Ray's Jobs API in our terms: states and exit codes of jobs, submitting, following and stopping them."""

import asyncio
import logging
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from orchestration.settings.cluster import TOKEN_HINT
from orchestration.settings.commands import SubmitConfig
from orchestration.settings.errors import ConfigError, InfrastructureError, ResumeError
from orchestration.submit.job import Job, source_folder, stage_code

ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"
RECONNECT_S = 2.0
PATIENCE = 15
"""Failed requests in a row, `RECONNECT_S` apart, after which a cluster counts as lost."""
EXIT_FAILED = 1
EXIT_STOPPED = 75
"""The run saved itself and left; see orchestration.cli."""
EXIT_INTERRUPTED = 130
SIGNAL_BASE = 128
"""A shell's exit code of a process that a signal ended is this and the signal's number."""
SIGKILL = 9
LOST_DRIVER = "JOB_SUPERVISOR_ACTOR_DIED"
"""Ray's error type for a driver whose machine, or whose supervising process, is gone."""


class JobStatus(StrEnum):
    """Ray's states of a job."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """What Ray knows of a job."""

    status: JobStatus
    driver_exit_code: int | None = None
    """None while it runs, and where the driver's end was not seen; negative for the signal that ended it."""
    error_type: str | None = None
    message: str = ""

    @property
    def is_over(self) -> bool:
        return self.status in (JobStatus.STOPPED, JobStatus.SUCCEEDED, JobStatus.FAILED)


def exit_code(state: JobState) -> int:
    """Return the exit code of a command whose job ended so.

    Example:
        >>> exit_code(JobState(status=JobStatus.FAILED, driver_exit_code=-9))
        137
    """
    if state.status is JobStatus.SUCCEEDED:
        return 0
    if state.status is JobStatus.STOPPED:
        return EXIT_INTERRUPTED
    code = state.driver_exit_code
    if code is None or code == 0:  # 0 and FAILED: its supervisor died before it could report
        return EXIT_FAILED
    return code if code > 0 else SIGNAL_BASE - code


def is_worth_repeating(state: JobState) -> bool:
    """Return whether the same job, submitted again, may get further than this one did.

    That holds for a run that saved itself, and for a driver that was killed or lost its machine. A wrong setting, an
    update that must not be applied, or a cluster that is too small would end the next attempt in the same way, and a
    stopped job was stopped on purpose.
    """
    if state.status is not JobStatus.FAILED:
        return False
    return state.error_type == LOST_DRIVER or exit_code(state) in (EXIT_STOPPED, SIGNAL_BASE + SIGKILL)


def server_address(config: SubmitConfig, shell: Mapping[str, str]) -> str:
    """Return the address of the dashboard, which settings or environment name.

    Raises:
        ConfigError: There is none, they differ, or it is no HTTP address.
    """
    named, set_here = config.address, shell.get(ADDRESS_VARIABLE)
    if named and set_here and named != set_here:
        raise ConfigError(
            f"submit.address is {named} and {ADDRESS_VARIABLE} is {set_here}; Ray would take the latter: unset one"
        )
    address = named or set_here
    if address is None:
        raise ConfigError(
            f"submit.address is null and {ADDRESS_VARIABLE} is not set; name the cluster's dashboard, such as "
            "submit.address=http://127.0.0.1:8265 behind `kubectl port-forward` or `ssh -L 8265:127.0.0.1:8265 head`"
        )
    if not address.startswith(("http://", "https://")):
        raise ConfigError(f"submit.address={address} is no dashboard; write it as http://HOST:8265")
    return address


class RayJobServer:
    """A cluster's job server. Prints the output of jobs on stdout; holds nothing open between calls."""

    def __init__(self, address: str, config: SubmitConfig) -> None:
        """Connect.

        Raises:
            ConfigError: No job server answers there, or it refuses the token.
        """
        from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient

        self.address = address
        self._config = config
        # Ray's client prefers these two variables to the address that it is given.
        os.environ.pop("RAY_ADDRESS", None)
        os.environ[ADDRESS_VARIABLE] = address
        # It logs every package that it looks for.
        logging.getLogger("ray.dashboard.modules").setLevel(logging.WARNING)
        # Unless the environment says so, Ray's client sends no token, not even one in the home folder.
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
        try:
            self._client = JobSubmissionClient(address)
        except AuthenticationError as error:
            raise ConfigError(
                f"submit.address={address} asks for a token, and takes none that is found here: {TOKEN_HINT}"
            ) from error
        except (ConnectionError, RuntimeError) as error:
            raise ConfigError(
                f"submit.address={address}: no job server answers ({error}); it runs where the head was started with "
                "--include-dashboard=true"
            ) from error

    def jobs(self) -> Mapping[str, JobState]:
        """Return every job that the cluster remembers, by id."""
        found = self._client.list_jobs()
        return {job.submission_id: _state(job) for job in found if job.submission_id is not None}

    def submit(self, job: Job, identity: str) -> None:
        """Submit the job, with its code where `submit.ship_code` says so.

        Raises:
            ResumeError: This id was submitted by somebody else meanwhile.
            InfrastructureError: The cluster did not take the job.
        """
        environment: dict[str, Any] = {"env_vars": dict(job.environment)}
        driver = self._config.driver
        with tempfile.TemporaryDirectory(prefix="mixed-r1-code-") as folder:
            if self._config.ship_code:
                limit = self._config.max_package_mib
                staged = stage_code(source_folder(), Path(folder) / "code", max_mib=limit, files=job.files)
                environment["working_dir"] = str(staged)
            try:
                self._client.submit_job(
                    entrypoint=job.entrypoint,
                    submission_id=identity,
                    runtime_env=environment,
                    metadata=dict(job.metadata),
                    entrypoint_num_cpus=driver.num_cpus or None,
                    entrypoint_resources=dict(driver.resources) or None,
                    entrypoint_label_selector=dict(driver.labels) or None,
                )
            except RuntimeError as error:
                if "already exists" in str(error):
                    raise ResumeError(f"{identity} was submitted by somebody else just now; try again") from error
                raise InfrastructureError(f"{self.address} did not take the job: {error}") from error

    def follow(self, identity: str) -> JobState:
        """Print the job's output until it ends, and return its final state.

        Raises:
            InfrastructureError: The cluster does not answer any more.
        """
        return asyncio.run(self._follow(identity))

    def stop(self, identity: str) -> None:
        """Ask the job to save and end."""
        self._client.stop_job(identity)

    async def _follow(self, identity: str) -> JobState:
        """Tail the output, again where the connection breaks, until Ray reports the job as ended."""
        num_shown = unanswered = 0
        while True:
            is_whole, num_shown = await self._tail(identity, num_shown)
            try:
                state = _state(await asyncio.to_thread(self._client.get_job_info, identity))
            except (OSError, RuntimeError) as error:
                unanswered += 1
                if unanswered > PATIENCE:
                    raise InfrastructureError(
                        f"{self.address} has not answered for {PATIENCE * RECONNECT_S:g} s ({error}); what became of "
                        f"{identity} is not known. Once the cluster is back, the same command continues"
                    ) from error
            else:
                unanswered = 0
                if state.is_over:
                    if not is_whole:
                        await self._tail(identity, num_shown)
                    return state
            await asyncio.sleep(RECONNECT_S)

    async def _tail(self, identity: str, num_shown: int) -> tuple[bool, int]:
        """Print what is new until the job ends.

        Args:
            identity: Of the job.
            num_shown: Characters printed so far; Ray sends a log from its beginning at each connection.

        Returns:
            Whether the log is whole, or the connection broke before; and the characters printed by now.
        """
        import aiohttp

        num_received = 0
        try:
            async for text in self._client.tail_job_logs(identity):
                new = text[max(0, num_shown - num_received) :]
                num_received += len(text)
                num_shown = max(num_shown, num_received)
                sys.stdout.write(new)
                sys.stdout.flush()
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            logging.getLogger(__name__).debug("the log of %s broke off: %s", identity, error)
            return False, num_shown
        return True, num_shown


def _state(details: Any) -> JobState:
    """Return the state that Ray's JobDetails hold."""
    return JobState(
        status=JobStatus(details.status.value),
        driver_exit_code=details.driver_exit_code,
        error_type=details.error_type,
        message=details.message or "",
    )
