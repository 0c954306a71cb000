"""The folder of a run's temporary files: short enough for sockets, private, and gone afterwards."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.cluster import ray_folder as folder
from orchestration.cluster.ray_folder import RAY_BYTES, SOCKET_BYTES, private_folder, temporary_base


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(folder, "temporary_base", lambda: tmp_path)
    return tmp_path


def test_a_folder_is_private_and_goes_with_all_that_it_holds(base: Path) -> None:
    with private_folder() as made:
        assert made.stat().st_mode & 0o777 == 0o700
        (made / "session").mkdir()
        (made / "session" / "log").write_text("x")
    assert list(base.iterdir()) == []


def test_what_a_killed_run_left_is_removed_and_what_a_living_one_uses_is_not(base: Path) -> None:
    code = f"""
import time
from pathlib import Path
from orchestration.cluster import ray_folder as folder
folder.temporary_base = lambda: Path({str(base)!r})
with folder.private_folder() as made:
    print(made, flush=True)
    time.sleep(600)
"""
    runs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    living, killed = [Path(run.stdout.readline().strip()) for run in runs if run.stdout is not None]
    (base / "mr1-notours1").mkdir()  # without a lock it is not ours
    runs[1].send_signal(signal.SIGKILL)
    runs[1].wait()
    with private_folder():
        assert living.is_dir()
        assert not killed.exists()
        assert (base / "mr1-notours1").is_dir()
    runs[0].kill()
    runs[0].wait()


def test_sockets_fit_below_the_folder_however_long_the_users_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("t" * 90)
    long.mkdir()
    for name, chosen in (("/var/tmp", "/var/tmp"), (str(long), "/tmp")):
        monkeypatch.setenv("RAY_TMPDIR", name)
        assert temporary_base() == Path(chosen)
        with private_folder() as made:
            assert len(os.fsencode(made)) + RAY_BYTES <= SOCKET_BYTES
