"""The demo's cache: made once, found again, never half there."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from orchestration.demo.families.registry import FAMILIES
from orchestration.demo.prepare import DemoProgress, model_digest, prepare_demo, samples_digest
from orchestration.demo.samples import DemoSample
from orchestration.demo.settings import DemoSettings, FamilyName

SETTINGS = DemoSettings(
    seed=1,
    num_train=6,
    num_held_out=4,
    warm_start_steps=2,
    warm_start_batch_size=2,
    warm_start_learning_rate=2e-3,
    fault_frac=0.25,
)


FAMILY: FamilyName = "qwen2_5_vl"


def write_ids(path: Path, samples: Iterable[DemoSample]) -> None:
    path.write_text("\n".join(sample.sample_id for sample in samples))


def refuse(*_: object) -> None:
    raise AssertionError("nothing was to be made")


def test_the_second_call_makes_nothing(tmp_path: Path) -> None:
    seen: list[DemoProgress] = []
    first = prepare_demo(tmp_path, settings=SETTINGS, family=FAMILY, write_samples=write_ids, progress=seen.append)
    second = prepare_demo(tmp_path, settings=SETTINGS, family=FAMILY, write_samples=refuse, progress=refuse)

    assert first == second
    assert len(first.train.read_text().split()) == 6
    assert len(first.held_out.read_text().split()) == 4
    assert first.model is not None
    assert (first.model / "config.json").is_file()
    assert [state.done for state in seen] == [*range(1, 11), 1, 2]
    assert seen[-1].loss is not None
    assert sorted(tmp_path.iterdir()) == sorted([first.train.parent, first.model])


def test_families_share_the_samples_and_a_run_with_its_own_model_needs_no_other(tmp_path: Path) -> None:
    alone = prepare_demo(tmp_path, settings=SETTINGS, family=None, write_samples=write_ids, progress=lambda _: None)
    assert alone.model is None
    assert list(tmp_path.iterdir()) == [alone.train.parent]

    folders = {
        prepare_demo(tmp_path, settings=SETTINGS, family=name, write_samples=refuse, progress=lambda _: None).model
        for name in FAMILIES
    }
    architectures = {json.loads((folder / "config.json").read_text())["model_type"] for folder in folders if folder}
    assert architectures == {"qwen2_5_vl", "internvl"}


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(path: Path, samples: Iterable[DemoSample]) -> None:
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        prepare_demo(tmp_path, settings=SETTINGS, family=FAMILY, write_samples=fail, progress=lambda _: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "new_samples", "new_model"),
    [
        ({"seed": 2}, True, True),
        ({"num_train": 7}, True, False),
        ({"fault_frac": 0.3}, False, True),
        ({"warm_start_steps": 3}, False, True),
        ({}, False, False),
    ],
)
def test_only_what_a_setting_shapes_is_made_anew(change: dict[str, float], new_samples: bool, new_model: bool) -> None:
    changed = dataclasses.replace(SETTINGS, **change)

    assert (samples_digest(changed) != samples_digest(SETTINGS)) == new_samples
    assert (model_digest(changed, FAMILY) != model_digest(SETTINGS, FAMILY)) == new_model


@pytest.mark.parametrize(
    ("change", "message"), [({"num_train": 0}, "demo.num_train is 0"), ({"fault_frac": 1.5}, "demo.fault_frac is 1.5")]
)
def test_settings_that_cannot_be_used_are_named(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SETTINGS, **change)
