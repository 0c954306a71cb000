"""What is typed becomes settings as it was meant, or is refused in one line that names what is wrong and the way."""

from typing import Any

import pytest

from orchestration.cli import compose
from orchestration.settings.describe import explain, is_path, is_text, setting_type
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import build_settings


@pytest.mark.parametrize(
    "text",
    [
        "Use <think> tags",
        "Think first, then answer.",
        "Put it in \\boxed{}, e.g. \\(x\\)",
        "It's a 'quoted' word",
        '"a" or "b"',
        "a=b; c: d (e) [f] {g} ~h $5 #i",
        " two lines\nof text ",
        "12",
        "true",
        "ends in a backslash \\",
        "choice(a,b)",
        "多, 语",
    ],
)
def test_a_setting_that_is_text_is_taken_as_it_was_typed(text: str) -> None:
    assert compose([f"rollout.system_prompt={text}"])["rollout"]["system_prompt"] == text


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("'Think, then answer.'", "Think, then answer."),
        ('"a, b"', "a, b"),
        ("", ""),
        ("seed ${seed}", "seed 7"),
        (r"a\${b", "a${b"),
    ],
)
def test_quotes_around_the_whole_text_and_references_are_read(typed: str, meant: str) -> None:
    assert compose(["seed=7", f"rollout.system_prompt={typed}"])["rollout"]["system_prompt"] == meant


@pytest.mark.parametrize("name", ["a,b", "Qwen(1)", "epoch=3", "lr=1e-5", "two words", "[x]", "a<b", "$x", "it's", "3"])
def test_a_path_may_hold_any_sign(name: str) -> None:
    values = compose([f"run_dir=/runs/{name}", f"model.path=/models/{name}", f"evaluate.out={name}"])

    assert values["run_dir"] == f"/runs/{name}"
    assert values["model"]["path"] == f"/models/{name}"
    assert values["evaluate"]["out"] == name


def test_the_home_folder_is_expanded_in_every_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    keys = [
        "run_dir", "cache_dir", "model.path", "data.train", "data.held_out", "data.recipe.raw", "data.recipe.out",
        "training.checkpoint_dir", "training.staging_dir", "evaluate.checkpoint", "evaluate.data", "evaluate.out",
        "evaluate.against",
    ]  # fmt: skip

    values = compose([f"{key}=~/x/{number}" for number, key in enumerate(keys)])

    for number, key in enumerate(keys):
        found = values
        for part in key.split("."):
            found = found[part]
        assert found == f"/home/somebody/x/{number}", key


def test_folders_for_another_machine_stay_as_they_were_written() -> None:
    values = compose(["run_dir=~/x", "cache_dir=here"], is_for_here=False)
    assert (values["run_dir"], values["cache_dir"]) == ("~/x", "here")


@pytest.mark.parametrize("experiment", ["cpu_quick", "cpu_smoke"])
def test_other_data_takes_the_place_of_an_experiments_rows(experiment: str) -> None:
    recipe = compose([f"experiment={experiment}"])["data"]["recipe"]
    assert recipe["name"] == "demo"
    assert recipe["sources"]["demo"]["options"]["num_rows"] < 8192
    files = ["data=parquet", "data.train=/train", "data.held_out=/held_out"]
    own = build_settings(compose([f"experiment={experiment}", *files])).data.recipe
    assert own is not None
    assert (own.name, own.sources) == ("own", {})
    mixed = build_settings(compose([f"experiment={experiment}", "data=mixed_45k", "data.recipe.raw=/raw"]))
    assert mixed.data.recipe is not None
    assert "demo" not in mixed.data.recipe.sources


def test_of_two_values_for_one_key_the_last_counts() -> None:
    assert compose(["seed=1", "seed=2"])["seed"] == 2
    assert compose(["algorithm=gspo", "algorithm=dapo"])["algorithm"]["name"] == "dapo"
    assert compose(["experiment=cpu_quick", "experiment=null"])["training"]["num_steps"] == 160


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("rollout.sampling.tasks.chart.temperature", "0.7", 0.7),
        ("rollout.sampling.tasks", "{chart: {max_completion_tokens: 8}}", {"chart": {"max_completion_tokens": 8}}),
        ("algorithm.tasks.chart.kl_coef", "0.02", 0.02),
        (
            "evaluation.sets.charts",
            "{path: /data/charts, every_steps: 20}",
            {"path": "/data/charts", "every_steps": 20},
        ),
        ("evaluation.sets.charts.path", "/data/charts", "/data/charts"),
        ("data.stream.weights", "{chart: 2, iou: 1}", {"chart": 2, "iou": 1}),
        ("cluster.environment.NCCL_DEBUG", "INFO", "INFO"),
        ("tracking.options.CsvTracker.column", "policy/loss", "policy/loss"),
    ],
)
def test_names_of_the_users_own_need_no_plus_sign_and_may_have_one(key: str, value: str, expected: object) -> None:
    for plus in ("", "+"):
        found: Any = compose([f"{plus}{key}={value}"])
        for part in key.split("."):
            found = found[part]
        assert found == expected


