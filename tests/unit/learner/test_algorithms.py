"""Each algorithm from rewards to loss and gradient on one step, worked by hand.

Two groups of two completions; each token's ratio of current to old probability, every old logprob -1:

    group    reward  ratios of its tokens
    A  0     1       2
    A  1     0       1, 1, 0.5
    B  0     3       1, 1
    B  1     1       1, 2
"""

import dataclasses
import doctest
import importlib
import math
import pkgutil
import typing
from pathlib import Path

import pytest
import torch

import learner.algorithms
from learner.algorithms.advantages import compute_advantages
from learner.algorithms.losses import policy_loss, token_weight
from learner.algorithms.registry import ALGORITHMS, get_algorithm
from learner.config import AlgorithmConfig
from learner.errors import LearnerError
from orchestration.cli import compose
from orchestration.settings.strict import build

CONF = Path(__file__).parents[3] / "conf" / "algorithm"
LENGTHS = [1, 3, 2, 2]
RATIOS = [2.0, 1.0, 1.0, 0.5, 1.0, 1.0, 1.0, 2.0]
LN2 = math.log(2)


def step(name, clip_low=0.2, clip_high=0.2, token_kl=None, kl_coef=0.0, **overrides):
    """(advantages of the 8 tokens, loss, its gradient by logprob) of the step above."""
    algorithm = get_algorithm(name, **overrides)
    advantages = compute_advantages(
        [[1.0, 0.0], [3.0, 1.0]],
        masked=[[False, False], [False, False]],
        tasks=["chart", "box"],
        lengths=[LENGTHS[:2], LENGTHS[2:]],
        token_kl=token_kl
        and {(n, g): torch.tensor(kl) for n, group in enumerate(token_kl) for g, kl in enumerate(group)},
        kl_coef=kl_coef,
        reward_kl=algorithm.reward_kl,
        baseline=algorithm.baseline,
        scale=algorithm.scale,
        std_floor=0.05,
        range_epsilon=1e-6,
    )
    flat = torch.cat([values for group in advantages for values in group])
    logprobs = (torch.tensor(RATIOS).log() - 1).requires_grad_()
    settings = {"num_tokens": 8, "num_sequences": 4, "max_completion_tokens": 4}
    weights = [token_weight(algorithm.aggregation, length, **settings) for length in LENGTHS for _ in range(length)]
    loss, _ = policy_loss(
        algorithm.objective,
        logprobs,
        old_logprobs=None,
        behaviour_logprobs=torch.full((8,), -1.0),
        advantages=flat.float(),
        token_weights=torch.tensor(weights),
        lengths=LENGTHS,
        entropy=torch.zeros(8),
        ref_logprobs=None,
        kl_coef=0.0,
        config=AlgorithmConfig(clip_low=clip_low, clip_high=clip_high),
    )
    [gradient] = torch.autograd.grad(loss, logprobs)
    return flat.tolist(), loss.item(), gradient.tolist()


def test_grpo():
    # A: mean 0.5, deviation 0.5; B: mean 2, deviation 1
    advantages, loss, gradient = step("grpo")

    assert advantages == [1.0, -1.0, -1.0, -1.0, 1.0, 1.0, -1.0, -1.0]
    # terms min(r A, clip(r, 0.8, 1.2) A): 1.2 | -1 -1 -0.8 | 1 1 | -1 -2
    # means by completion 1.2, -2.8 / 3, 1, -1.5; their mean
    assert loss == pytest.approx(-(1.2 - 2.8 / 3 + 1 - 1.5) / 4)
    # -r A / (4 T), and 0 where the clip binds: tokens 0 and 3
    expected = [0, 1 / 12, 1 / 12, 0, -1 / 8, -1 / 8, 1 / 8, 2 / 8]
    assert gradient == pytest.approx(expected)


def test_grpo_with_the_mean_over_tokens_that_is_configured_here():
    # the same terms with clip 0.28: 1.28 | -1 -1 -0.8 | 1 1 | -1 -2, over 8 tokens
    _, loss, gradient = step("grpo", clip_high=0.28, aggregation="token")

    assert loss == pytest.approx(-(1.28 - 2.8 + 2 - 3) / 8)
    assert gradient == pytest.approx([0, 1 / 8, 1 / 8, 0, -1 / 8, -1 / 8, 1 / 8, 2 / 8])


