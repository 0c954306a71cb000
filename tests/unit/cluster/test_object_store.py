"""Whether a run's groups fit into the object store: the arithmetic, and what the user is told."""

from pathlib import Path

import pytest

from orchestration.cli import compose
from orchestration.cluster.object_store import StoreNeed, check_object_store, check_room, store_need
from orchestration.inputs.machine import build_config
from orchestration.settings.errors import ConfigError
from rollout.dataset import write_samples
from rollout.records import ImageBytes, Sample

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
