"""Sampling of single tasks: what a task sets replaces what holds for all, and limits count the largest."""

import json
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

import pytest

from orchestration.cluster.local_ray import store_need
from orchestration.models.shapes import shape_of
from orchestration.plan.activations import largest_load
from orchestration.plan.batches import expected_lengths, plan_batches
from orchestration.settings.composition import compose
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig, build_settings, settings_errors
from orchestration.settings.seeds import derive_seed
from orchestration.train.draws import Draws
from orchestration.workers.learner_group import algorithm_of
from orchestration.workers.reward_pool import largest_group
from rollout.config import SamplingConfig, TaskSamplingConfig
from rollout.errors import RolloutError
from rollout.prompt_stream import PromptDraw
from rollout.records import Sample, SamplingSpec
from tests.unit.plan.runs import gpu_config

CHART = "chart: {max_completion_tokens: 64, temperature: 0.7, group_size: 16}"
TASKS = f"+rollout.sampling.tasks={{{CHART}, iou: {{group_size: 4}}}}"
SAMPLING = SamplingConfig(
    group_size=8,
    temperature=1.0,
    max_completion_tokens=32,
    tasks={
        "chart": TaskSamplingConfig(max_completion_tokens=64, temperature=0.7, group_size=16),
        "iou": TaskSamplingConfig(group_size=4),
    },
)


def settings(*overrides: str) -> ExperimentConfig:
    return build_settings(compose(["run_dir=/tmp/run", "cache_dir=/tmp/cache", *overrides]))


def draw(task: str) -> PromptDraw:
    return PromptDraw(
        position=0, epoch=2, sample=Sample(sample_id="a", source="s", task=task, question="?", answer="1")
    )


@pytest.mark.parametrize(
    ("task", "group_size", "temperature", "length"), [("chart", 16, 0.7, 64), ("iou", 4, 1.0, 32), ("math", 8, 1.0, 32)]
)
def test_a_draw_is_sampled_as_its_task_says(task: str, group_size: int, temperature: float, length: int) -> None:
    config: Any = SimpleNamespace(seed=3, rollout=SimpleNamespace(sampling=SAMPLING))
    draws = Draws.__new__(Draws)
    draws._config = config
    assert draws.sampling_spec(draw(task)) == SamplingSpec(
        group_size=group_size,
        temperature=temperature,
        max_completion_tokens=length,
        seed=derive_seed(3, "rollout", 2, "a"),
    )


def test_limits_are_those_of_the_largest_task() -> None:
    assert (SAMPLING.largest_group, SAMPLING.smallest_group, SAMPLING.longest_completion) == (16, 4, 64)
    plain = replace(SAMPLING, tasks={})
    assert (plain.largest_group, plain.smallest_group, plain.longest_completion) == (8, 8, 32)


def test_settings_of_tasks_are_composed_and_recorded_as_they_were_typed() -> None:
    config = settings(TASKS)
    assert config.rollout.sampling.tasks == SAMPLING.tasks
    assert json.loads(json.dumps(asdict(config)))["rollout"]["sampling"]["tasks"]["iou"] == {
        "group_size": 4,
        "temperature": None,
        "max_completion_tokens": None,
    }


def test_the_learner_knows_temperatures_and_lengths_of_tasks() -> None:
    algorithm = algorithm_of(settings(TASKS))
    assert algorithm.task_temperatures == {"chart": 0.7}
    assert algorithm.task_max_completion_tokens == {"chart": 64}
    assert algorithm_of(settings()) == settings().algorithm


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+rollout.sampling.tasks={chrt: {group_size: 4}}"], r"rollout\.sampling\.tasks names chrt, which no reward"),
        (
            ["rollout.sampling.top_k=5"],
            r"sampling\.top_k is 5; the learner computes logprobs.*top_k=0; .*evaluation\.top_k",
        ),
        (["rollout.sampling.min_p=0.1"], r"rollout\.sampling\.min_p is 0\.1; the learner computes"),
        (["rollout.sampling.stop=[a]"], r"rollout\.sampling\.stop is \['a'\]; a completion that trains ends with"),
        (["+algorithm.task_temperatures={chart: 2.0}"], r"are set by the run; set rollout\.sampling\.tasks alone"),
    ],
)
def test_a_run_refuses_sampling_that_its_learner_cannot_follow(overrides: list[str], message: str) -> None:
    [error] = settings_errors(settings(*overrides))
    with pytest.raises(ConfigError, match=message):
        raise error
    if "tasks" not in overrides[0] and "task_" not in overrides[0]:
        assert list(settings_errors(settings(*overrides), is_for_training=False)) == []


def test_values_of_tasks_are_checked_with_the_name_of_the_task() -> None:
    for value, message in (
        ("group_size: 1", r"rollout\.sampling\.tasks\.chart\.group_size is 1; use 2"),
        ("temperature: 0", r"rollout\.sampling\.tasks\.chart\.temperature is 0\.0; use"),
        (
            "max_completion_tokens: 256",
            r"rollout\.sampling\.tasks\.chart\.max_completion_tokens \(256\) leaves no room",
        ),
        ("groupsize: 4", r"rollout\.sampling\.tasks\.chart\.groupsize is not a setting; did you mean .*group_size"),
    ):
        with pytest.raises((ConfigError, RolloutError), match=message):
            settings(f"+rollout.sampling.tasks={{chart: {{{value}}}}}")


def test_a_plan_counts_the_largest_group_and_the_longest_completion(tmp_path: Any) -> None:
    own = "+rollout.sampling.tasks={chart: {max_completion_tokens: 4096, group_size: 32}}"
    config, plain = gpu_config(tmp_path, own), gpu_config(tmp_path)
    lengths = expected_lengths(config, None, None)
    assert lengths.completion_most == 4096
    assert plan_batches(config, lengths, None).group_size == 32
    assert plan_batches(plain, expected_lengths(plain, None, None), None).group_size == 8
    assert store_need(config, 0.0).group_bytes > 4 * store_need(plain, 0.0).group_bytes
    load, plain_load = (largest_load(one, shape_of(one.model)) for one in (config, plain))
    assert (load.completion_tokens, plain_load.completion_tokens) == (4096, 2048)


def test_reward_actors_have_time_for_the_largest_group(tmp_path: Any) -> None:
    own = "+rollout.sampling.tasks={chart: {group_size: 64}}"
    assert largest_group(gpu_config(tmp_path, own)) == 64
    assert largest_group(gpu_config(tmp_path)) == 8
