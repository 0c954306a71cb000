"""docker/slurm.sh on an allocation of two nodes, both played by this machine; only Slurm's own commands are fakes."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.two_nodes import MARK

ROOT = Path(__file__).parents[2]
NUM_STEPS = 8

SRUN = """#!/usr/bin/env bash
# Runs a step here, whatever node it is for.
while [[ $1 == --* ]]; do
    case $1 in --output=*) exec >"${1#--output=}" 2>&1 ;; esac
    shift
done
exec "$@"
"""
SCONTROL = """#!/usr/bin/env bash
case $1 in
show) printf 'node_a\\nnode_b\\n' ;;
requeue) echo "$2" >>"$REQUEUED" ;;
esac
"""


class Allocation:
    """What Slurm gives a batch script, in a folder of its own."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.run = folder / "run"
        self.requeued = folder / "requeued"
        self.output_path = folder / "output.txt"
        self._folder, self._cache = folder, cache
        (folder / "bin").mkdir()
        for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
        self.job_id = str(random.randrange(10**6, 10**7))

    def batch(self, *, restarts: int = 0) -> subprocess.Popen[bytes]:
        settings = [
            "experiment=cpu_smoke", f"run_dir={self.run}", f"cache_dir={self._cache}", "evaluation.enabled=false",
            "cluster.reward_pool.num_actors=1", "training.checkpoint_every=100", f"training.num_steps={NUM_STEPS}",
        ]  # fmt: skip
        environment = {
            **os.environ,
            "PATH": f"{self._folder / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self._folder),
            "PYTHONPATH": str(ROOT),
            "MIXED_R1_PYTHON": sys.executable,
            "REQUEUED": str(self.requeued),
            "SLURM_JOB_ID": self.job_id,
            "SLURM_JOB_NODELIST": "node_[a-b]",
            "SLURM_CPUS_ON_NODE": "4",
            "SLURM_GPUS_ON_NODE": "0",
            "SLURM_RESTART_COUNT": str(restarts),
            MARK: self.job_id,
        }
        with self.output_path.open("a") as output:
            return subprocess.Popen(
                [ROOT / "docker" / "slurm.sh", *settings],
                cwd=self._folder, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def wait_until(self, batch: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 300
        while not condition():
            assert batch.poll() is None, self.output_path.read_text()
            assert time.monotonic() < deadline, self.output_path.read_text()
            time.sleep(0.2)

    def leftovers(self) -> list[int]:
        """Processes that still carry the mark, after ten seconds to leave."""
        deadline = time.monotonic() + 10
        while (found := list(self._marked())) and time.monotonic() < deadline:
            time.sleep(0.2)
        return found

    def _marked(self) -> list[int]:
        needle = f"{MARK}={self.job_id}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and needle in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
        return found


@pytest.mark.slow
def test_a_run_saves_itself_before_the_allocation_ends_is_requeued_and_goes_on(tmp_path: Path, cache: Path) -> None:
    slurm = Allocation(tmp_path, cache)
    metrics = slurm.run / "metrics.jsonl"

    first = slurm.batch()
    slurm.wait_until(first, lambda: metrics.is_file() and metrics.read_text().count("\n") >= 2)
    token = next(tmp_path.glob(".mixed-r1-ray-*"))
    assert token.stat().st_mode & 0o077 == 0
    secret = token.read_text()
    assert len(secret) == 64
    first.send_signal(signal.SIGTERM)  # what --signal=B:TERM@900 does
    assert first.wait(timeout=120) == 75, slurm.output_path.read_text()
    assert slurm.requeued.read_text().split() == [slurm.job_id]
    assert slurm.leftovers() == []
    assert not token.exists()
    assert not Path(f"/tmp/ray-{slurm.job_id}").exists()

    assert slurm.batch(restarts=1).wait(timeout=400) == 0, slurm.output_path.read_text()
    output = slurm.output_path.read_text()
    assert f"of {NUM_STEPS} steps are done" in output
    assert metrics.read_text().count("\n") == NUM_STEPS
    assert slurm.requeued.read_text().split() == [slurm.job_id]
    assert slurm.leftovers() == []
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in written if secret.encode() in path.read_bytes()] == []


@pytest.mark.parametrize(
    ("variables", "arguments", "refusal"),
    [
        ({}, ["run_dir=/shared/first"], "not inside a Slurm job"),
        ({"SLURM_JOB_ID": "7"}, ["run_dir=runs/first"], "name run_dir from the root"),
        ({"SLURM_JOB_ID": "7", "MIXED_R1_PYTHON": "/no/python"}, ["run_dir=/shared/first"], "/no/python is not on the"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_starts(
    variables: dict[str, str], arguments: list[str], refusal: str, tmp_path: Path
) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **variables}
    command = [ROOT / "docker" / "slurm.sh", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert refusal in done.stderr
    assert list(tmp_path.iterdir()) == []
