"""Which model a run takes: a folder, or a tiny one of a family that the demo knows."""

import json
from pathlib import Path

import pytest

from orchestration.cli import compose
from orchestration.config import ExperimentConfig, build_config
from orchestration.errors import ConfigError


def config(tmp_path: Path, *overrides: str) -> ExperimentConfig:
    return build_config(compose([f"run_dir={tmp_path}", *overrides]))


@pytest.mark.parametrize(("choice", "frame"), [("qwen2_5_vl", "pixel_resized"), ("internvl", "norm1000")])
def test_each_family_answers_boxes_in_its_own_frame(tmp_path: Path, choice: str, frame: str) -> None:
    tiny = config(tmp_path, f"model=tiny_{choice}").model
    (tmp_path / "config.json").write_text(json.dumps({}))
    large = config(tmp_path, f"model={choice}", f"model.path={tmp_path}").model

    assert (tiny.family, tiny.coord_mode) == (choice, frame)
    assert (large.family, large.coord_mode) == (None, frame)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.family=internvl2", "model.family is 'internvl2'; allowed: qwen2_5_vl, internvl; did you mean internvl"),
        ("model.family=null", "model.path and model.family are both null"),
        ("model.coord_mode=norm1000", "the demo's qwen2_5_vl writes boxes in pixel_resized"),
        ("model.famly=internvl", "did you mean model.family"),
    ],
)
def test_a_model_that_the_demo_cannot_make_is_refused_with_the_remedy(
    tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        config(tmp_path, override)
