"""`mixed-r1 submit`: from settings to a job's exit code."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from orchestration.models.model_folder import check_model
from orchestration.settings.experiment import ExperimentConfig, check_inputs_named
from orchestration.settings.strict import build
from orchestration.submit.attempts import run_attempts
from orchestration.submit.client import RayJobServer, server_address
from orchestration.submit.job import make_job


def submit_run(values: Mapping[str, Any], overrides: Sequence[str]) -> int:
    """Submit the run that these settings describe and give the command's exit code.

    Folders lie on the cluster's machines, and the job itself checks them; a model folder that is seen here too is
    checked here first. Whether the run fits is the job's to say: `mixed-r1 plan` says it here.

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
        check_model(config.model, config.reward)
    job = make_job(config, overrides, os.environ)
    server = RayJobServer(server_address(config.submit, os.environ), config.submit)
    return run_attempts(job, config.submit, server, say=_say, wait=time.sleep)


def _say(line: str) -> None:
    print(line, flush=True)
