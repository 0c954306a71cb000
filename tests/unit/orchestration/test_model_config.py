"""Which model a run takes: a folder, or a tiny one of a family that the demo knows."""

from pathlib import Path

import pytest

from orchestration.cli import compose
from orchestration.config.model import ModelConfig, check_model_folder
from orchestration.config.strict import build
from orchestration.errors import ConfigError


def model(*overrides: str) -> ModelConfig:
    return build(ModelConfig, compose(overrides)["model"], "model")


@pytest.mark.parametrize(("choice", "frame"), [("qwen2_5_vl", "pixel_resized"), ("internvl", "norm1000")])
def test_each_family_answers_boxes_in_its_own_frame(choice: str, frame: str) -> None:
    tiny = model(f"model=tiny_{choice}")
    large = model(f"model={choice}", "model.path=/models/large")

    assert (tiny.family, tiny.coord_mode) == (choice, frame)
    assert (large.family, large.coord_mode) == (None, frame)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.family=internvl2", "model.family is 'internvl2'; allowed: qwen2_5_vl, internvl; did you mean internvl"),
        ("model.family=null", "model.path and model.family are both null"),
        ("model.coord_mode=norm1000", "the demo's qwen2_5_vl writes boxes in pixel_resized"),
        ("+model.famly=internvl", "did you mean model.family"),
    ],
)
def test_a_model_that_the_demo_cannot_make_is_refused_with_the_remedy(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        model(override)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with all the files that are looked for."""
    (tmp_path / "config.json").write_text('{"model_type": "internvl"}')
    (tmp_path / "processor_config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    return tmp_path


def test_a_whole_model_folder_is_taken(folder: Path) -> None:
    check_model_folder(folder)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", r"holds no config\.json; point it at"),
        (
            "processor_config.json",
            r"holds no image processor \(preprocessor_config\.json or processor_config\.json\); copy",
        ),
        ("tokenizer.json", r"holds no tokenizer \(tokenizer\.json or vocab\.json\); copy"),
    ],
)
def test_a_model_folder_that_lacks_a_file_is_refused_before_anything_starts(
    folder: Path, missing: str, message: str
) -> None:
    (folder / missing).unlink()

    with pytest.raises(ConfigError, match=message):
        check_model_folder(folder)


def test_an_unknown_architecture_is_refused_with_those_that_are_known(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "llava"}')

    with pytest.raises(
        ConfigError, match=r"is a llava model; supported are internvl, qwen2_5_vl\. Another .*learner/families"
    ):
        check_model_folder(folder)
