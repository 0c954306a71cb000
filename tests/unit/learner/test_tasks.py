"""Weights and KL of tasks in the loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from learner_scenarios import keep_first_gradients, start_trainer, weights_of
from tiny_learner import make_group

from learner.algorithms.advantages import compute_advantages
from learner.config import AlgorithmConfig, TaskConfig
from learner.errors import LearnerError
from orchestration.cli import compose
from orchestration.settings.errors import ConfigError
from orchestration.settings.strict import build

GROUPS = [
    make_group("text", image_sizes=(), lengths=(3, 4)),
    replace(make_group("chart", image_sizes=(), lengths=(5, 2)), task="chart"),
]


def step(model_path, **algorithm):
    """(gradients of the step, metrics, weights after it)."""
    trainer = start_trainer(0, 1, 0, model_path, algorithm=algorithm)
    gradients = keep_first_gradients(trainer)
    metrics = trainer.train_step(GROUPS, step=0).metrics
    weights = weights_of(trainer)
    trainer.close()
    return gradients, metrics, weights


def chart(**settings):
    return {"tasks": {"chart": TaskConfig(**settings)}}


def test_a_weight_multiplies_the_gradient_of_its_task_alone(model_path):
    once, metrics, _ = step(model_path)
    twice, other_metrics, _ = step(model_path, **chart(weight=2.0))
    both, _, _ = step(model_path, tasks={"chart": TaskConfig(weight=2.0), "match_text": TaskConfig(weight=2.0)})
    four_times, _, _ = step(model_path, **chart(weight=4.0))

    for name, gradient in once.items():
        of_chart = twice[name] - gradient
        np.testing.assert_allclose(four_times[name], gradient + 3 * of_chart, rtol=0, atol=2e-5, err_msg=name)
        np.testing.assert_allclose(both[name], 2 * gradient, rtol=0, atol=2e-5, err_msg=name)
    largest = max(float(np.abs(twice[name] - once[name]).max()) for name in once)
    assert largest > 0.01
    assert other_metrics["policy/entropy"] == metrics["policy/entropy"]  # means count every token once
    assert other_metrics["policy/loss"] != metrics["policy/loss"]


def test_the_kl_of_a_task_acts_on_it_alone(model_path):
    without, _, _ = step(model_path)
    none_for_text, metrics, _ = step(model_path, **chart(kl_coef=0.5))
    none_for_chart, _, _ = step(model_path, kl_coef=0.5, **chart(kl_coef=0.0))
    for_both, _, _ = step(model_path, kl_coef=0.5)

    # In the first update the policy is its own reference: k3 has no gradient there, and no value.
    assert metrics["policy/kl_ref"] == pytest.approx(0.0, abs=1e-6)
    for found in (none_for_text, none_for_chart, for_both):
        for name, gradient in without.items():
            np.testing.assert_allclose(found[name], gradient, rtol=0, atol=1e-5, err_msg=name)

    # Two updates move it away; its terms then add up.
    settings = {"num_epochs": 2, "old_logprobs": "recomputed"}
    losses = {
        name: step(model_path, **settings, **algorithm)[1]["policy/loss"]
        for name, algorithm in {
            "none": {"tasks": {"chart": TaskConfig(kl_coef=1e-12)}},
            "chart": chart(kl_coef=1e4),
            "text": {"kl_coef": 1e4, **chart(kl_coef=0.0)},
            "both": {"kl_coef": 1e4},
        }.items()
    }
    assert losses["chart"] > losses["none"] + 1e-3
    assert losses["text"] > losses["none"] + 1e-3
    assert losses["both"] - losses["none"] == pytest.approx(
        losses["chart"] + losses["text"] - 2 * losses["none"], rel=0.02
    )


def test_tasks_of_the_same_kl_are_one_kl_to_the_bit(model_path):
    settings = {"num_epochs": 2, "old_logprobs": "recomputed"}
    _, metrics, weights = step(model_path, kl_coef=0.05, **settings)
    tasks = {"chart": TaskConfig(kl_coef=0.05), "match_text": TaskConfig(kl_coef=0.05)}

    _, by_task, weights_by_task = step(model_path, kl_coef=0.0, tasks=tasks, **settings)

    assert by_task == metrics
    for name, found in weights_by_task.items():
        np.testing.assert_array_equal(found, weights[name], err_msg=name)


def test_kl_in_the_reward_is_weighed_by_task():
    # rewards 1 and 0; KL of the first completion 0.5: 1 - 2 * 0.5 = 0, a flat group; and 1 - 0.5 * 0.5 in the other
    [first, second] = compute_advantages(
        [[1.0, 0.0], [1.0, 0.0]],
        masked=[[False, False]] * 2,
        tasks=["chart", "text"],
        lengths=[[1, 1]] * 2,
        token_kl={(n, g): torch.tensor([0.5 * (g == 0)]) for n in range(2) for g in range(2)},
        kl_coef=[2.0, 0.5],
        reward_kl="sequence",
        baseline="group_mean",
        scale="none",
        std_floor=0.0,
        range_epsilon=1e-6,
    )

    assert [values.tolist() for values in first] == [[0.0], [0.0]]
    assert [values.tolist() for values in second] == [[0.375], [-0.375]]


def test_only_a_kl_term_loads_the_reference():
    assert not AlgorithmConfig(**chart(weight=2.0)).uses_reference
    assert not AlgorithmConfig(**chart(kl_coef=0.0)).uses_reference
    assert AlgorithmConfig(**chart(kl_coef=0.1)).uses_reference
    config = AlgorithmConfig(kl_coef=0.3, **chart(kl_coef=0.0, weight=3.0))
    assert (config.kl_coef_of("chart"), config.kl_coef_of("math")) == (0.0, 0.3)
    assert (config.weight_of("chart"), config.weight_of("math")) == (3.0, 1.0)


def test_tasks_are_set_on_the_command_line_and_their_values_are_checked():
    values = compose(["algorithm.tasks.chart.kl_coef=0.02", "algorithm.tasks.chart.weight=2"])["algorithm"]
    assert build(AlgorithmConfig, values, "algorithm").tasks == {"chart": TaskConfig(weight=2.0, kl_coef=0.02)}
    for override, message in (
        ("weight=0", r"algorithm\.tasks\.chart\.weight is 0\.0; use a value above 0"),
        ("kl_coef=-1", r"algorithm\.tasks\.chart\.kl_coef is -1\.0; use 0 or more, or null"),
        ("wight=1", r"algorithm\.tasks\.chart\.wight is not a setting; did you mean algorithm\.tasks\.chart\.weight\?"),
    ):
        values = compose([f"algorithm.tasks.chart.{override}"])["algorithm"]
        with pytest.raises(ConfigError, match=message):
            build(AlgorithmConfig, values, "algorithm")


def test_a_kl_of_a_task_in_the_reward_beside_parts_is_refused():
    with pytest.raises(LearnerError, match="kl_in is reward"):
        AlgorithmConfig(normalise="parts", kl_in="reward", **chart(kl_coef=0.1))
