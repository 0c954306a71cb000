"""Inputs of a run: settings checked against this machine, model, datasets and rewards."""

import copy
import json
from dataclasses import asdict
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models

from orchestration.cli import compose
from orchestration.data import build as engine
from orchestration.inputs.machine import build_config, locate
from orchestration.inputs.own_rewards import check_own_functions, try_own_functions
from orchestration.inputs.prepare import check_rewards, model_folder
from orchestration.models.measured import measured_with
from orchestration.plan.plan import plan_run
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig, build_settings, settings_errors
from rewards import RewardConfig, RewardError
from rewards.core.config import OpenEndedConfig, RewardRule
from rewards.core.judge_config import JudgeConfig
from rollout.dataset import SampleTable, write_samples
from rollout.records import Sample
from tests.tiny_models import make_tiny_model, tiny
from tests.unit.data.building import build, plan
from tests.unit.model_folders import write_model_folder
from tests.unit.plan.runs import settings


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]")).save(str(folder / "tokenizer.json"))
    save_file({"model.embed_tokens.weight": np.eye(2, dtype=np.float32)}, folder / "model.safetensors")
    return folder


def data(path: Path, *pairs: tuple[str, str]) -> Path:
    samples = (
        Sample(sample_id=str(i), source=source, task=task, question="?", answer="a")
        for i, (task, source) in enumerate(pairs)
    )
    write_samples(path, samples)
    return path


def test_unrouted_rows_are_listed_with_their_counts(tmp_path: Path, model: Path) -> None:
    rows = [("chart", "plotqa"), ("video", "clips"), ("video", "clips"), ("audio", "songs")]
    path = data(tmp_path / "rows.parquet", *rows)
    with pytest.raises(RewardError) as caught:
        check_rewards(RewardConfig(), model, path)
    message = str(caught.value)
    assert "has 3 rows that no reward reads" in message
    table = [line.split() for line in message.splitlines()[1:]]
    assert table == [["rows", "task", "source"], ["1", "audio", "songs"], ["2", "video", "clips"]]
    rules = tuple(RewardRule(source=source, function="matching") for source in ("clips", "songs"))
    check_rewards(RewardConfig(rules=rules), model, path)


def test_settings_that_do_not_fit_the_model_are_refused(tmp_path: Path, model: Path) -> None:
    path = data(tmp_path / "rows.parquet", ("open", "captions"))
    (tmp_path / "idf.json").write_text('{"num_references": 2, "words": {"dog": 3}}')
    config = RewardConfig(open_ended=OpenEndedConfig(idf_path=str(tmp_path / "idf.json")))
    with pytest.raises(RewardError, match=r"idf_path .*idf.json .*counts lie outside of 1..num_references"):
        check_rewards(config, model, path)
    config = RewardConfig(open_ended=OpenEndedConfig(idf_path=str(tmp_path / "absent.json")))
    with pytest.raises(RewardError, match=r"idf_path .*absent.json"):
        check_rewards(config, model, path)
    (model / "tokenizer.json").unlink()
    with pytest.raises(RewardError, match=r"has no tokenizer.json"):
        check_rewards(RewardConfig(), model, path)