def test_dapo():
    advantages, loss, gradient = step("dapo", clip_high=0.28)

    assert advantages == [1.0, -1.0, -1.0, -1.0, 1.0, 1.0, -1.0, -1.0]
    # terms 1.28 | -1 -1 -0.8 | 1 1 | -1 -2, over 8 tokens
    assert loss == pytest.approx(-(1.28 - 2.8 + 2 - 3) / 8)
    assert gradient == pytest.approx([0, 1 / 8, 1 / 8, 0, -1 / 8, -1 / 8, 1 / 8, 2 / 8])


def test_dr_grpo():
    advantages, loss, gradient = step("dr_grpo")

    # rewards minus 0.5, minus 2
    assert advantages == [0.5, -0.5, -0.5, -0.5, 1.0, 1.0, -1.0, -1.0]
    # terms 0.6 | -0.5 -0.5 -0.4 | 1 1 | -1 -2, over 4 completions * 4 tokens
    assert loss == pytest.approx(-(0.6 - 1.4 + 2 - 3) / 16)
    assert gradient == pytest.approx([0, 0.5 / 16, 0.5 / 16, 0, -1 / 16, -1 / 16, 1 / 16, 2 / 16])


def test_gspo():
    advantages, loss, gradient = step("gspo")

    assert advantages == [1.0, -1.0, -1.0, -1.0, 1.0, 1.0, -1.0, -1.0]
    # s: 2, 0.5^(1/3) = 0.7937, 1, sqrt 2; terms min(2, 1.2), min(-0.7937, -0.8), 1, min(-sqrt 2, -1.2)
    assert loss == pytest.approx(-(1.2 - 0.8 + 1 - math.sqrt(2)) / 4, abs=1e-6)
    # A 0 and A 1 are clipped whole; elsewhere -s A / (4 T)
    assert gradient == pytest.approx([0, 0, 0, 0, -1 / 8, -1 / 8, math.sqrt(2) / 8, math.sqrt(2) / 8])


def test_cispo():
    advantages, loss, gradient = step("cispo", clip_low=1.0, clip_high=0.5)

    assert advantages == [1.0, -1.0, -1.0, -1.0, 1.0, 1.0, -1.0, -1.0]
    # weights min(r, 1.5): 1.5 | 1 1 0.5 | 1 1 | 1 1.5; logprobs -1, with ln 2 more or less where r is 2 or 0.5
    terms = [1.5 * (-1 + LN2), 1, 1, 0.5 * (1 + LN2), -1, -1, 1, 1.5 * (1 - LN2)]
    assert loss == pytest.approx(-sum(terms) / 8)
    # -weight * A / 8: no token is without gradient
    assert gradient == pytest.approx([-1.5 / 8, 1 / 8, 1 / 8, 0.5 / 8, -1 / 8, -1 / 8, 1 / 8, 1.5 / 8])


def test_rloo():
    advantages, loss, gradient = step("rloo")

    # with two completions, the reward minus the other's: 1 - 0 and 3 - 1
    assert advantages == [1.0, -1.0, -1.0, -1.0, 2.0, 2.0, -2.0, -2.0]
    # terms 1.2 | -1 -1 -0.8 | 2 2 | -2 -4, over 4 completions * 4 tokens
    assert loss == pytest.approx(-(1.2 - 2.8 + 4 - 6) / 16)
    assert gradient == pytest.approx([0, 1 / 16, 1 / 16, 0, -2 / 16, -2 / 16, 2 / 16, 4 / 16])


def test_rloo_with_kl_in_the_reward():
    kl = [[[1.0], [0.5, 0.0, 0.5]], [[4.0, 0.0], [0.0, 0.0]]]

    advantages, _, _ = step("rloo", kl_coef=0.5, token_kl=kl)

    # rewards 1 - 0.5, 0 - 0.5, 3 - 2, 1: A 0.5 - -0.5 = 1, B 1 - 1: a flat group
    assert advantages == [1.0, -1.0, -1.0, -1.0, 0.0, 0.0, 0.0, 0.0]


def test_reinforce_plus_plus():
    advantages, loss, _ = step("reinforce_plus_plus")

    # token returns 1 | 0 0 0 | 3 3 | 1 1: mean 9 / 8; deviations -1/8 | -9/8 three times | 15/8 twice | -1/8 twice;
    # variance (3 * 1 + 3 * 81 + 2 * 225) / 64 / 8 = 696 / 512
    std = math.sqrt(696 / 512)
    expected = [-0.125 / std, *[-1.125 / std] * 3, *[1.875 / std] * 2, *[-0.125 / std] * 2]
    assert advantages == pytest.approx(expected)
    # terms in units of 1 / std: min(2 * -0.125, ..) = -0.25 | -1.125 -1.125 -0.8 * 1.125 | 1.875 1.875 | -0.125 -0.25
    assert loss == pytest.approx(-(-0.25 - 2.25 - 0.9 + 3.75 - 0.375) / std / 8, abs=1e-6)


