"""`mixed-r1 submit`: from settings to a job's exit code."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from orchestration.config.experiment import ExperimentConfig, check_inputs_named
from orchestration.config.strict import build
from orchestration.submission.attempts import run_attempts
from orchestration.submission.client import RayJobServer, server_address
from orchestration.submission.job import make_job


def submit_run(values: Mapping[str, Any], overrides: Sequence[str]) -> int:
    """Submit the run that these settings describe and give the command's exit code.

    Folders are not looked at: they lie on the cluster's machines, and the job itself checks them.

    Args:
        values: composed settings, with folders as they were written.
        overrides: what they were composed from.

    Raises:
        ConfigError: a setting cannot be used.
        ResumeError: a job of this run is there already.
    """
    config = build(ExperimentConfig, values)
    check_inputs_named(config)
    job = make_job(config, overrides, os.environ)
    server = RayJobServer(server_address(config.submit, os.environ), config.submit)
    return run_attempts(job, config.submit, server, say=_say, wait=time.sleep)


def _say(line: str) -> None:
    print(line, flush=True)
