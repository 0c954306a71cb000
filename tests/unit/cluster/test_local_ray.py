"""A Ray of this machine: its folder is short, private, and gone afterwards; its store holds the groups of a run."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.cli import compose
from orchestration.cluster import local_ray
from orchestration.cluster.local_ray import (
    RAY_BYTES,
    SOCKET_BYTES,
    StoreNeed,
    check_object_store,
    check_room,
    private_folder,
    store_need,
    temporary_base,
)
from orchestration.inputs.machine import build_config
from orchestration.settings.errors import ConfigError
from rollout.dataset import write_samples
from rollout.records import ImageBytes, Sample


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(local_ray, "temporary_base", lambda: tmp_path)
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
from orchestration.cluster import local_ray
local_ray.temporary_base = lambda: Path({str(base)!r})
with local_ray.private_folder() as made:
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


MIB = 1 << 20


def test_the_groups_on_their_way_are_those_ahead_carried_and_being_scored(tmp_path: Path) -> None:
    settings = {
        "training.groups_per_step": 10,
        "training.max_staleness": 3,
        "training.run_ahead": 1,
        "training.oversampling": 1.5,
        "cluster.reward_pool.num_actors": 2,
        "cluster.reward_pool.calls_per_actor": 3,
        "rollout.sampling.group_size": 8,
        "rollout.sampling.max_completion_tokens": 100,
        "rollout.engine.max_model_len": 500,
        "run_dir": tmp_path,
    }
    config = build_config(compose([f"{key}={value}" for key, value in settings.items()]))
    need = store_need(config, image_bytes=70_000.0)
    assert need.num_groups == 2 * 10 * 1.5 + 2 * 10 + 2 * 3
    assert need.group_bytes == 70_000 + 8 * (500 + 8 * 100)
    assert need.total_bytes == need.num_groups * need.group_bytes


def test_groups_that_fit_are_not_worth_a_word() -> None:
    assert check_room(StoreNeed(num_groups=80, group_bytes=MIB), store_bytes=80 * MIB, disk_bytes=0) is None


def test_groups_that_travel_over_the_disk_are_announced() -> None:
    told = check_room(StoreNeed(num_groups=200, group_bytes=MIB), store_bytes=80 * MIB, disk_bytes=120 * MIB)
    assert told is not None
    assert "200 groups of 1.05 MB" in told
    assert "cluster.object_store_bytes=83886080" in told


def test_groups_that_fit_nowhere_are_refused_with_the_settings_that_help() -> None:
    with pytest.raises(ConfigError, match=r"Raise cluster.object_store_bytes, .* training.run_ahead"):
        check_room(StoreNeed(num_groups=201, group_bytes=MIB), store_bytes=80 * MIB, disk_bytes=120 * MIB)


def test_pictures_are_weighed_as_they_are_stored(tmp_path: Path) -> None:
    picture = ImageBytes(data=b"\x89PNG" + bytes(MIB), width=8, height=8)
    sample = Sample(sample_id="a", source="test", task="chart", question="?", answer="4", images=(picture, picture))
    write_samples(tmp_path / "rows.parquet", [sample])
    settings = ["cluster.object_store_bytes=80000000", "training.groups_per_step=64", f"run_dir={tmp_path}"]
    told = check_object_store(build_config(compose(settings)), tmp_path / "rows.parquet")
    assert told is not None
    assert "groups of 2.1" in told
    joined = build_config(compose([*settings, "cluster.address=auto"]))
    assert check_object_store(joined, tmp_path / "rows.parquet") is None
