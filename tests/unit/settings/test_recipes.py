"""Every recipe, ablation and variant composes into a valid run, and says where its numbers come from."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import conf
from orchestration.cli import compose
from orchestration.models.shapes import read_shape
from orchestration.models.tensors import count_parameters
from orchestration.plan.plan import RunPlan, plan_run
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig, build_settings, settings_errors
from tests.benchmarks.recipe_table import HEAD, recipe_names, row

CONF = Path(str(conf.__file__)).parent
RECIPE_FILES = sorted(
    path for path in (CONF / "experiment").rglob("*.yaml") if path.stem not in ("cpu_quick", "cpu_smoke")
)
RECIPES = [str(path.relative_to(CONF / "experiment").with_suffix("")) for path in RECIPE_FILES if path.stem[0] != "_"]
ABLATIONS = sorted(path.stem for path in (CONF / "ablation").glob("*.yaml"))
SIZED_MODELS = sorted(path for path in (CONF / "model").glob("[!_]*_*b.yaml"))
NUMBER = re.compile(r"^\s*[\w-]+:\s*[\[\d.-]")
"""A YAML line that sets a number, or a list."""


def experiment_of(*overrides: str) -> ExperimentConfig:
    return build_settings(compose(overrides))


@pytest.fixture(scope="module")
def recipes() -> dict[str, ExperimentConfig]:
    """Composing takes a third of a second each, so every recipe is composed once."""
    return {name: experiment_of(f"experiment={name}") for name in RECIPES}


@pytest.fixture(scope="module")
def plans(recipes: dict[str, ExperimentConfig]) -> dict[str, RunPlan]:
    """What `mixed-r1 plan` makes of every recipe."""
    return {name: plan_run(config) for name, config in recipes.items()}


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    """The settings of the default run."""
    return compose([])


def test_every_model_has_a_recipe_for_eight_gpus_or_more(recipes: dict[str, ExperimentConfig]) -> None:
    by_model: dict[str, set[str]] = {}
    for name in recipes:
        model, machines = name.split("/")
        by_model.setdefault(model, set()).add(machines)
    assert set(by_model) == {path.stem for path in SIZED_MODELS}
    assert all(machines & {"8_gpus", "2_nodes", "4_nodes", "16_nodes"} for machines in by_model.values())


def test_every_recipe_is_a_valid_run(recipes: dict[str, ExperimentConfig]) -> None:
    wrong = {name: [str(error) for error in settings_errors(config)] for name, config in recipes.items()}
    assert {name: errors for name, errors in wrong.items() if errors} == {}


def test_every_recipe_uses_all_gpus_of_the_machines_in_its_name(recipes: dict[str, ExperimentConfig]) -> None:
    named = {"1_gpu": 1, "8_gpus": 8, "2_nodes": 16, "4_nodes": 32, "16_nodes": 128}
    for name, config in recipes.items():
        engines = config.rollout.engines * config.rollout.engine.tensor_parallel_size
        ranks = config.learner.num_ranks
        taken = max(engines, ranks) if config.cluster.layout == "colocated" else engines + ranks
        there = sum(kind.count * kind.gpus for kind in config.cluster.nodes)
        assert taken == there == named[name.split("/")[1]], name


def test_every_recipe_plans_without_an_error(plans: dict[str, RunPlan]) -> None:
    errors = {name: [f for f in plan.findings if f.severity == "error"] for name, plan in plans.items()}
    assert {name: found for name, found in errors.items() if found} == {}


def test_every_recipe_leaves_a_twentieth_of_every_gpu_and_a_third_of_host_memory_free(
    plans: dict[str, RunPlan],
) -> None:
    for name, plan in plans.items():
        for use in plan.memory.devices:
            assert use.limit_bytes is not None
            assert use.total_bytes <= 0.95 * use.limit_bytes, (name, use.place)
        for host in plan.memory.hosts:
            assert host.limit_bytes is not None
            assert host.total_bytes <= 0.67 * host.limit_bytes, (name, host.place)


def test_no_side_of_a_recipe_waits_for_more_than_a_third_of_a_step(plans: dict[str, RunPlan]) -> None:
    for name, plan in plans.items():
        assert plan.seconds is not None
        if plan.layout_name == "disaggregated":
            longer = max(plan.seconds.rollout_s, plan.seconds.train_s)
            assert min(plan.seconds.rollout_s, plan.seconds.train_s) > 0.66 * longer, name


def test_the_table_of_the_readme_is_what_the_plans_say(
    recipes: dict[str, ExperimentConfig], plans: dict[str, RunPlan]
) -> None:
    text = (CONF / "README.md").read_text().splitlines()
    start = next(number for number, line in enumerate(text) if HEAD[0] in line and HEAD[-1] in line) + 2
    told = [[cell.strip() for cell in line.strip("|").split("|")] for line in text[start : start + len(recipes)]]
    for cells, name in zip(told, recipe_names(), strict=True):
        expected = row(name, recipes[name], plans[name])
        assert cells[:-2] == expected[:-2]
        assert float(cells[-2]) == pytest.approx(float(expected[-2]), abs=2.0), name
        assert float(cells[-1]) == pytest.approx(float(expected[-1]), rel=0.2, abs=2.0), name


def test_every_recipe_says_what_its_model_is_and_leaves_folders_to_the_user(
    recipes: dict[str, ExperimentConfig],
) -> None:
    for name, config in recipes.items():
        assert config.model.hf_config is not None, name
        assert config.model.folder is None, name
        assert config.data.recipe is not None, name
        assert not config.data.recipe.sources, name


def test_a_fault_limit_bears_the_loss_of_a_machine(recipes: dict[str, ExperimentConfig]) -> None:
    for name, config in recipes.items():
        per_machine = max(kind.gpus for kind in config.cluster.nodes) // config.rollout.engine.tensor_parallel_size
        assert config.cluster.faults.max_engine_faults >= 2 * per_machine, name
        assert config.cluster.faults.max_reward_faults >= config.cluster.reward_pool.num_actors, name


@pytest.mark.parametrize("path", RECIPE_FILES, ids=lambda path: str(path.relative_to(CONF / "experiment")))
def test_every_number_of_a_recipe_has_its_source_beside_it(path: Path) -> None:
    bare = [line for line in path.read_text().splitlines() if NUMBER.match(line) and "  # " not in line]
    assert bare == []


@pytest.mark.parametrize("path", SIZED_MODELS, ids=lambda path: path.stem)
def test_a_model_has_as_many_parameters_as_its_first_line_says(path: Path) -> None:
    said = re.search(r"([\d,]{7,}) parameters", path.read_text())
    hf_config = compose([f"model={path.stem}"])["model"]["hf_config"]
    assert said is not None
    assert count_parameters(read_shape(hf_config)).total == int(said[1].replace(",", ""))


@pytest.mark.parametrize(
    "variant",
    [
        ["algorithm=dapo", "training=dynamic_sampling"],
        ["algorithm=gspo", "algorithm.num_minibatches=4"],
        ["training=async"],
        ["training=sync", "ablation=no_bmas"],
        ["cluster.address=auto", "learner=deepspeed_gpu"],
    ],
    ids=" ".join,
)
def test_a_recipe_takes_another_algorithm_or_rhythm_in_a_word(variant: list[str]) -> None:
    config = experiment_of("experiment=qwen2_5_vl_7b/8_gpus", *variant)
    assert list(settings_errors(config)) == []
    assert config.training.groups_per_step == 120  # the recipe's own settings stay
    assert (config.learner.num_ranks, config.rollout.engines) == (6, 2)


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_changes_what_it_says_and_nothing_else(name: str, plain: dict[str, Any]) -> None:
    ablated = compose([f"ablation={name}"])
    changed = {key for key, _, _ in differences(plain, ablated)}
    assert changed in ({"reward.format_weight", "reward.task_weight"}, {"data.stream.tasks"})
    assert list(settings_errors(build_settings(ablated))) == []


def differences(left: Any, right: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(left, dict) and isinstance(right, dict):
        return [
            found
            for key in left.keys() | right.keys()
            for found in differences(left.get(key), right.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if left == right else [(path, left, right)]


def test_single_reward_ablations_take_the_tasks_that_are_routed_there(plain: dict[str, Any]) -> None:
    routes = plain["reward"]["routes"]
    for function in set(routes.values()):
        chosen = yaml.safe_load((CONF / "ablation" / f"{function}_only.yaml").read_text())["data"]["stream"]["tasks"]
        assert sorted(chosen) == sorted(task for task, routed in routes.items() if routed == function)


def test_without_bmas_every_other_task_is_left(plain: dict[str, Any]) -> None:
    routes = plain["reward"]["routes"]
    chosen = yaml.safe_load((CONF / "ablation" / "no_bmas.yaml").read_text())["data"]["stream"]["tasks"]
    assert sorted(chosen) == sorted(task for task, routed in routes.items() if routed != "open_ended")


@pytest.mark.parametrize(
    ("choice", "meant"),
    [
        ("experiment=qwen2_5_vl_7b/8_gpu", "experiment=qwen2_5_vl_7b/8_gpus"),
        ("ablation=chart_onli", "ablation=chart_only"),
    ],
)
def test_a_misspelt_recipe_is_answered_with_the_nearest_one(choice: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=rf"{choice} is not there; did you mean {meant}\?"):
        compose([choice])


def test_a_task_that_nothing_scores_is_refused() -> None:
    [error] = settings_errors(experiment_of("data.stream.tasks=[iuo]"))
    assert "data.stream.tasks names iuo" in str(error)
