"""Signals to the command's whole process group, in a place that is as unkind as a user's may be."""

import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from orchestration.cluster.guard import processes
from orchestration.cluster.local_ray import PREFIX
from tests.integration.driver import Driver

ROOT = Path(__file__).parents[2]
PLANTED = (
    "rewards/__init__.py",
    "learner/__init__.py",
    "conf/__init__.py",
    "torch.py",
    "random.py",
    "ray.py",
    "vllm.py",
)


@pytest.fixture
def unkind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with modules of our names, no home folder, and a TMPDIR too long for a socket."""
    here, temporary = tmp_path / "here", tmp_path / ("t" * 90)
    for name in PLANTED:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text("raise SystemExit('imported from the working directory')\n")
    temporary.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HOME", "/proc/nobody")
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    return here


@pytest.mark.slow
def test_a_signal_to_the_whole_process_group_saves_the_run_and_the_same_command_continues(
    unkind: Path, tmp_path: Path, cache: Path
) -> None:
    left_before = set(Path("/tmp").glob(f"{PREFIX}*"))
    run = tmp_path / "run"

    def train() -> Driver:
        return Driver(
            unkind, "train", "experiment=cpu_smoke", f"run_dir={run}", f"cache_dir={cache}", "training.num_steps=1000",
            "training.checkpoint_every=1000", "evaluation.enabled=false",
        )  # fmt: skip

    num_steps = 0
    for number, code in ((signal.SIGTERM, 75), (signal.SIGINT, 130)):
        driver = train()
        driver.wait_for(run / "metrics.jsonl", num_steps + 2)
        os.killpg(driver.process.pid, number)
        assert driver.finish() == code, driver.output
        assert f"of 1000 is saved in {run / 'checkpoints'}" in driver.output
        assert "Traceback" not in driver.output
        assert driver.leftovers() == []
        assert ("resumed step_" in driver.output) == (num_steps > 0), driver.output
        num_steps = (run / "metrics.jsonl").read_text().count("\n")
        assert f"step {num_steps} of 1000 is saved" in driver.output

    assert set(Path("/tmp").glob(f"{PREFIX}*")) == left_before


def imports_torch(driver: int) -> bool:
    """Whether a child of the driver has a library of torch in its memory."""
    children = [pid for pid, process in processes().items() if process.parent == driver]
    with suppress(FileNotFoundError):  # a child that ended meanwhile
        return any("libtorch" in Path(f"/proc/{pid}/maps").read_text() for pid in children)
    return False


@pytest.mark.slow
def test_ctrl_c_or_sigterm_while_a_run_starts_is_one_line(unkind: Path, tmp_path: Path, cache: Path) -> None:
    def interrupted_when(
        folder: Path, reached: Callable[[Driver], bool], number: signal.Signals = signal.SIGINT
    ) -> str:
        driver = Driver(unkind, "train", "experiment=cpu_smoke", f"run_dir={tmp_path / 'run'}", f"cache_dir={folder}")
        driver.poll(lambda: reached(driver), 300.0)
        driver.send(number)
        assert driver.finish() == 130, driver.output
        assert driver.leftovers() == []
        return driver.output

    # The child that makes the demo's model has imported torch.
    said = interrupted_when(tmp_path / "cache", lambda driver: imports_torch(driver.process.pid))
    assert said == "stopped; nothing is saved yet, and the same command continues from the beginning\n"
    for number in (signal.SIGINT, signal.SIGTERM):
        said = interrupted_when(cache, lambda _: any((tmp_path / "run" / "logs").glob("engine_*.log")), number)
        assert said.splitlines()[-2:] == [
            "starting engines, reward actors and learner ranks ...",
            "stopped; nothing is saved yet, and the same command continues from the beginning",
        ]
        shutil.rmtree(tmp_path / "run")


@pytest.mark.slow
def test_a_second_ctrl_c_ends_a_run_at_once(unkind: Path, tmp_path: Path, cache: Path) -> None:
    run = tmp_path / "run"
    # Groups of the next step lie ready, and to train on them takes far longer than the moment between the two signals.
    # No checkpoint is due: one of the first step would be whole before the second signal, or after it, by chance.
    driver = Driver(
        unkind, "train", "experiment=cpu_smoke", f"run_dir={run}", f"cache_dir={cache}", "training.groups_per_step=16",
        "algorithm.num_epochs=20", "training.num_steps=1000", "training.checkpoint_every=1000",
        "evaluation.enabled=false",
    )  # fmt: skip
    driver.wait_for(run / "metrics.jsonl", 1)
    driver.send(signal.SIGINT)
    driver.poll(lambda: "Ctrl-C; a second one ends the run at once" in driver.output, 60.0)
    driver.send(signal.SIGINT)

    assert driver.finish() == 130, driver.output
    # The first signal alone would have ended the step and saved it.
    assert driver.output.splitlines()[-1] == (
        "stopped; nothing is saved yet, and the same command continues from the beginning"
    )
    assert "Traceback" not in driver.output
    assert driver.leftovers() == []
