"""Which weights `checkpoint=` means, and in which frame they answer boxes."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from orchestration.cli import compose
from orchestration.config.experiment import ExperimentConfig, build_config
from orchestration.errors import ConfigError
from orchestration.evaluation.checkpoint import with_checkpoint


@pytest.fixture
def config(tmp_path: Path) -> ExperimentConfig:
    return build_config(compose([f"run_dir={tmp_path / 'run'}", f"cache_dir={tmp_path / 'cache'}"]))


def pointed_at(config: ExperimentConfig, checkpoint: Path) -> ExperimentConfig:
    return replace(config, evaluate=replace(config.evaluate, checkpoint=str(checkpoint)))


def save_folder(folder: Path, family: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": family}))
    for name in ("tokenizer.json", "processor_config.json"):
        (folder / name).write_text("{}")
    return folder


@pytest.mark.parametrize(("family", "frame"), [("qwen2_5_vl", "pixel_resized"), ("internvl", "norm1000")])
def test_a_model_folder_is_read_in_the_frame_of_its_family(
    config: ExperimentConfig, tmp_path: Path, family: str, frame: str
) -> None:
    found = with_checkpoint(pointed_at(config, save_folder(tmp_path / "model", family))).model
    assert (found.path, found.coord_mode, found.family) == (str(tmp_path / "model"), frame, None)


def test_a_run_is_read_as_its_export_in_the_frame_it_was_trained_with(config: ExperimentConfig, tmp_path: Path) -> None:
    run = tmp_path / "old"
    (run / "checkpoints").mkdir(parents=True)
    save_folder(run / "export", "qwen2_5_vl")
    began = build_config(compose(["model=tiny_internvl", f"run_dir={run}", f"cache_dir={tmp_path}"]))
    (run / "config.json").write_text(json.dumps(asdict(began)))

    found = with_checkpoint(pointed_at(config, run)).model
    assert (found.path, found.coord_mode) == (str(run / "export"), "norm1000")


def test_a_checkpoint_that_was_exported_before_is_not_exported_again(config: ExperimentConfig, tmp_path: Path) -> None:
    run = tmp_path / "old"
    (run / "checkpoints" / "step_00000003").mkdir(parents=True)
    (run / "checkpoints" / "step_00000003" / "complete").touch()
    save_folder(run / "exports" / "step_00000003", "qwen2_5_vl")
    (run / "config.json").write_text(json.dumps(asdict(config)))

    found = with_checkpoint(pointed_at(config, run / "checkpoints" / "step_00000003")).model
    assert found.path == str(run / "exports" / "step_00000003")


def test_a_folder_that_is_none_of_these_is_refused(config: ExperimentConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither a Hugging Face folder"):
        with_checkpoint(pointed_at(config, tmp_path / "nowhere"))
