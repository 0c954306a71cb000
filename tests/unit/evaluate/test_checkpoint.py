"""What `mixed-r1 evaluate checkpoint=` means: which weights, asked how, on which data; what it refuses in one line."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from orchestration import cli
from orchestration.evaluate import command
from orchestration.evaluate.checkpoint import differences, find_weights, run_of
from orchestration.evaluate.command import find_data, run_evaluation, with_weights
from orchestration.settings.composition import compose
from orchestration.settings.errors import ConfigError, ResumeError
from orchestration.settings.experiment import ExperimentConfig, build_settings
from orchestration.storage.files import exclusive
from orchestration.storage.run_folder import RunFolder
from rollout.dataset import write_samples
from rollout.records import Sample
from tests.unit.model_folders import write_model_folder

ROW = [Sample(sample_id="a", source="unit", task="chart", question="?", answer="1")]
OLD = "/a_machine_that_is_gone"
GPU_RUN = (
    "experiment=qwen2_5_vl_3b/1_gpu",
    f"model.path={OLD}/model",
    f"data.train={OLD}/train",
    f"data.held_out={OLD}/held_out",
    f"run_dir={OLD}/run",
    f"cache_dir={OLD}/cache",
    f"training.checkpoint_dir={OLD}/checkpoints",
    "rollout.sampling.temperature=0.7",
    "reward=paper",
    "seed=11",
)


@cache
def config_of(settings: tuple[str, ...]) -> str:
    """What a run with these settings writes as its config.json."""
    return json.dumps(asdict(build_settings(compose(settings))))


def save_run(root: Path, *settings: str, export: bool = True) -> Path:
    """Write what is left of a run that was made elsewhere and copied here: settings, and its export."""
    root.mkdir()
    (root / "config.json").write_text(config_of(settings))
    if export:
        write_model_folder(root / "export", "qwen2_5_vl")
    return root


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[ExperimentConfig, RunFolder | None]]:
    """Gives what `mixed-r1 evaluate` of some arguments would run with."""
    found: list[tuple[ExperimentConfig, RunFolder | None]] = []
    monkeypatch.setattr(command, "run_evaluation", lambda *arguments: found.append(arguments))

    def evaluate(*arguments: Any) -> tuple[ExperimentConfig, RunFolder | None]:
        with pytest.raises(SystemExit) as left:
            cli.main(["evaluate", *map(str, arguments)])
        assert left.value.code == 0
        return found[-1]

    return evaluate


def refusal(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    """The one line with which `mixed-r1 evaluate` refuses these arguments."""
    with pytest.raises(SystemExit) as left:
        cli.main(["evaluate", *map(str, arguments)])
    captured = capsys.readouterr()
    assert left.value.code == 2
    assert captured.out == ""
    [line] = captured.err.splitlines()
    return line


@pytest.mark.parametrize("part", ["", "export", "checkpoints/step_00000003", "exports/step_00000003"])
def test_a_run_and_its_parts_are_asked_as_the_run_was_trained(evaluated: Any, tmp_path: Path, part: str) -> None:
    run = save_run(tmp_path / "copied", *GPU_RUN)

    config, found = evaluated(f"checkpoint={run / part}", "data=here")

    began = build_settings(json.loads((run / "config.json").read_text()))
    assert found == RunFolder(run)
    assert config.rollout.system_prompt == began.rollout.system_prompt != ""
    assert (config.rollout.engine, config.rollout.sampling) == (began.rollout.engine, began.rollout.sampling)
    assert config.rollout.engine.device == "cuda"
    assert (config.reward, config.seed, config.model.coord_mode) == (began.reward, 11, began.model.coord_mode)
    assert list(differences(RunFolder(run), config)) == []


def test_nothing_of_the_machine_that_trained_is_asked_for_or_made(evaluated: Any, tmp_path: Path) -> None:
    run = save_run(tmp_path / "copied", *GPU_RUN)

    config, _ = evaluated(f"checkpoint={run}", "data=here")

    assert config.run_path == run
    assert OLD not in config.cache_dir
    assert (config.cluster.address, config.cluster.layout, config.cluster.nodes) == (None, "disaggregated", ())
    assert config.rollout.engines == 1
    assert find_weights(config, RunFolder(run)).folder == run / "export"
    assert sorted(path.name for path in run.iterdir()) == ["config.json", "export"]
    assert not Path(OLD).exists()


def test_what_is_typed_wins_over_the_run_and_is_told(evaluated: Any, tmp_path: Path) -> None:
    run = save_run(tmp_path / "copied", *GPU_RUN)

    config, found = evaluated(
        f"checkpoint={run}", "data=here", "rollout.sampling.top_p=0.95", "rollout.engine.device=cpu", "seed=0"
    )

    assert (config.rollout.sampling.top_p, config.rollout.engine.device, config.seed) == (0.95, "cpu", 0)
    assert config.rollout.weight_channel.backend == "gloo"
    assert list(differences(found, config)) == [
        "rollout.engine.device='cpu' here, 'cuda' in the run",
        "rollout.sampling.top_p=0.95 here, 1.0 in the run",
        "seed=0 here, 11 in the run",
    ]


def test_a_typed_choice_wins_over_the_run_also_where_it_is_the_default(evaluated: Any, tmp_path: Path) -> None:
    run = save_run(tmp_path / "copied", *GPU_RUN)

    config, _ = evaluated(f"checkpoint={run}", "data=here", "rollout=vllm_cpu", "reward=default")
    assert (config.rollout.engine.device, config.rollout.system_prompt) == ("cpu", "")
    assert config.reward == build_settings(compose([])).reward
    assert config.seed == 11


def test_a_typed_experiment_gives_its_settings_and_leaves_model_and_data_to_the_run(
    evaluated: Any, tmp_path: Path
) -> None:
    run = save_run(tmp_path / "run", "rollout.sampling.temperature=0.7", "seed=11")

    config, _ = evaluated(f"checkpoint={run}", "experiment=qwen2_5_vl_3b/1_gpu")
    assert (config.rollout.engine.max_model_len, config.rollout.sampling.temperature) == (8192, 1.0)
    assert (config.data.recipe.name, config.seed) == ("demo", 11)


def test_a_system_prompt_that_looks_like_an_interpolation_stays_text(evaluated: Any, tmp_path: Path) -> None:
    run = save_run(tmp_path / "run")
    values = json.loads((run / "config.json").read_text())
    values["rollout"]["system_prompt"] = "Write ${answer} for ${oc.env:HOME}."
    (run / "config.json").write_text(json.dumps(values))

    assert evaluated(f"checkpoint={run}")[0].rollout.system_prompt == "Write ${answer} for ${oc.env:HOME}."


def test_a_run_of_another_version_is_evaluated(evaluated: Any, tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", "seed=11")
    values = json.loads((run / "config.json").read_text())
    del values["rollout"]["engine"]["max_images_per_prompt"]
    values["training"]["gone_since"] = 3
    (run / "config.json").write_text(json.dumps(values))

    config, found = evaluated(f"checkpoint={run}")
    assert (config.rollout.engine.max_images_per_prompt, config.seed) == (1, 11)
    assert list(differences(found, config)) == []


def test_a_bare_copied_export_is_a_model_folder(evaluated: Any, tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "export", "qwen2_5_vl")
    config, run = evaluated(f"checkpoint={folder}")
    assert run is None
    assert (config.rollout.system_prompt, config.rollout.engine.device) == ("", "cpu")


def test_a_model_folder_is_not_asked_the_drawings_of_the_demo_unless_it_is_the_demos(tmp_path: Path) -> None:
    own = settings(checkpoint=str(tmp_path / "model"))
    with pytest.raises(ConfigError, match=r"data is not given, and .*/model belongs to no run that names it"):
        find_data(own, None)
    assert find_data(replace(own, cache_dir=str(tmp_path)), None) is None


def test_sampling_that_only_training_refuses_is_allowed_in_an_evaluation(
    evaluated: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_model_folder(tmp_path / "model", "qwen2_5_vl")
    config, _ = evaluated(f"checkpoint={folder}", "rollout.sampling.top_p=0.8", "rollout.sampling.temperature=0.6")
    assert (config.rollout.sampling.top_p, config.rollout.sampling.temperature) == (0.8, 0.6)

    with pytest.raises(SystemExit) as left:
        cli.main(["train", "rollout.sampling.top_p=0.8", f"run_dir={tmp_path / 'run'}"])
    assert left.value.code == 2
    assert "rollout.sampling.top_p is 0.8; the learner computes logprobs" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def settings(**evaluate: Any) -> ExperimentConfig:
    config = build_settings(json.loads(config_of(())))
    return replace(config, evaluate=replace(config.evaluate, **evaluate))


def test_a_model_folder_whose_template_opens_the_think_block_is_read_so_or_refused(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "model", "qwen2_5_vl")
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text() + "{% if add_generation_prompt %}<think>\\n{% endif %}")
    config = settings(checkpoint=str(folder))
    with pytest.raises(ConfigError, match=r"set reward\.format\.think_prefilled=true"):
        find_weights(config, None)
    prefilled = replace(config.reward.format, think_prefilled=True)
    config = replace(config, reward=replace(config.reward, format=prefilled))
    assert find_weights(config, None).folder == folder


@pytest.mark.parametrize(("family", "frame"), [("qwen2_5_vl", "pixel_resized"), ("internvl", "norm1000")])
def test_a_model_folder_is_read_in_the_frame_of_its_family(tmp_path: Path, family: str, frame: str) -> None:
    config = settings(checkpoint=str(write_model_folder(tmp_path / "model", family)))
    found = with_weights(config, find_weights(config, None), None).model
    assert (found.path, found.coord_mode, found.family) == (str(tmp_path / "model"), frame, None)


def test_a_run_is_read_in_the_frame_it_was_trained_with(evaluated: Any, tmp_path: Path) -> None:
    run = save_run(tmp_path / "old", "model=tiny_internvl")
    config, found = evaluated(f"checkpoint={run}")
    model = with_weights(config, find_weights(config, found), found).model
    assert (model.path, model.coord_mode) == (str(run / "export"), "norm1000")


def test_a_checkpoint_that_was_exported_before_is_not_exported_again(tmp_path: Path) -> None:
    run = save_run(tmp_path / "old")
    step = run / "checkpoints" / "step_00000003"
    step.mkdir(parents=True)
    (step / "complete").touch()
    assert find_weights(settings(checkpoint=str(step)), run_of(str(step))).store is not None

    write_model_folder(run / "exports" / "step_00000003", "qwen2_5_vl")
    weights = find_weights(settings(checkpoint=str(step)), run_of(str(step)))
    assert (weights.folder, weights.store) == (run / "exports" / "step_00000003", None)


def test_a_checkpoint_that_is_not_there_is_refused_in_one_line_and_nothing_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = save_run(tmp_path / "charts_long", export=False)
    for step in ("step_00000002", "step_00000004"):
        (run / "checkpoints" / step).mkdir(parents=True)
    (run / "checkpoints" / "step_00000002" / "complete").touch()
    before = sorted(tmp_path.rglob("*"))

    assert "checkpoint is not set" in refusal(capsys)
    assert "evaluate.checkpoint is empty" in refusal(capsys, "checkpoint=")
    assert f"did you mean {run}?" in refusal(capsys, f"checkpoint={tmp_path / 'chart_long'}")
    assert "did you mean" not in refusal(capsys, f"checkpoint={tmp_path / 'another'}")
    assert "step_00000002" in refusal(capsys, f"checkpoint={run / 'checkpoints'}")
    for step, state in (("step_00000004", "is not complete"), ("step_00000009", "does not exist")):
        line = refusal(capsys, f"checkpoint={run / 'checkpoints' / step}")
        assert line.endswith(f"{step} {state}; complete checkpoints of this run: step_00000002")
    assert "training.checkpoint_dir=" in refusal(capsys, f"checkpoint={run}")  # a marker alone is no checkpoint
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("text", ["{", "", "[1]"])
def test_a_config_of_a_run_that_was_cut_short_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    run = save_run(tmp_path / "run")
    (run / "config.json").write_text(text)
    assert str(run / "config.json") in refusal(capsys, f"checkpoint={run}")

    for verb in ("train", "report"):
        with pytest.raises(SystemExit) as left:
            cli.main([verb, f"run_dir={run}"])
        captured = capsys.readouterr()
        assert left.value.code == 2
        assert str(run / "config.json") in captured.err
        assert captured.err.count("\n") == 1


def test_held_out_data_of_a_run_that_is_not_here_is_refused_unless_data_is_named(
    evaluated: Any, tmp_path: Path
) -> None:
    copied = save_run(tmp_path / "copied", *GPU_RUN)
    config, run = evaluated(f"checkpoint={copied}")
    with pytest.raises(ConfigError, match=f"data.held_out={OLD}/held_out, on which .* is not on this machine"):
        find_data(config, run)

    here = tmp_path / "held_out.parquet"
    write_samples(here, ROW)
    config, run = evaluated(f"checkpoint={copied}", f"data={here}")
    assert find_data(config, run) == here
    config, run = evaluated(f"checkpoint={copied}", f"data.held_out={here}")
    assert find_data(config, run) == here
    raw = tmp_path / "rows.jsonl"
    raw.write_text('{"question": "Why?", "answer": "So."}\n')
    config, run = evaluated(f"checkpoint={copied}", f"data={raw}")
    with pytest.raises(ConfigError, match=r"is no dataset that was built, .* build data\.train="):
        find_data(config, run)


def test_what_a_recipe_made_for_a_run_is_found_where_the_run_found_it(evaluated: Any, tmp_path: Path) -> None:
    root = save_run(tmp_path / "run", "data=mixed_45k")
    config, run = evaluated(f"checkpoint={root}")
    with pytest.raises(ConfigError, match="is not on this machine; name the data: data="):
        find_data(config, run)

    held_out = tmp_path / "built" / "held_out"
    held_out.mkdir(parents=True)
    (root / "inputs.json").write_text(json.dumps({"held_out": str(held_out)}))
    assert find_data(config, run) == held_out


def test_a_run_on_gpus_is_refused_where_there_is_none_with_what_to_set(
    evaluated: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "has_gpu", lambda: False)
    copied = save_run(tmp_path / "copied", *GPU_RUN)
    before = sorted(copied.rglob("*"))
    data = tmp_path / "held_out.parquet"
    write_samples(data, ROW)
    config, run = evaluated(f"checkpoint={copied}", f"data={data}")
    with pytest.raises(ConfigError, match=r"this machine has no GPU; .* set rollout\.engine\.device=cpu "):
        run_evaluation(config, run)
    assert sorted(copied.rglob("*")) == before


def test_a_second_evaluation_into_one_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "check_rewards", lambda *_: None)
    data, out = tmp_path / "held_out.parquet", tmp_path / "out"
    write_samples(data, ROW)
    model = write_model_folder(tmp_path / "model", "qwen2_5_vl")
    config = settings(checkpoint=str(model), data=str(data), out=str(out))
    with (
        exclusive(out, refusal="never said"),
        pytest.raises(ResumeError, match=r"another process is evaluating into .*/out; .* out=\.\.\."),
    ):
        run_evaluation(config, None)
    assert not out.exists()