def test_reinforce_plus_plus_with_kl_gives_tokens_of_one_completion_different_advantages():
    kl = [[[1.0], [0.0, 0.0, 2.0]], [[0.0, 0.0], [2.0, 0.0]]]

    advantages, _, _ = step("reinforce_plus_plus", kl_coef=0.5, token_kl=kl)

    # KL to go 1 | 2 2 2 | 0 0 | 2 0, so returns 0.5 | -1 -1 -1 | 3 3 | 0 1: mean 4.5 / 8 = 0.5625
    returns = [0.5, -1.0, -1.0, -1.0, 3.0, 3.0, 0.0, 1.0]
    # squares 0.25 + 3 + 18 + 1 = 22.25; variance 22.25 / 8 - 0.5625^2
    std = math.sqrt(22.25 / 8 - 0.5625**2)
    assert advantages == pytest.approx([(value - 0.5625) / std for value in returns])


def test_reinforce_plus_plus_baseline():
    advantages, loss, _ = step("reinforce_plus_plus_baseline")

    # centred 0.5 -0.5 1 -1; mean square over completions 2.5 / 4 = 0.625
    std = math.sqrt(0.625)
    assert advantages == pytest.approx([v / std for v in (0.5, -0.5, -0.5, -0.5, 1.0, 1.0, -1.0, -1.0)])
    # terms in units of 1 / std: 0.6 | -0.5 -0.5 -0.4 | 1 1 | -1 -2, over 8 tokens
    assert loss == pytest.approx(-(0.6 - 1.4 + 2 - 3) / std / 8)


def test_every_algorithm_has_a_golden_step_and_a_configuration():
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}

    assert ALGORITHMS.keys() <= tested
    assert ALGORITHMS.keys() == {path.stem for path in CONF.glob("*.yaml")}
    assert ALGORITHMS.keys() == set(typing.get_args(typing.get_type_hints(AlgorithmConfig)["name"]))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_configuration_names_its_algorithm_and_holds_exactly_the_fields(name):
    values = compose([f"algorithm={name}"])["algorithm"]
    config = build(AlgorithmConfig, values, "algorithm")

    set_by_the_run = {"task_temperatures", "task_max_completion_tokens"}
    assert values.keys() == {field.name for field in dataclasses.fields(AlgorithmConfig)} - set_by_the_run
    assert config.name == name
    found = get_algorithm(config.name, scale=config.scale, aggregation=config.aggregation)
    assert (found.baseline, found.objective) == (ALGORITHMS[name].baseline, ALGORITHMS[name].objective)


def test_grpo_is_configured_with_dapos_clip_and_the_mean_over_tokens():
    config = build(AlgorithmConfig, compose(["algorithm=grpo"])["algorithm"], "algorithm")

    assert (config.aggregation, config.scale, config.std_floor) == ("token", "algorithm", 0.05)
    assert (config.clip_low, config.clip_high, config.kl_coef, config.old_logprobs) == (0.2, 0.28, 0.0, "behaviour")


def test_settings_override_the_papers_scale_and_aggregation():
    found = get_algorithm("grpo", scale="task", aggregation="constant")

    assert (found.scale, found.aggregation) == ("task", "constant")
    assert (get_algorithm("grpo").scale, get_algorithm("grpo").aggregation) == ("group", "sequence")


def test_an_unknown_algorithm_lists_the_known_ones_and_the_nearest():
    with pytest.raises(ValueError, match=r"'dapoo'; known: cispo, dapo, .*rloo; did you mean dapo\?"):
        get_algorithm("dapoo")


def test_a_length_limit_that_is_read_must_be_there():
    assert AlgorithmConfig(overlong_buffer_frac=0.2, max_completion_tokens=10).overlong_buffer_frac == 0.2
    with pytest.raises(LearnerError, match=r"max_completion_tokens is 0, but .* set it to rollout\.sampling\.max"):
        AlgorithmConfig(overlong_buffer_frac=0.2)


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(learner.algorithms.__path__)])
def test_docstring_examples_hold(name):
    assert doctest.testmod(importlib.import_module(f"learner.algorithms.{name}")).failed == 0
