"""An advantage function and an objective of the user's own: the example of the README, and what is refused."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from learner_scenarios import start_trainer, step_groups, train, weights_of
from tiny_learner import make_group

from learner.algorithms.own import ObjectiveTokens, RewardGroup, load_advantage, load_objective
from learner.algorithms.registry import algorithm_of
from learner.config import AlgorithmConfig
from learner.errors import LearnerError, NonFiniteLossError
from orchestration.cli import compose
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import build_settings
from orchestration.settings.own_code import check_own_code
from orchestration.settings.strict import build

README = Path(__file__).parents[3] / "learner" / "README.md"


@pytest.fixture
def write(tmp_path):
    """Write a file of the user's; returns the setting that names a function of it."""

    def write_one(code, name="f"):
        path = tmp_path / f"own_{len(list(tmp_path.iterdir()))}.py"
        path.write_text(code)
        return f"{path}:{name}"

    return write_one


@pytest.fixture
def start(model_path):
    """Start trainers; each ends before the next begins, because a process has one process group."""
    trainers = []

    def start_one(**changes):
        while trainers:
            trainers.pop().close()
        trainers.append(start_trainer(0, 1, 0, model_path, **changes))
        return trainers[0]

    yield start_one
    while trainers:
        trainers.pop().close()


def example():
    [code] = re.findall(r"`my_algorithm\.py`:\n\n```python\n(.*?)```", README.read_text(), re.DOTALL)
    return code


def group_of(rewards, **changes):
    return RewardGroup(
        **{
            "group_id": "g",
            "task": "chart",
            "rewards": torch.tensor(rewards, dtype=torch.float64),
            "lengths": torch.ones(len(rewards), dtype=torch.int64),
            "parts": {},
            "weights": {},
            **changes,
        }
    )


def tokens_of(ratios, advantages, **changes):
    old = torch.full((len(ratios),), -1.0)
    settings = {
        "logprobs": (old + torch.tensor(ratios).log()).requires_grad_(),
        "old_logprobs": old,
        "behaviour_logprobs": old,
        "ref_logprobs": None,
        "entropy": torch.zeros(len(ratios)),
        "advantages": torch.tensor(advantages),
        "lengths": (len(ratios),),
        "clip_low": 0.2,
        "clip_high": 0.2,
    }
    return ObjectiveTokens(**{**settings, **changes})


def test_the_example_of_the_readme_trains(start, write):
    advantage, objective = write(example(), "advantage"), write(example(), "objective")
    # the lower median of 0, 1, 3 is 1, the range 3; a flat group is 0 over the least range
    [found, flat] = load_advantage(advantage)([group_of([0.0, 1.0, 3.0]), group_of([2.0, 2.0])])
    assert found.tolist() == pytest.approx([-1 / 3, 0.0, 2 / 3])
    assert flat.tolist() == [0.0, 0.0]
    # 1 / 0.4 * (1.2 - 1)^2 - 1.2 = 0.1 - 1.2
    loss = load_objective(objective, has_reference=False)(tokens_of([1.2], [1.0]))
    assert loss.tolist() == pytest.approx([-1.1])

    trainer = start(algorithm={"advantage": advantage, "objective": objective})
    before = weights_of(trainer)
    metrics = trainer.train_step(step_groups(0), step=0).metrics

    assert any(not np.array_equal(before[name], after) for name, after in weights_of(trainer).items())
    assert metrics["learner/trained_sequence_frac"] == pytest.approx(23 / 24)  # all but the masked one
    assert metrics["policy/clip_frac"] == 0.0
    assert np.isfinite(list(metrics.values())).all()


def test_grpo_written_as_own_code_is_grpo(start, write):
    """The same weights to the bit: what surrounds the two functions is what surrounds those of the registry."""
    code = """
import math
import torch

def advantage(groups):
    found = []
    for group in groups:
        values = group.rewards
        centred = torch.zeros_like(values)
        if values.max() - values.min() >= 1e-6:
            centred = values - math.fsum(values.tolist()) / len(values)
            centred = centred / math.sqrt(math.fsum(centred.square().tolist()) / len(values))
        found.append(centred)
    return found

def objective(tokens):
    ratio = torch.exp(tokens.logprobs - tokens.old_logprobs)
    bounded = ratio.clamp(1.0 - tokens.clip_low, 1.0 + tokens.clip_high)
    return -torch.minimum(ratio * tokens.advantages, bounded * tokens.advantages)
"""
    # With KL in the loss no completion is left out, with own code or without.
    settings = {"kl_coef": 0.05, "name": "grpo"}
    trainer = start(algorithm=settings)
    train(trainer, 0, 1, 0, 2)
    registry = weights_of(trainer)

    trainer = start(
        algorithm={**settings, "advantage": write(code, "advantage"), "objective": write(code, "objective")}
    )
    train(trainer, 0, 1, 0, 2)

    for name, weights in weights_of(trainer).items():
        np.testing.assert_array_equal(weights, registry[name], err_msg=name)


