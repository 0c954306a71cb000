"""The demo's model: made once, found again, never half there."""

import dataclasses
import json
import os
from pathlib import Path

import pytest

from orchestration.demo.prepare import model_digest, prepare_demo
from orchestration.demo.tiny_model import FAMILIES
from orchestration.settings.demo import DemoSettings, FamilyName

SETTINGS = DemoSettings(
    seed=1,
    warm_start_steps=2,
    warm_start_batch_size=2,
    warm_start_learning_rate=2e-3,
    fault_frac=0.25,
)


FAMILY: FamilyName = "qwen2_5_vl"


def refuse(*_: object) -> None:
    raise AssertionError("nothing was to be made")


def test_the_second_call_makes_nothing(tmp_path: Path) -> None:
    seen: list[int] = []
    first = prepare_demo(tmp_path, settings=SETTINGS, family=FAMILY, progress=lambda step, _: seen.append(step))
    second = prepare_demo(tmp_path, settings=SETTINGS, family=FAMILY, progress=refuse)

    assert first == second
    assert (first / "config.json").is_file()
    assert seen == [1, 2]
    assert list(tmp_path.iterdir()) == [first]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_files_of_the_model_have_the_mode_that_the_umask_says(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        folder = prepare_demo(tmp_path, settings=SETTINGS, family=FAMILY, progress=lambda *_: None)
    finally:
        os.umask(before)

    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()} == {0o666 & ~umask}


def test_every_family_has_a_model_of_its_own(tmp_path: Path) -> None:
    folders = [prepare_demo(tmp_path, settings=SETTINGS, family=name, progress=lambda *_: None) for name in FAMILIES]
    architectures = {json.loads((folder / "config.json").read_text())["model_type"] for folder in folders}
    assert architectures == {"qwen2_5_vl", "internvl"}


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        prepare_demo(tmp_path, settings=SETTINGS, family=FAMILY, progress=fail)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "is_new"),
    [({"seed": 2}, True), ({"fault_frac": 0.3}, True), ({"warm_start_steps": 3}, True), ({}, False)],
)
def test_only_what_a_setting_shapes_is_made_anew(change: dict[str, float], is_new: bool) -> None:
    changed = dataclasses.replace(SETTINGS, **change)
    assert (model_digest(changed, FAMILY) != model_digest(SETTINGS, FAMILY)) == is_new
