"""Runs as jobs of a real Ray cluster: followed, killed, submitted again, resumed, and failing loudly."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.job_submission import JobSubmissionClient

from rollout.dataset import write_samples
from rollout.records import Sample
from tests.integration.driver import Driver
from tests.integration.job_cluster import JobCluster, job_cluster
from tests.integration.two_nodes import ENVIRONMENT
from tests.unit.model_folders import write_model_folder

ROOT = Path(__file__).parents[2]
NUM_STEPS = 16
GROUPS_PER_STEP = 4
ACTORS = ("EngineActor", "RewardActor", "LearnerActor")
# By readlink: raylets of one machine share a folder, and each unpacks the job's anew, so that the driver's own is gone.
OWN_REWARD = """
import os
from pathlib import Path

from lengths import share_of

LIMIT = int(Path(__file__).with_name("limit.txt").read_text())


def score(request):
    return share_of(request.response, LIMIT), f"{__file__} in {os.readlink('/proc/self/cwd')}"
"""


@pytest.fixture
def environment(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in ENVIRONMENT.items():
        monkeypatch.setenv(key, value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    # Jobs, and commands in folders of their own, import the packages that are tested.
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def head(environment: None) -> Iterator[JobCluster]:
    with job_cluster(head_cpus=4) as cluster:
        yield cluster


@pytest.fixture
def cluster(environment: None) -> Iterator[JobCluster]:
    """Three nodes with room for every actor on each."""
    with job_cluster(head_cpus=4, worker_cpus=(3, 3)) as cluster:
        yield cluster


def settings(folder: Path, cache: Path) -> list[str]:
    return [
        "experiment=cpu_smoke",
        "cluster=ray",
        "cluster.pin_cores=true",
        f"run_dir={folder / 'run'}",
        f"cache_dir={cache}",
        "cluster.reward_pool.num_actors=2",
        "rollout.engines=2",
        f"training.num_steps={NUM_STEPS}",
        f"training.groups_per_step={GROUPS_PER_STEP}",
        "evaluation.enabled=false",
    ]


def submit(folder: Path, cache: Path, cluster: JobCluster, *more: str) -> Driver:
    return Driver(
        folder,
        "submit",
        *settings(folder, cache),
        f"submit.address={cluster.dashboard}",
        f"submit.python={sys.executable}",
        "submit.name=story",
        "submit.retry_wait_s=1",
        "submit.allow_temporary_run_dir=true",
        *more,
    )


def statuses(cluster: JobCluster) -> dict[str, str]:
    token = Path.home().joinpath(".ray", "auth_token").read_text()
    jobs = JobSubmissionClient(cluster.dashboard, headers={"Authorization": f"Bearer {token}"}).list_jobs()
    return {str(job.submission_id): str(job.status) for job in jobs if job.submission_id}


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_whole_and_once(run: Path) -> None:
    """Every step has its line, and every position of the prompt stream was used up once."""
    assert [line["step"] for line in lines_of(run / "metrics.jsonl")] == list(range(NUM_STEPS))
    ledger = lines_of(run / "ledger.jsonl")
    used = [entry[0] for line in ledger for part in ("trained", "replaced", "dropped") for entry in line[part]]
    assert sorted(used) == list(range(NUM_STEPS * GROUPS_PER_STEP))


def assert_nothing_left(cluster: JobCluster, driver: Driver) -> None:
    assert driver.leftovers() == []
    cluster.nodes[0].wait_until(lambda: not cluster.pids("orchestration."))
    cluster.nodes[0].wait_until(lambda: not [pid for name in ACTORS for pid in cluster.pids(f"ray::{name}")])


def test_exit_codes_of_failing_jobs_are_carried_through(tmp_path: Path, head: JobCluster) -> None:
    # A wrong setting that only the cluster's machine can see, and a run that breaks after it has begun.
    wrong = submit(tmp_path, tmp_path, head, "data.train=/nowhere/a.parquet", "data.held_out=/nowhere/b.parquet")
    model = write_model_folder(tmp_path / "model")
    rows = tmp_path / "rows.parquet"
    write_samples(rows, [Sample(sample_id="0", source="s", task="match_yesno", question="Is it?", answer="yes")])
    assert wrong.finish() == 2, wrong.output
    assert "mixed-r1 train: data.train=/nowhere/a.parquet does not exist" in wrong.output

    own = ("model=qwen2_5_vl", f"model.path={model}", f"data.train={rows}", f"data.held_out={rows}")
    breaking = submit(tmp_path, tmp_path, head, *own, "cluster.faults.start_timeout_s=0.01", "rollout.engines=1")
    assert breaking.finish() == 1, breaking.output
    assert "cluster.faults.start_timeout_s=0.01" in breaking.output


def write_own_reward(folder: Path) -> tuple[str, str]:
    """A reward with a module beside it and a file that it reads, below the folder of the command; give its settings."""
    own = folder / "own"
    own.mkdir()
    (own / "my_rewards.py").write_text(OWN_REWARD)
    (own / "lengths.py").write_text("def share_of(text, limit):\n    return min(1.0, len(text) / limit)\n")
    (own / "limit.txt").write_text("1000")
    return "reward.functions.mine=own/my_rewards.py:score", "reward.routes.chart=mine"


def assert_shipped_code_ran(run: Path, original: Path) -> None:
    """The job found the code where Ray had unpacked it; its actors loaded the copies of the run folder."""
    [noted] = json.loads((run / "own_code.json").read_text()).values()
    assert "_ray_pkg_" in noted["code"]
    assert set(noted["files"]) == {"my_rewards.py", "lengths.py", "limit.txt"}
    recorded = [line for line in lines_of(run / "samples.jsonl") if line["task"] == "chart"]
    assert recorded
    for line in recorded:
        for text, parts in zip(line["completions"], line["explanations"], strict=True):
            file, _, folder = parts["mine"].partition(" in ")
            assert Path(file).is_relative_to(run / "own_code"), text
            assert not Path(folder).is_relative_to(original)


@pytest.mark.slow
def test_a_driver_that_is_killed_is_submitted_again_and_goes_on(
    tmp_path: Path, cache: Path, cluster: JobCluster
) -> None:
    """Its code and that of the user are what was shipped, in every attempt."""
    own = (*write_own_reward(tmp_path), "training.recorded_groups_per_step=4")
    driver = submit(tmp_path, cache, cluster, *own)
    # Whoever submits the same run meanwhile is told so.
    driver.poll(lambda: "Running entrypoint for job story-1" in driver.output, 120.0)
    second = submit(tmp_path, cache, cluster, *own)
    assert second.finish() == 2
    assert "story-1 is RUNNING" in second.output
    assert "submit.if_running=follow" in second.output

    driver.wait_for(tmp_path / "run" / "metrics.jsonl", 2)
    assert sum(len(node.actors("EngineActor")) for node in cluster.nodes) == 2
    assert sum(any(node.actors(name) for name in ACTORS) for node in cluster.nodes) >= 2
    [victim] = cluster.pids("orchestration.cli", "train")
    assert "_ray_pkg_" in os.readlink(f"/proc/{victim}/cwd")  # the code that was shipped
    os.kill(victim, signal.SIGKILL)

    assert driver.finish() == 0, driver.output
    assert statuses(cluster) == {"story-1": "FAILED", "story-2": "SUCCEEDED"}
    output = driver.output
    assert output.index("story-1 FAILED with exit code 137") < output.index("submitting again in 1 s")
    assert f"of {NUM_STEPS} steps are done" in output.split("submitting again", 1)[1]
    assert "story-2 SUCCEEDED with exit code 0" in output
    assert_whole_and_once(tmp_path / "run")
    assert_shipped_code_ran(tmp_path / "run", tmp_path / "own")
    assert_nothing_left(cluster, driver)


@pytest.mark.slow
def test_ctrl_c_stops_a_job_that_saves_itself_and_the_same_command_continues(
    tmp_path: Path, cache: Path, cluster: JobCluster
) -> None:
    driver = submit(tmp_path, cache, cluster, "submit.on_interrupt=stop", "training.checkpoint_every=100")
    driver.wait_for(tmp_path / "run" / "metrics.jsonl", 2)
    driver.send(signal.SIGINT)
    assert driver.finish() == 130
    assert "is saved in" in driver.output
    assert statuses(cluster) == {"story-1": "STOPPED"}
    assert_nothing_left(cluster, driver)

    again = submit(tmp_path, cache, cluster, "training.checkpoint_every=100")
    assert again.finish() == 0, again.output
    assert "resumed step_" in again.output
    assert statuses(cluster) == {"story-1": "STOPPED", "story-2": "SUCCEEDED"}
    assert_whole_and_once(tmp_path / "run")
    assert_nothing_left(cluster, again)


@pytest.mark.slow
def test_rays_own_command_submits_stops_and_continues_a_run(tmp_path: Path, cache: Path, cluster: JobCluster) -> None:
    def ray_job(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [Path(sys.executable).parent / "ray", "job", *arguments]
        # Ray's own command sends the token of the home folder where it is told to, as docker/README.md says.
        told = {**os.environ, "RAY_AUTH_MODE": "token"}
        return subprocess.run(command, cwd=ROOT, env=told, capture_output=True, text=True, check=False, timeout=400)

    shipped = {
        "working_dir": ".",
        "excludes": ["/tests", "/docker", ".*"],
        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "100"},
    }
    address = f"--address={cluster.dashboard}"
    options = [address, "--runtime-env-json", json.dumps(shipped)]
    line = ["--", sys.executable, "-m", "orchestration.cli", "train", *settings(tmp_path, cache)]
    begun = ray_job("submit", *options, "--no-wait", "--submission-id=first", *line)
    assert begun.returncode == 0, begun.stderr
    metrics = tmp_path / "run" / "metrics.jsonl"
    cluster.nodes[0].wait_until(lambda: metrics.is_file() and metrics.read_text().count("\n") >= 2, timeout_s=300)
    assert ray_job("stop", address, "first").returncode == 0

    continued = ray_job("submit", *options, "--submission-id=second", *line)

    assert continued.returncode == 0, continued.stdout + continued.stderr
    assert "resumed step_" in continued.stdout
    assert statuses(cluster) == {"first": "STOPPED", "second": "SUCCEEDED"}
    assert_whole_and_once(tmp_path / "run")