def test_a_wrong_setting_of_a_named_task_is_refused_with_the_nearest() -> None:
    message = r"tasks\.chart\.temprature is not a setting; did you mean rollout\.sampling\.tasks\.chart\.temperature\?"
    with pytest.raises(ConfigError, match=message):
        build_settings(compose(["rollout.sampling.tasks.chart.temprature=0.7"]))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["algorithm=grop"], r"algorithm=grop is not there; did you mean algorithm=grpo\? choices: cispo, dapo"),
        (
            ["experiment=qwen2_5_vl_7b"],
            "is a folder; choose experiment=qwen2_5_vl_7b/16_nodes, experiment=qwen2_5_vl_7",
        ),
        (["experiment=qwen2_5_vl_7b/8gpus"], r"did you mean experiment=qwen2_5_vl_7b/8_gpus\?"),
        (["+learner/lora=defualt"], r"did you mean learner/lora=default\?"),
        (["learner/lora=defualt"], r"did you mean learner/lora=default\?"),
        (["learner/lora=default"], r"no learner/lora yet; add it with a plus sign: \+learner/lora=default"),
        (["algorithm=null"], "algorithm=null is not there; choices: cispo"),
        (["learner.lora.rank=8"], r"add it first: \+learner/lora=default"),
        (["+seed=1"], "seed is a setting already; leave the plus sign out: seed=1"),
        (["reward.routes.music=matching"], r"added with a plus sign: \+reward.routes.music=matching"),
        (["rollout.enginess=2"], r"rollout.enginess is not a setting; did you mean rollout.engines\?"),
        (["seed.x=2"], "seed is one value and has no x"),
        (["training.num_steps=5)"], r"training.num_steps must be int; got '5\)'"),
        (["training.num_steps=1,2"], "training.num_steps must be int; got '1,2'"),
        (["learner.freeze=[a<b]"], r"cannot be read: .* put in quotes"),
        (["run_dir=${nothing}"], r"\$\{name\} stands for the setting of that name, and \\\$\{name\}"),
        (["rollout.system_prompt=a${b"], r"what follows \$\{ is not a name that ends with \}; .* and \\\$\{name\} "),
        (["rollout.system_prompt=${", "seed=1"], r"\\\$\{name\} for the characters themselves"),
        (["run_dir="], "run_dir is empty"),
        (["model.path="], "model.path is empty.*or null for none"),
        (["..."], "'...' has no key; leave it out"),
        (["...=3"], "'...=3' has no key"),
        ([""], "an argument is empty"),
        (["experiment"], "write experiment=VALUE"),
        (["then"], "a value with spaces is put in quotes of the shell"),
        (["=3"], "'=3' has no key"),
        (["a b=3"], "'a b' cannot be the name of a setting"),
        (["-m"], "-m is an option of Hydra's.*for seed in 0 1 2"),
        (["-cd", "/x"], "--config-dir FOLDER.*experiment=NAME"),
        (["hydra.searchpath=[/x]"], "hydra.searchpath is not a setting.*--config-dir FOLDER"),
        (["--seed=3"], "settings are written without dashes: seed=VALUE"),
        (["--frobnicate"], "--frobnicate is not an option; see --help"),
        (["hydra.run.dir=x"], "hydra.run.dir is not a setting"),
    ],
)
def test_what_cannot_be_composed_is_named_with_the_way(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        compose(overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "at_fault"),
    [
        (["learner=deepspeed_zero3", "learner.deepspeed.zero_stage=3", "training.num_step=5"], "training.num_step "),
        (["learner.deepspeed.zero_stage=3", "learner=deepspeed_zero3", "algorithm=grop"], "algorithm=grop "),
        (["+data.recipe.sources.x={adapter: jsonl}", "data.recipe.sources.x.adapter=a", "seedd=1"], "seedd "),
        (["seed=3", "learner.deepspeed.zero_stage=3", "run_dir=/x"], "learner.deepspeed is "),
    ],
)
def test_the_override_at_fault_is_the_one_that_is_blamed(overrides: list[str], at_fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(overrides)
    assert str(caught.value).startswith(at_fault)


def test_the_annotations_of_the_settings_say_what_is_text_and_what_a_path() -> None:
    assert is_text(setting_type("rollout.system_prompt"))
    assert is_text(setting_type("learner.backend"))
    assert is_text(setting_type("reward.routes.anything"), or_mapping=True)
    assert not is_text(setting_type("reward.routes.anything"))
    assert not is_text(setting_type("reward.chart"), or_mapping=True)
    assert not is_text(setting_type("seed"))
    assert not is_text(setting_type("learner.freeze"))
    assert not is_text(setting_type("no.such.key"))
    assert is_path(setting_type("data.recipe.sources.any.path"))
    assert not is_path(setting_type("rollout.system_prompt"))


def test_a_setting_is_explained_with_its_type_and_a_group_with_all_it_holds() -> None:
    assert explain("training.num_steps").startswith("training.num_steps (int)\nTraining steps in all")
    told = explain("training")
    assert "Steps, how far rollout runs ahead" in told
    assert "  training.keep_last (int): Newest complete checkpoints that stay." in told
    with pytest.raises(ConfigError, match=r"did you mean training.num_steps\?"):
        explain("training.num_step")