def test_an_advantage_function_sees_unmasked_completions_and_parts_and_masked_ones_get_zero(start, write):
    code = """
SEEN = []

def f(groups):
    SEEN.append(groups)
    return [group.parts["format"] * group.weights["format"] for group in groups]
"""
    setting = write(code)
    sequences = make_group("g", lengths=(5, 3, 2), masked=(False, True, False)).sequences
    parts = ((1.0, 0.5), (), (0.0, 0.25))
    group = replace(
        make_group("g"),
        sequences=tuple(replace(s, parts=own) for s, own in zip(sequences, parts, strict=True)),
        parts=(("task", 1.0), ("format", 2.0)),
    )
    all_masked = make_group("out", lengths=(2, 2), masked=(True, True))

    trainer = start(algorithm={"advantage": setting})
    metrics = trainer.train_step([group, all_masked], step=0).metrics

    [[seen]] = load_advantage(setting).function.__globals__["SEEN"]
    assert (seen.group_id, seen.task, seen.lengths.tolist()) == ("g", "match_text", [5, 2])
    assert seen.rewards.dtype == torch.float64
    assert {name: values.tolist() for name, values in seen.parts.items()} == {"task": [1.0, 0.0], "format": [0.5, 0.25]}
    assert metrics["learner/num_trained_tokens"] == 5 + 2


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return groups[0].rewards", r"returned a float64 tensor of shape \[2\]; return a list of one tensor for each"),
        ("return []", r"returned list of 0; return a list of one tensor for each of the 1 groups"),
        (
            "return [g.rewards[:1] for g in groups]",
            r"group g, returned a float64 tensor of shape \[1\]; .* shape \[2\]",
        ),
        ("return [g.rewards.float() for g in groups]", r"returned a float32 tensor of shape \[2\]; return a float64"),
        (
            "return [g.rewards / 0 for g in groups]",
            r"group g, returned \[inf, nan\] for rewards \[1\.0, 0\.0\]; return",
        ),
        ("return [g.rewards * 1e300 for g in groups]", r"returned \[1e\+300, 0\.0\] for rewards"),
        ("import statistics; return statistics.mean([])", r"raised StatisticsError at .*own_0\.py:2: mean requires"),
        ("return [g.reward for g in groups]", r"raised AttributeError at .*own_0\.py:2: 'RewardGroup' object has no"),
    ],
)
def test_what_is_no_advantage_is_refused_by_name(body, message, write):
    setting = write(f"def f(groups):\n    {body}\n")

    with pytest.raises(LearnerError, match=rf"^algorithm\.advantage={re.escape(setting)}.*{message}"):
        load_advantage(setting)([group_of([1.0, 0.0])])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "return tokens.logprobs.sum()",
            r"returned a float32 tensor of shape \[\]; return a float32 tensor of shape \[3",
        ),
        ("return (tokens.logprobs * tokens.advantages).tolist()", r"returned list of 3; return a float32 tensor"),
        ("return tokens.logprobs.double()", r"returned a float64 tensor of shape \[3\]; return a float32"),
        ("return tokens.advantages", r"returned a loss without a gradient, so nothing would be learned"),
        ("return tokens.logprobs / 0", r"returned \[-inf, -inf, -inf\] for three ordinary tokens"),
        ("return tokens.logprobs - tokens.ref_logprobs", r"raised TypeError at .*own_0\.py:2"),
    ],
)
def test_what_is_no_objective_is_refused_before_the_first_rollout(body, message, write):
    setting = write(f"def f(tokens):\n    {body}\n")

    with pytest.raises(LearnerError, match=rf"^algorithm\.objective={re.escape(setting)} .*{message}"):
        algorithm_of(AlgorithmConfig(objective=setting))