def test_a_judge_without_its_key_is_refused(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = data(tmp_path / "rows.parquet", ("open", "captions"))
    judge = JudgeConfig(model="m", prompt="{answer}", address="http://a/v1", key_variable="JUDGE_KEY")
    config = RewardConfig(judges={"wise": judge}, routes={"open": "wise"})
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(RewardError, match=r"reward\.judges\.wise\.key_variable is JUDGE_KEY"):
        check_rewards(config, model, path)
    monkeypatch.setenv("JUDGE_KEY", "x")
    check_rewards(config, model, path)


def own(tmp_path: Path, source: str) -> RewardConfig:
    (tmp_path / "mine.py").write_text(source)
    routes = {"chart": {"chart": 0.5, "mine": 0.5}, "math": "math"}
    return RewardConfig(routes=routes, functions={"mine": f"{tmp_path}/mine.py:score"})  # type: ignore[arg-type]


def test_a_reward_function_of_ones_own_is_loaded_and_tried_before_a_run(tmp_path: Path, model: Path) -> None:
    path = data(tmp_path / "rows.parquet", *[("chart", "plotqa")] * 9, ("math", "geometry"))
    seen = tmp_path / "seen"
    tried = f"""
        def score(request, images):
            with open({str(seen)!r}, "a") as file:
                file.write(f"{{request.source}} {{len(images)}}\\n")
            return float(request.parsed_answer == request.reference)
    """
    check_rewards(own(tmp_path, dedent(tried)), model, path)
    assert seen.read_text().splitlines() == ["plotqa 0"] * 3  # rows 0, 3 and 6
    with pytest.raises(RewardError, match=r"reward\.functions\.mine=.* has no score"):
        check_rewards(own(tmp_path, "def scores(request): return 1"), model, path)
    with pytest.raises(RewardError) as refused:
        check_rewards(own(tmp_path, "def score(request): return request.refrence"), model, path)
    message = str(refused.value)
    assert message.startswith("mine has no value for 3 of 3 references tried of task chart, source 'plotqa', such as")
    assert "AttributeError" in message
    assert "mine.py:1" in message


def test_a_reward_function_that_has_some_values_may_run(tmp_path: Path, model: Path) -> None:
    path = data(tmp_path / "rows.parquet", *[("chart", "plotqa")] * 4)
    table = SampleTable(path)
    source = "calls = []\ndef score(request):\n    calls.append(1)\n    return 1 / (len(calls) - 1)\n"
    config = own(tmp_path, source)
    check_own_functions(config, table)
    [trial] = try_own_functions(config, table, range(4))
    assert (trial.num_tried, len(trial.failures), trial.is_refused) == (4, 1, False)
    assert "ZeroDivisionError" in trial.failures[0]


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
    with pytest.raises(ConfigError, match=r"model\.path and model\.tiny are both null"):
        settings(*run(tmp_path, "model.tiny=null"))


@pytest.mark.parametrize("layers", [3, 4])
def test_a_folder_must_hold_the_model_that_was_planned(layers: int, tmp_path: Path) -> None:
    folder, stated = write_model_folder(tmp_path / "model"), copy.deepcopy(dict(tiny("qwen2_5_vl").hf_config))
    stated["text_config"]["num_hidden_layers"] = layers
    values = compose(run(tmp_path))
    values["model"] |= {"path": str(folder), "hf_config": stated}

    if layers == 3:
        assert model_folder(build_config(values)) == folder
    else:
        with pytest.raises(ConfigError, match=r"other sizes than model\.hf_config states"):
            build_config(values)


FEW_ROWS = (
    "data.recipe.chunk_rows=16",
    "data.recipe.sources.demo.options.num_rows=48",
    "data.recipe.sources.demo_held_out.options.num_rows=16",
    "data.recipe.shards.rows_per_shard=20",
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the demo's recipe was built with a model that stands beside it."""
    root = tmp_path_factory.mktemp("built")
    make_tiny_model(root / "model", corpus=["where is the red oval?"] * 3)
    build(plan(root / "model", root, "data.recipe.out=null"), is_tried=False)
    return root


def built_run(root: Path, *overrides: str) -> ExperimentConfig:
    folders = (f"run_dir={root / 'run'}", f"cache_dir={root / 'cache'}", f"model.path={root / 'model'}")
    return settings(*folders, *FEW_ROWS, *overrides)


def test_a_built_recipe_is_found_and_read(built: Path) -> None:
    found = plan_run(built_run(built))

    assert found.data.train is not None
    assert found.data.train.is_relative_to(built / "cache" / "data" / "built")
    assert found.data.held_out is not None
    assert found.prompts is not None
    assert found.prompts.measured_by == "the data engine, when the dataset was built"
    assert 0 < found.prompts.num_rows <= 48
    assert sum(route.num_rows or 0 for route in found.routing.routes) == found.prompts.num_rows
    assert found.lengths.are_measured


def test_lengths_of_a_built_dataset_are_believed_by_runs_that_would_measure_the_same(built: Path) -> None:
    located = locate(built_run(built))
    assert located.train is not None
    files = (f"data.train={located.train}", f"data.held_out={located.held_out}")

    same, other = (plan_run(built_run(built, *files, *more)) for more in ([], ["rollout.system_prompt=Other"]))

    assert same.prompts is not None
    assert other.prompts is not None
    assert (same.prompts.doubt, same.prompts.measured_by) == ("", "the data engine, when the dataset was built")
    told = "were measured with other settings than this run's (system prompt); measured again"
    assert other.prompts.doubt == told
    assert any(told in finding.line and finding.severity == "warning" for finding in other.findings)
    manifest = json.loads((located.train.parent / "manifest.json").read_text())
    config = built_run(built)
    mine = measured_with(config.model, built / "model", config.rollout.prompt_spec)
    assert manifest["measured_with"] == asdict(mine)
    assert SampleTable(located.train).measured_with() == {mine.record}


def test_the_folder_that_holds_the_limits_of_images_measures_as_its_original_with_limits(built: Path) -> None:
    config = built_run(built, "model.max_pixels=12544")
    limited = model_folder(config)
    assert limited != built / "model"
    spec = config.rollout.prompt_spec
    assert measured_with(config.model, limited, spec) == measured_with(config.model, built / "model", spec)


def test_a_recipe_of_other_settings_is_not_the_one_that_was_built(built: Path) -> None:
    located = locate(built_run(built, "seed=5"))

    assert located.train is None
    assert "the first `mixed-r1 train` draws the rows" in located.note


def test_another_dataset_in_the_recipe_s_place_is_told(built: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "manifest.json").write_text('{"key": "of something else"}')

    located = locate(built_run(built, f"data.recipe.out={out}"))

    assert located.train is None
    assert "holds a dataset of other settings" in located.note


def test_a_result_that_cannot_be_written_is_refused_before_a_row_is_read(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    monkeypatch.setattr(engine, "_build", lambda *_: pytest.fail("rows are read"))

    with pytest.raises(ConfigError, match=r"data\.recipe\.out=.*/file/x cannot be written"):
        engine.build_from_config(built_run(built, f"data.recipe.out={file / 'x'}"), built / "model", print)
