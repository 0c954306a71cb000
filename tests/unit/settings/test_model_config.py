"""Which model a run takes: a folder, or a tiny one of a family that the demo knows."""

import pytest

from learner.config import SUPPORTED_FAMILIES
from orchestration.cli import compose
from orchestration.settings.errors import ConfigError
from orchestration.settings.model import ModelConfig
from orchestration.settings.strict import build


def model(*overrides: str) -> ModelConfig:
    return build(ModelConfig, compose(overrides)["model"], "model")


@pytest.mark.parametrize("choice", ["qwen2_5_vl", "internvl"])
def test_a_model_has_the_frame_of_its_family_unless_one_is_set(choice: str) -> None:
    tiny = model(f"model=tiny_{choice}")
    large = model(f"model={choice}", "model.path=/models/large", "model.coord_mode=norm1")

    assert tiny.tiny is not None
    assert (tiny.tiny.hf_config["model_type"], tiny.coord_mode) == (choice, SUPPORTED_FAMILIES[choice])
    assert model(f"model={choice}", "model.path=/models/large").coord_mode is None
    assert (large.tiny, large.coord_mode, large.box_frame) == (None, "norm1", "norm1")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "model.family=internvl2",
            r"model.family is 'internvl2'; allowed: .* FILE.py:NAME, or null, .*; did you mean model=tiny_internvl\?",
        ),
        (
            "model.family=my_family.py:Mine",
            "is a class of your own, and the demo makes no tiny model of it; set model.p",
        ),
        ("model.tiny=null", "model.path and model.tiny are both null"),
        ("model.tiny.hf_config.model_type=null", r"model\.tiny\.hf_config\.model_type is missing"),
        (
            "model.tiny.hf_processor.image_processor.image_processor_type=null",
            r"model\.tiny\.hf_processor\.image_processor\.image_processor_type is missing",
        ),
        ("+model.famly=internvl", "did you mean model.family"),
        (
            "model.path=https://models.example.org/Qwen/Qwen2.5-VL-3B-Instruct/tree/main",
            "is a URL; it must be a local folder: download the model and set model.path to its folder",
        ),
        ("model.path=s3://bucket/model", "is a URL; it must be a local folder"),
    ],
)
def test_a_model_that_the_demo_cannot_make_is_refused_with_the_remedy(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        model(override)