def test_with_a_kl_term_an_objective_has_the_logprobs_of_the_reference(write):
    setting = write("def f(tokens):\n    return tokens.logprobs - tokens.ref_logprobs\n")

    assert algorithm_of(AlgorithmConfig(objective=setting, kl_coef=0.1)).objective.setting.endswith(setting)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("f = 3", r"is int; name a function of one argument: def f\(groups\)"),
        ("def f(a, b): ...", r"does not take one argument \(missing a required argument: 'b'\); write def f\(groups\)"),
        ("def g(groups): ...", r"has no f"),
        ("import nowhere", r"ModuleNotFoundError at"),
    ],
)
def test_what_is_no_function_of_one_argument_is_refused(code, message, write):
    with pytest.raises(LearnerError, match=rf"algorithm\.advantage=.*{message}"):
        algorithm_of(AlgorithmConfig(advantage=write(code)))


def test_an_objective_that_fails_in_a_step_moves_no_weight(start, write):
    body = "if len(tokens.lengths) > 2 and tokens.lengths[0] == 30: raise RuntimeError('too long')\n"
    code = f"import torch\ndef f(tokens):\n    {body}    return -tokens.advantages * tokens.logprobs\n"
    setting = write(code)
    trainer = start(algorithm={"objective": setting})
    before = weights_of(trainer)

    group = make_group("long", lengths=(30, 3, 2))
    with pytest.raises(LearnerError, match=rf"objective={re.escape(setting)} raised RuntimeError at .*:3: too long"):
        trainer.train_step([group], step=0)

    for name, weights in weights_of(trainer).items():
        np.testing.assert_array_equal(weights, before[name], err_msg=name)
    assert trainer.train_step([make_group("short")], step=1).weight_version == 1


def test_a_loss_of_own_code_that_is_not_finite_names_it_and_moves_no_weight(start, write):
    scale = "float('nan') if tokens.lengths[0] == 6 else 1.0"
    setting = write(f"def f(tokens):\n    return tokens.logprobs * ({scale})\n")
    trainer = start(algorithm={"objective": setting})

    with pytest.raises(NonFiniteLossError, match=rf"loss nan, gradient norm nan, with algorithm\.objective={setting}"):
        trainer.train_step([make_group("g", lengths=(6, 2))], step=0)


def test_scale_and_parts_beside_an_advantage_function_are_refused():
    with pytest.raises(LearnerError, match=r"reads neither algorithm\.scale=group nor normalise=total; set scale=alg"):
        AlgorithmConfig(advantage="a.py:f", scale="group")
    with pytest.raises(LearnerError, match=r"nor normalise=parts"):
        AlgorithmConfig(advantage="a.py:f", normalise="parts")


def test_settings_from_the_command_line_name_own_code(write):
    setting = write("def f(groups): ...\n")

    config = build(AlgorithmConfig, compose([f"algorithm.advantage={setting}"])["algorithm"], "algorithm")

    assert (config.advantage, config.objective, config.normalise, config.tasks) == (setting, None, "total", {})


@pytest.mark.parametrize("key", ["algorithm.advantage", "algorithm.objective"])
def test_a_name_that_is_not_there_is_refused_before_anything_starts(key, write):
    setting = write("def advantage(groups): ...\n", "advantag")
    config = build_settings(compose([f"{key}={setting}"]))

    with pytest.raises(
        ConfigError, match=rf"{re.escape(key)}={re.escape(setting)}: .* has no advantag; did you mean adv"
    ):
        check_own_code(config)


def test_kl_in_the_reward_is_taken_from_the_rewards_of_an_own_function(start, write):
    code = "SEEN = []\n\ndef f(groups):\n    SEEN.extend(groups)\n    return [g.rewards for g in groups]\n"
    setting = write(code)
    trainer = start(algorithm={"advantage": setting, "kl_coef": 10.0, "kl_in": "reward", "kl_estimator": "k2"})

    trainer.train_step([make_group("g", lengths=(3, 4), rewards=(1.0, 1.0))], step=0)

    [seen] = load_advantage(setting).function.__globals__["SEEN"]
    assert (seen.rewards < 1.0).all()  # the behaviour of the test is not the model, so its KL to it is above 0
