"""The demo's model: made once, found again, never half there."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from orchestration.demo.prepare import _write_model, model_digest, model_folder, prepare_demo
from orchestration.inputs.machine import known_model_folder
from orchestration.inputs.prepare import model_folder as find_model
from orchestration.settings.composition import compose
from orchestration.settings.demo import DemoSettings
from orchestration.settings.experiment import build_settings
from rewards.core.config import DEFAULT_FORMAT, FormatConfig
from tests.tiny_models import tiny_config

SETTINGS = DemoSettings(
    seed=1,
    warm_start_steps=2,
    warm_start_batch_size=2,
    warm_start_learning_rate=2e-3,
    fault_frac=0.25,
)


MODEL = tiny_config("qwen2_5_vl")


def refuse(*_: object) -> None:
    raise AssertionError("nothing was to be made")


def test_the_second_call_makes_nothing(tmp_path: Path) -> None:
    seen: list[int] = []
    first = prepare_demo(
        tmp_path, settings=SETTINGS, model=MODEL, form=DEFAULT_FORMAT, progress=lambda step, _: seen.append(step)
    )
    second = prepare_demo(tmp_path, settings=SETTINGS, model=MODEL, form=DEFAULT_FORMAT, progress=refuse)

    assert first == second
    assert (first / "config.json").is_file()
    assert seen == [1, 2]
    assert list(tmp_path.iterdir()) == [first]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_files_of_the_model_have_the_mode_that_the_umask_says(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        folder = prepare_demo(tmp_path, settings=SETTINGS, model=MODEL, form=DEFAULT_FORMAT, progress=lambda *_: None)
    finally:
        os.umask(before)

    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()} == {0o666 & ~umask}


def test_every_tiny_model_has_a_folder_of_its_own(tmp_path: Path) -> None:
    models = [tiny_config(name) for name in ("qwen2_5_vl", "internvl")]
    folders = [
        prepare_demo(tmp_path, settings=SETTINGS, model=model, form=DEFAULT_FORMAT, progress=lambda *_: None)
        for model in models
    ]
    architectures = {json.loads((folder / "config.json").read_text())["model_type"] for folder in folders}
    assert architectures == {"qwen2_5_vl", "internvl"}


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        prepare_demo(tmp_path, settings=SETTINGS, model=MODEL, form=DEFAULT_FORMAT, progress=fail)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "is_new"),
    [({"seed": 2}, True), ({"fault_frac": 0.3}, True), ({"warm_start_steps": 3}, True), ({}, False)],
)
def test_only_what_a_setting_shapes_is_made_anew(change: dict[str, float], is_new: bool) -> None:
    changed = dataclasses.replace(SETTINGS, **change)
    before, after = (model_digest(settings, MODEL, DEFAULT_FORMAT) for settings in (SETTINGS, changed))
    assert (after != before) == is_new


@pytest.mark.parametrize(
    ("change", "is_new"),
    [({"style": "boxed"}, True), ({"style": "json"}, True), ({"style": "none"}, True), ({"answer_tag": "final"}, True),
     ({"think_prefilled": True}, True), ({"graded": True}, False), ({}, False)],
)  # fmt: skip
def test_each_form_that_demonstrations_can_have_is_a_model_of_its_own(change: dict[str, Any], is_new: bool) -> None:
    before, after = (model_digest(SETTINGS, MODEL, FormatConfig(**given)) for given in ({}, change))
    assert (after != before) == is_new


def test_the_style_of_the_run_reaches_demonstrations_and_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[FormatConfig, bool]] = []

    def note(folder: Path, *_: object, form: FormatConfig, **__: object) -> None:
        tokens = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
        made.append((form, {"<reason>", "</final>"} <= {token["content"] for token in tokens}))

    monkeypatch.setattr("orchestration.demo.prepare.warm_start", note)
    form = FormatConfig(think_tag="reason", answer_tag="final")
    folder = tmp_path / "model"
    _write_model(folder, SETTINGS, MODEL, form, refuse)
    assert made == [(form, True)]

    for style in ("boxed", "json", "none"):
        config = build_settings(
            compose([f"run_dir={tmp_path}", f"cache_dir={tmp_path}", f"reward.format.style={style}"])
        )
        expected = model_folder(tmp_path, config.demo, MODEL, FormatConfig(style=style))
        expected.mkdir()
        assert known_model_folder(config) == expected
        assert find_model(config) == expected
