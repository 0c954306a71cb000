"""RayJobServer: Ray's Jobs API, in our words. The only module of the package that speaks Ray."""

import asyncio
import logging
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestration.settings.cluster import TOKEN_HINT
from orchestration.settings.commands import SubmitConfig
from orchestration.settings.errors import ConfigError, InfrastructureError, ResumeError
from orchestration.submit.ending import JobState, JobStatus
from orchestration.submit.job import Job
from orchestration.submit.package import source_folder, stage_code

ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"
RECONNECT_S = 2.0
PATIENCE = 15
"""Unanswered questions in a row, `RECONNECT_S` apart, after which a cluster counts as gone."""


def server_address(config: SubmitConfig, shell: Mapping[str, str]) -> str:
    """Give the address of the dashboard, which both settings and environment may name.

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
    """A cluster's job server. Consumes jobs, produces their output on stdout; holds nothing open between calls."""

    def __init__(self, address: str, config: SubmitConfig) -> None:
        """Connect.

        Raises:
            ConfigError: Nobody answers there.
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
        # Unless the environment says so, Ray's client sends no token, not even one that lies in the home folder.
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
        """See JobServer."""
        found = self._client.list_jobs()
        return {job.submission_id: _state(job) for job in found if job.submission_id is not None}

    def submit(self, job: Job, identity: str) -> None:
        """See JobServer."""
        environment: dict[str, Any] = {"env_vars": dict(job.environment)}
        driver = self._config.driver
        with tempfile.TemporaryDirectory(prefix="mixed-r1-code-") as folder:
            if self._config.ship_code:
                staged = stage_code(source_folder(), Path(folder) / "code", max_mib=self._config.max_package_mib)
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
        """See JobServer."""
        return asyncio.run(self._follow(identity))

    def stop(self, identity: str) -> None:
        """See JobServer."""
        self._client.stop_job(identity)

    async def _follow(self, identity: str) -> JobState:
        """Tail the output, again where the connection breaks, until Ray calls the job ended."""
        output = _Output()
        unanswered = 0
        while True:
            is_whole = await self._tail(identity, output)
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
                        await self._tail(identity, output)
                    return state
            await asyncio.sleep(RECONNECT_S)

    async def _tail(self, identity: str, output: "_Output") -> bool:
        """Show what is new until the job ends; False where the connection broke before."""
        import aiohttp

        output.begin_again()
        try:
            async for text in self._client.tail_job_logs(identity):
                output.take(text)
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            logging.getLogger(__name__).debug("the log of %s broke off: %s", identity, error)
            return False
        return True


@dataclass(slots=True)
class _Output:
    """Ray tells a log from its beginning each time; this shows every character once."""

    num_shown: int = 0
    _num_told: int = field(default=0)

    def begin_again(self) -> None:
        self._num_told = 0

    def take(self, text: str) -> None:
        new = text[max(0, self.num_shown - self._num_told) :]
        self._num_told += len(text)
        self.num_shown = max(self.num_shown, self._num_told)
        sys.stdout.write(new)
        sys.stdout.flush()


def _state(details: Any) -> JobState:
    """Translate Ray's JobDetails."""
    return JobState(
        status=JobStatus(details.status.value),
        driver_exit_code=details.driver_exit_code,
        error_type=details.error_type,
        message=details.message or "",
    )
