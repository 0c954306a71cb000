"""Settings are built without a machine, and checked against it where a run begins."""

from pathlib import Path

import pytest

from orchestration.cli import compose
from orchestration.inputs.machine import build_config
from orchestration.inputs.prepare import model_folder
from orchestration.models.tiny import tiny_config
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import build_settings, settings_errors
from tests.unit.model_folders import write_model_folder
from tests.unit.plan.runs import settings


def run(tmp_path: Path, *overrides: str) -> list[str]:
    return [f"run_dir={tmp_path / 'run'}", f"cache_dir={tmp_path / 'cache'}", *overrides]


def test_settings_touch_no_folder(tmp_path: Path) -> None:
    build_settings(compose(run(tmp_path, "model=qwen2_5_vl_7b", "model.path=/not/there", "data=parquet")))

    assert list(tmp_path.iterdir()) == []


def test_every_check_across_rooms_is_asked_even_if_one_refuses(tmp_path: Path) -> None:
    config = settings(*run(tmp_path, "training.run_ahead=9", "training.groups_per_step=3", "learner.num_ranks=2"))

    refused = [str(error) for error in settings_errors(config)]

    assert [text.split()[0].split("=")[0] for text in refused] == ["training.run_ahead", "training.groups_per_step"]


def test_only_a_run_that_trains_must_sample_from_the_whole_vocabulary(tmp_path: Path) -> None:
    values = compose(run(tmp_path, "rollout.sampling.top_p=0.9"))

    assert build_config(values, is_for_training=False).rollout.sampling.top_p == 0.9
    with pytest.raises(ConfigError, match=r"rollout\.sampling\.top_p is 0\.9; the learner .*top_p=1\.0"):
        build_config(values)
    with pytest.raises(ConfigError, match=r"engines and learner need one temperature"):
        build_config(compose(run(tmp_path, "algorithm.temperature=0.9")))


@pytest.mark.parametrize("setting", ["temperature=0", "temperature=0.001", "temperature=inf", "top_p=0", "top_p=1.1"])
def test_a_distribution_that_engines_do_not_sample_from_is_refused(setting: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"rollout\.sampling\.{setting.split('=')[0]} .*is "):
        settings(*run(tmp_path, f"rollout.sampling.{setting}"))


def test_a_run_says_that_its_weights_are_not_set(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.path is not set; point it at a Hugging Face folder"):
        build_config(compose(run(tmp_path, "model=qwen2_5_vl_7b")))


def test_a_run_says_that_its_data_is_not_set(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.train is not set"):
        build_config(compose(run(tmp_path, "data=parquet")))


def test_a_model_without_path_family_and_sizes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.path and model\.family are both null"):
        settings(*run(tmp_path, "model.family=null"))


@pytest.mark.parametrize("layers", [3, 4])
def test_a_folder_must_hold_the_model_that_was_planned(layers: int, tmp_path: Path) -> None:
    folder, stated = write_model_folder(tmp_path / "model"), tiny_config("qwen2_5_vl")
    stated["text_config"]["num_hidden_layers"] = layers
    values = compose(run(tmp_path))
    values["model"] |= {"path": str(folder), "family": None, "hf_config": stated}

    if layers == 3:
        assert model_folder(build_config(values)) == folder
    else:
        with pytest.raises(ConfigError, match=r"other sizes than model\.hf_config states"):
            build_config(values)
