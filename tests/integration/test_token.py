"""Clusters that ask for a token, as Ray's do wherever one lies in the home folder."""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.job_cluster import job_cluster
from tests.integration.two_nodes import two_nodes

ROOT = Path(__file__).parents[2]
JOIN = """
import sys
import tempfile
from pathlib import Path
import ray
from orchestration.cli import compose
from orchestration.cluster.session import ray_session
from orchestration.settings.experiment import build_settings
from orchestration.settings.errors import ConfigError
config = build_settings(compose([f"cluster.address={sys.argv[1]}"]))
try:
    with ray_session(config.cluster, 1, Path(tempfile.mkdtemp())):
        print(len(ray.nodes()), "node, token sent")
except ConfigError as error:
    print(error)
"""


def run(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_run_joins_a_cluster_with_the_token_of_the_home_folder_or_says_how(token: str, tmp_path: Path) -> None:
    with two_nodes(head_cpus=1, second_cpus=None) as nodes:
        assert "1 node, token sent" in run("-c", JOIN, nodes.address)
        assert "1 node, token sent" in run(
            "-c", JOIN, nodes.address, HOME=str(tmp_path), RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token
        )
        refused = run("-c", JOIN, nodes.address, HOME=str(tmp_path))
        assert refused.startswith(f"cluster.address={nodes.address} cannot be joined"), refused
        assert "export RAY_AUTH_TOKEN_PATH=FILE" in refused


@pytest.mark.slow
def test_a_submission_without_the_token_says_how(token: str, tmp_path: Path) -> None:
    with job_cluster(head_cpus=1) as cluster:
        submit = ["-m", "orchestration.cli", "submit", "experiment=cpu_smoke", "cluster=ray", "run_dir=/shared/run"]
        said = run(*submit, "cache_dir=/shared/cache", f"submit.address={cluster.dashboard}", HOME=str(tmp_path))
        assert said.startswith(f"mixed-r1 submit: submit.address={cluster.dashboard} asks for a token"), said


@pytest.mark.slow
def test_a_token_in_the_home_folder_keeps_nobody_out_of_a_cluster_without_one(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        with monkeypatch.context() as of_the_head:
            of_the_head.setenv("RAY_AUTH_MODE", "disabled")
            nodes = stack.enter_context(two_nodes(head_cpus=1, second_cpus=None))
        assert "1 node, token sent" in run("-c", JOIN, nodes.address)
