"""Which settings may change between two sittings of a run, and what the run folder keeps of it."""

import dataclasses
import json
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestration.cli import compose
from orchestration.inputs.prepare import check_same_model
from orchestration.settings.errors import ResumeError
from orchestration.settings.experiment import ExperimentConfig, build_settings
from orchestration.storage.files import write_json
from orchestration.storage.run_folder import (
    MAY_CHANGE,
    MUST_STAY,
    RunFolder,
    deciding_entry,
    may_change,
    read_config,
    settle_config,
)


def fields_of(record: Any, prefix: str = "") -> Iterator[str]:
    """Dotted keys of all settings, those of optional groups included."""
    hints = typing.get_type_hints(record)
    for field in dataclasses.fields(record):
        hint = hints[field.name]
        inner = [kind for kind in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(kind)]
        if inner:
            for kind in inner:
                yield from fields_of(kind, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


@cache
def composed() -> str:
    return json.dumps(compose([]))


def settings(folder: Path, *overrides: str) -> ExperimentConfig:
    """The default settings with some replaced; composing them once is enough."""
    values = json.loads(composed()) | {"run_dir": str(folder)}
    for key, value in (override.split("=") for override in overrides):
        *groups, name = key.split(".")
        group = values
        for part in groups:
            group = group[part]
        group[name] = yaml.safe_load(value)
    return build_settings(values)


def test_every_setting_is_classified_and_every_entry_is_of_use() -> None:
    entries = {key: deciding_entry(key) for key in fields_of(ExperimentConfig)}
    assert [key for key, entry in entries.items() if entry is None] == []
    assert set(MAY_CHANGE) | set(MUST_STAY) == set(entries.values())
    assert not set(MAY_CHANGE) & set(MUST_STAY)


@pytest.mark.parametrize(
    "change",
    [
        "learner.micro_batch_tokens=1024",
        "learner.activation_checkpointing=true",
        "learner.attention=sdpa",
        "learner.fsdp.reshard_after_forward=false",
        "learner.prefix_sharing=never",
        "rollout.engine.kv_cache_bytes=1000000",
    ],
)
def test_a_run_goes_on_with_less_memory(tmp_path: Path, change: str) -> None:
    folder = RunFolder(tmp_path)
    settle_config(folder, settings(tmp_path))
    assert settle_config(folder, settings(tmp_path, change)) == []
    assert settle_config(folder, settings(tmp_path, change)) == []
    [line] = folder.config_changes.read_text().splitlines()
    assert list(json.loads(line)["changes"]) == [change.split("=")[0]] or "attention" in change


@pytest.mark.parametrize(
    "change",
    [
        "rollout.engine.dtype=bfloat16",
        "rollout.engine.max_model_len=300",
        "rollout.weight_channel.in_flight=wait",
        "rollout.sampling.group_size=4",
        "training.max_staleness=0",
        "seed=1",
    ],
)
def test_what_is_sampled_and_what_a_step_means_stays(tmp_path: Path, change: str) -> None:
    folder = RunFolder(tmp_path)
    settle_config(folder, settings(tmp_path))
    with pytest.raises(ResumeError, match=change.split("=")[0]):
        settle_config(folder, settings(tmp_path, change))


def test_an_accepted_change_is_told_and_recorded_and_the_first_settings_stay(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    settle_config(folder, settings(tmp_path))
    first = folder.config.read_text()
    [told] = settle_config(folder, settings(tmp_path, "algorithm.clip_low=0.1", "allow_config_change=true"))
    assert told == "allow_config_change: from step 1 on algorithm.clip_low: 0.2 -> 0.1"
    assert folder.config.read_text() == first
    assert read_config(folder)["algorithm"]["clip_low"] == 0.1
    [line] = folder.config_changes.read_text().splitlines()
    assert (json.loads(line)["step"], json.loads(line)["changes"]) == (0, {"algorithm.clip_low": [0.2, 0.1]})

    settle_config(folder, settings(tmp_path, "algorithm.clip_low=0.1"))  # is what the run goes by now
    with pytest.raises(ResumeError, match=r"algorithm.clip_low: 0.1 -> 0.2"):
        settle_config(folder, settings(tmp_path))


def test_raising_num_steps_says_by_how_much_the_learning_rate_bends(tmp_path: Path) -> None:
    # Linear from 5e-4 over 4 steps: after 3 steps a quarter is left. Over 6 steps, a half.
    folder = RunFolder(tmp_path)
    settle_config(folder, settings(tmp_path, "training.num_steps=4", "learner.optimizer.total_steps=4"))
    marker = folder.checkpoints / "step_00000003" / "complete"
    marker.parent.mkdir(parents=True)
    marker.write_text("{}")
    [told] = settle_config(folder, settings(tmp_path, "training.num_steps=6", "learner.optimizer.total_steps=6"))
    assert told == (
        "learner.optimizer.total_steps 4 -> 6 bends the linear schedule: step 4 takes a learning rate of 0.00025 "
        "instead of 0.000125; learner.optimizer.total_steps=4 keeps it as it was"
    )
    assert settle_config(folder, settings(tmp_path, "training.num_steps=8", "learner.optimizer.total_steps=6")) == []


def test_a_run_that_began_without_a_newer_setting_goes_on_with_its_default_alone(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    settle_config(folder, settings(tmp_path))
    begun = json.loads(folder.config.read_text())
    for group, name in (("algorithm", "normalise"), ("algorithm", "tasks"), ("reward", "functions")):
        del begun[group][name]
    write_json(folder.config, begun)

    assert settle_config(folder, settings(tmp_path)) == []
    with pytest.raises(ResumeError, match=r"algorithm\.normalise: None -> 'parts'"):
        settle_config(folder, settings(tmp_path, "algorithm.normalise=parts"))


def test_settings_that_nobody_classified_stay() -> None:
    assert not may_change("learner.something_new")


def test_a_model_folder_may_be_moved_and_not_replaced_by_weights_of_the_same_shape(tmp_path: Path) -> None:
    folder, weights = RunFolder(tmp_path / "run"), bytearray(12 << 20)
    for name, is_tuned in (("first", False), ("moved", False), ("tuned", True)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        if is_tuned:  # every weight moves a little
            weights = bytearray(b"\x01") * len(weights)
        (tmp_path / name / "model.safetensors").write_bytes(weights)
    for name in ("first", "moved"):
        write_json(folder.model, check_same_model(folder, tmp_path / name, is_change_allowed=False))
    with pytest.raises(ResumeError, match="does not hold the model"):
        check_same_model(folder, tmp_path / "tuned", is_change_allowed=False)
    write_json(folder.model, check_same_model(folder, tmp_path / "tuned", is_change_allowed=True))
    check_same_model(folder, tmp_path / "tuned", is_change_allowed=False)


def test_an_adapter_may_be_moved_and_not_replaced_left_out_or_added(tmp_path: Path) -> None:
    folder, model = RunFolder(tmp_path / "run"), tmp_path / "model"
    for name, weights in (("model", b"base"), ("first", b"one"), ("moved", b"one"), ("other", b"two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_model.safetensors").write_bytes(weights)
    (tmp_path / "moved" / "README.txt").write_text("not of the weights")

    def sit(name: str | None, *, is_allowed: bool = False) -> None:
        adapter = None if name is None else str(tmp_path / name)
        write_json(folder.model, check_same_model(folder, model, adapter=adapter, is_change_allowed=is_allowed))

    sit("first")
    sit("moved")
    for name, named in (("other", ".*other"), (None, "null")):
        with pytest.raises(ResumeError, match=rf"learner\.lora\.start={named} does not hold the adapter from which"):
            sit(name)
    sit(None, is_allowed=True)
    with pytest.raises(ResumeError, match=r"does not hold the adapter from which .* began: it began from none"):
        sit("first")


@pytest.mark.parametrize("noted", ["", '{"blake2b": "0', "\udcff"])
def test_a_note_of_the_model_that_was_cut_short_is_told_of(tmp_path: Path, noted: str) -> None:
    (tmp_path / "model").mkdir()
    folder = RunFolder(tmp_path)
    folder.model.write_text(noted, errors="surrogateescape")
    with pytest.raises(ResumeError, match=r"model\.json is not whole JSON"):
        check_same_model(folder, tmp_path / "model", is_change_allowed=False)


def test_a_change_after_one_that_a_kill_cut_short_is_kept_at_every_cut(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    settle_config(folder, settings(tmp_path))
    settle_config(folder, settings(tmp_path, "algorithm.clip_low=0.1", "allow_config_change=true"))
    whole = folder.config_changes.read_bytes()
    for end in (*range(0, len(whole), 700), len(whole) - 1):
        folder.config_changes.write_bytes(whole[:end])
        settle_config(folder, settings(tmp_path, "algorithm.clip_low=0.05", "allow_config_change=true"))
        assert read_config(folder)["algorithm"]["clip_low"] == 0.05
        settle_config(folder, settings(tmp_path, "algorithm.clip_low=0.05"))


JUDGE = "{model: m, prompt: '{answer}', address: 'http://a/v1'}"


def test_a_judge_may_be_reached_otherwise_and_not_asked_otherwise(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    settle_config(folder, settings(tmp_path, f"reward.judges={{wise: {JUDGE}}}"))
    moved = JUDGE.replace("http://a/v1", "http://b/v1").replace("model", "max_in_flight: 4, model")
    assert settle_config(folder, settings(tmp_path, f"reward.judges={{wise: {moved}}}")) == []
    for change in ("votes: 2, temperature: 1.0, model", "aggregate: median, model", "scale: {high: 5}, model"):
        asked = JUDGE.replace("model", change, 1)
        with pytest.raises(ResumeError, match=r"reward\.judges\.wise\."):
            settle_config(folder, settings(tmp_path, f"reward.judges={{wise: {asked}}}"))
    with pytest.raises(ResumeError, match=r"reward\.judges"):
        settle_config(folder, settings(tmp_path))
