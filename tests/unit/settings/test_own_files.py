"""`--config FILE` and `--config-dir FOLDER`: settings of one's own, below the command line and above the defaults."""

import json
import re
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestration.cli import compose, main
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import build_settings


def written(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    return str(path)


def test_a_few_keys_are_laid_over_the_defaults_and_what_follows_them_follows(tmp_path: Path) -> None:
    file = written(
        tmp_path / "mine.yaml", "training: {num_steps: 7}\nlearner:\n  optimizer:\n    learning_rate: 1e-5\n"
    )
    values, defaults = compose(["--config", file]), compose([])
    assert values["training"]["num_steps"] == 7
    assert values["learner"]["optimizer"]["learning_rate"] == 1e-5
    assert values["learner"]["optimizer"]["total_steps"] == 7  # the defaults take it from training.num_steps
    values["training"]["num_steps"] = defaults["training"]["num_steps"]
    values["learner"]["optimizer"] = defaults["learner"]["optimizer"]
    assert values == defaults


def test_the_command_line_comes_last(tmp_path: Path) -> None:
    file = written(tmp_path / "mine.yaml", "seed: 3\ntraining: {num_steps: 7}\nalgorithm: {clip_high: 0.9}\n")
    assert compose(["seed=4", f"--config={file}"])["seed"] == 4
    assert (
        compose(["--config", file, "experiment=cpu_quick"])["training"]["num_steps"]
        == (compose(["experiment=cpu_quick"])["training"]["num_steps"])
    )
    assert compose(["--config", file])["algorithm"]["clip_high"] == 0.9
    # A group that is chosen replaces that of the file, and so do the values that an experiment states.
    assert compose(["--config", file, "algorithm=dapo"])["algorithm"] == compose(["algorithm=dapo"])["algorithm"]
    assert compose(["--config", file, "algorithm=dapo"])["training"]["num_steps"] == 7


def test_a_file_chooses_files_of_groups(tmp_path: Path) -> None:
    text = "experiment: cpu_quick\nablation: null\nalgorithm: gspo\nlearner/lora: default\nseed: 3\n"
    file = written(tmp_path / "mine.yaml", text)
    same = ["experiment=cpu_quick", "algorithm=gspo", "+learner/lora=default", "seed=3"]
    assert compose(["--config", file]) == compose(same)
    assert compose(["--config", file, "algorithm=dapo"]) == compose([*same, "algorithm=dapo"])


@pytest.mark.parametrize("arguments", [[], ["experiment=qwen2_5_vl_7b/8_gpus", "learner=deepspeed_gpu"]])
def test_the_settings_of_a_run_and_the_output_of_config_give_the_same_settings(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    text = "it's ${no} reference, \\ and 'quotes'"
    arguments = [*arguments, rf"rollout.system_prompt={text.replace('${', chr(92) + '${')}", "model.path=/m"]
    values = compose(arguments)
    assert values["rollout"]["system_prompt"] == text
    file = written(tmp_path / "config.json", json.dumps(asdict(build_settings(values))))
    assert build_settings(compose(["--config", file])) == build_settings(values)
    with pytest.raises(SystemExit):
        main(["config", *arguments])
    file = written(tmp_path / "config.yaml", capsys.readouterr().out)
    assert build_settings(compose(["--config", file])) == build_settings(values)


def test_what_one_setting_takes_from_another_goes_on_to_do_so_in_the_settings_of_a_run(tmp_path: Path) -> None:
    file = written(tmp_path / "config.json", json.dumps(asdict(build_settings(compose([])))))
    values = compose(["--config", file, "rollout.sampling.temperature=0.5", "training.num_steps=9"])
    assert (values["algorithm"]["temperature"], values["learner"]["optimizer"]["total_steps"]) == (0.5, 9)
    apart = written(tmp_path / "apart.json", json.dumps({"learner": {"optimizer": {"total_steps": 1000}}}))
    assert compose(["--config", apart, "training.num_steps=9"])["learner"]["optimizer"]["total_steps"] == 1000


def test_a_folder_of_groups_comes_before_ours_and_nothing_is_warned_of(tmp_path: Path) -> None:
    folder = tmp_path / "my settings"
    written(folder / "experiment" / "mine.yaml", "# @package _global_\ndefaults:\n  - override /model: own\nseed: 5\n")
    written(folder / "model" / "own.yaml", "defaults: [tiny_internvl]\ncoord_mode: norm1000\npath: /models/own\n")
    written(folder / "algorithm" / "grpo.yaml", "defaults: [dapo]\nclip_high: 0.77\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = compose([f"--config-dir={folder}", "experiment=mine"])
        assert values["seed"] == 5
        assert values["model"]["path"] == "/models/own"
        assert values["algorithm"]["clip_high"] == 0.77
        assert compose([])["algorithm"]["clip_high"] != 0.77
    with pytest.raises(ConfigError, match=r"did you mean experiment=mine\? choices: mine, cpu_quick,"):
        compose([f"--config-dir={folder}", "experiment=min"])


def test_both_together(tmp_path: Path) -> None:
    written(tmp_path / "own" / "experiment" / "mine.yaml", "# @package _global_\nseed: 5\ntraining: {num_steps: 3}\n")
    file = written(tmp_path / "few.yaml", "experiment: mine\ntraining: {num_steps: 4}\n")
    values = compose(["--config", file, "--config-dir", str(tmp_path / "own")])
    assert (values["seed"], values["training"]["num_steps"]) == (5, 4)


def test_a_file_is_laid_over_the_settings_of_a_run_too(tmp_path: Path) -> None:
    base: dict[str, Any] = compose(["seed=9", "training.num_steps=2", "algorithm=gspo"])
    file = written(tmp_path / "few.yaml", "training: {num_steps: 4}\n")
    values = compose(["--config", file], base=base)
    assert values == {**base, "training": {**base["training"], "num_steps": 4}}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.yaml", "training: {num_step: 5}", r"a\.yaml: training\.num_step is not a setting; did you mean training"),
        ("a.yaml", "sede: 5", r"sede is not a setting; did you mean seed\?"),
        ("a.yaml", "training: [1", r"a\.yaml is no YAML: .*line 1"),
        ("a.json", '{"seed": 1', r"a\.json is not whole JSON"),
        ("a.yaml", "- 1", "holds list, not settings"),
        ("a.yaml", "seed: \udcff", r"a\.yaml is no UTF-8 text"),
        ("a.yaml", "experiment: cpu_quik", r"a\.yaml: experiment=cpu_quik is not there; did you mean .*cpu_quick\?"),
        ("a.yaml", "defaults: [x]", "holds `defaults`.*--config-dir FOLDER"),
        ("a.yaml", "reward: {api_key: abc}", "reward.api_key looks like a secret|reward.api_key is not a setting"),
        ("a.yaml", "run_dir: ''", "run_dir is empty"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_way(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        compose(["--config", written(tmp_path / name, text)])
    assert "\n" not in str(caught.value)


def test_options_that_name_nothing_of_use_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "runs" / "config.json", "{}")
    written(tmp_path / "runs" / "model" / "config.yaml", "")
    written(tmp_path / "other" / "x.yaml", "")
    written(tmp_path / "copy" / "config.yaml", "")
    written(tmp_path / "copy" / "model" / "x.yaml", "")
    for arguments, said in (
        (["--config"], "--config names nothing; write --config FILE"),
        (["--config-dir="], "--config-dir names nothing; write --config-dir FOLDER"),
        (["--config", f"{tmp_path}/runs"], r"is a folder; write .*/runs/config\.json"),
        (["--config", f"{tmp_path}/other"], "a folder of YAML files is --config-dir"),
        (["--config", f"{tmp_path}/runs/confg.json"], r"did you mean .*/runs/config\.json\?"),
        (["--config-dir", f"{tmp_path}/othr"], r"othr does not exist; did you mean .*/other\?"),
        (["--config-dir", f"{tmp_path}/other"], "holds no group of settings.*groups: .*model"),
        (["--config-dir", f"{tmp_path}/runs/config.json"], "is a file; --config takes one"),
        (["--config-dir", f"{tmp_path}/copy"], r"holds a config\.yaml, which is not read.*--config FILE"),
    ):
        with pytest.raises(ConfigError, match=said):
            compose(arguments)


def test_a_file_of_a_group_whose_defaults_lead_nowhere_is_named_with_what_is_wrong(tmp_path: Path) -> None:
    written(tmp_path / "training" / "circle.yaml", "defaults: [circle]\n")
    written(tmp_path / "training" / "gap.yaml", "defaults: [nothing_so_named]\n")
    for name, said in (
        ("circle", "training=circle: the `defaults` of its file lead back"),
        ("gap", "nothing_so_named"),
    ):
        with pytest.raises(ConfigError, match=said):
            compose([f"--config-dir={tmp_path}", f"training={name}"])


def test_a_broken_file_of_a_group_is_named(tmp_path: Path) -> None:
    written(tmp_path / "experiment" / "broken.yaml", "# @package _global_\nseed: [5\n")
    with pytest.raises(ConfigError, match=r"broken\.yaml.*line 3"):
        compose([f"--config-dir={tmp_path}", "experiment=broken"])


@pytest.mark.parametrize("verb", ["plan", "train", "check", "config", "evaluate", "report", "score", "data"])
def test_every_command_that_composes_settings_takes_both(
    tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    head = {"data": ["data", "build"], "score": ["score", "rows.jsonl"]}.get(verb, [verb])
    for option in ("--config", "--config-dir"):
        with pytest.raises(SystemExit) as ending:
            main([*head, option, str(tmp_path / "absent")])
        assert ending.value.code == 2
        assert f"{option}={tmp_path / 'absent'} does not exist" in capsys.readouterr().err


def test_yaml_dates_and_numbers_are_read_as_the_settings_mean_them(tmp_path: Path) -> None:
    lines = "learner: {optimizer: {learning_rate: 2e-6, weight_decay: 0}}\ncache_dir: 'x y'\n"
    values = compose(["--config", written(tmp_path / "a.yaml", lines)])
    assert values["learner"]["optimizer"]["learning_rate"] == 2e-6
    assert Path(values["cache_dir"]).name == "x y"
    assert yaml.safe_load("1e-5") == "1e-5"  # why the file is not read by that


def test_the_example_of_the_page_composes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[3] / "conf" / "README.md").read_text()
    section = page.split("## Settings of your own")[1].split("\n## ")[0]
    for name, text in re.findall(r"```yaml\n# (\S+)\n(.*?)```", section, re.DOTALL):
        written(tmp_path / name, text)
    commands = re.findall(r"^mixed-r1 \w+ (.*)$", section, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    plan, train, again, own = (command.split() for command in commands)
    first = compose(plan)
    assert (first["training"]["num_steps"], first["algorithm"]["name"]) == (5, "dapo")
    assert compose(train)["training"]["num_steps"] == 8
    written(tmp_path / "runs" / "mine" / "config.json", json.dumps(asdict(build_settings(first))))
    hotter = compose(again)
    assert Path(hotter["run_dir"]).name == "hotter"
    assert hotter["algorithm"]["temperature"] == 1.2
    values = compose(own)
    assert (values["algorithm"]["clip_high"], values["rollout"]["system_prompt"]) == (0.4, "Answer in tags.")


def test_a_recipe_needs_no_name_and_says_that_it_needs_a_source(tmp_path: Path) -> None:
    written(tmp_path / "data/own.yaml", "defaults: [_recipe, _self_]\nrecipe: {raw: raw}\n")
    with pytest.raises(ConfigError, match="recipe recipe has no source of role train; add one"):
        build_settings(compose(["--config-dir", str(tmp_path), "data=own"]))
