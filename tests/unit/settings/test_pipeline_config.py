"""Settings of the pipeline that do not go together are refused with the remedy."""

import pytest

from orchestration.cli import compose
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig, settings_errors
from orchestration.settings.strict import build


def check(*overrides: str) -> None:
    config = build(ExperimentConfig, compose([*overrides, "run_dir=/tmp/run", "cache_dir=/tmp/cache"]))
    for error in settings_errors(config):
        raise error


OPEN_STEPS = ("training.max_staleness=2", "training.run_ahead=1", "training.straggler_deadline_s=0")
SCORED = ("training.keep_best=true", "training.checkpoint_every=4")
SET = "+evaluation.sets.charts={path: /data/charts, every_steps: 2}"
BEST_OF_SET = (SET, "training.checkpoint_every=4", "training.keep_best=held_out/set/charts/mean/greedy")
ADAPTIVE = "data.stream.curriculum.kind=adaptive"


@pytest.mark.parametrize(
    "overrides",
    [
        ("training.max_staleness=0", "training.run_ahead=0"),
        OPEN_STEPS,
        ("training.oversampling=2",),
        ("training.oversampling=2", "algorithm.normalise=parts"),
        (*SCORED, "evaluation.every_steps=2"),
        BEST_OF_SET,
        (SET, "training.checkpoint_every=4", "training.keep_best=held_out/set/charts/chart/sampled_task"),
        (*SCORED, "evaluation.every_steps=2", "training.keep_best=held_out/chart/greedy"),
        (ADAPTIVE,),
        ("algorithm=reinforce_plus_plus", "training.oversampling=1"),
        ("algorithm.normalise=parts", "algorithm.tasks.chart.kl_coef=0.02"),
    ],
)
def test_settings_that_go_together_are_taken(overrides: tuple[str, ...]) -> None:
    check(*overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("training.max_staleness=-1",), r"training\.max_staleness is -1; use 0 or more"),
        (
            ("training.max_staleness=1", "training.run_ahead=2"),
            r"training\.run_ahead is 2 and training\.max_staleness 1; use 0 to 1, or null for 1",
        ),
        (("training.run_ahead=-1",), r"training\.run_ahead is -1; use 0 or more, or null"),
        (("training.straggler_deadline_s=-1",), r"straggler_deadline_s is -1\.0; use 0 to 1000000000, or null"),
        (
            ("training.max_staleness=1", "training.straggler_deadline_s=5"),
            r"run_ahead=1 takes all of max_staleness=1; raise max_staleness or lower run_ahead",
        ),
        (("training.oversampling=0.5",), r"training\.oversampling is 0\.5; use 1 to 1000"),
        (
            ("training.oversampling=2", "algorithm=reinforce_plus_plus"),
            r"oversampling is 2\.0, but reinforce_plus_plus compares .*set oversampling=1",
        ),
        (
            ("algorithm.tasks.charts.weight=2",),
            r"algorithm\.tasks names charts, which no reward scores; tasks are .*chart.* \(reward\.routes\)",
        ),
        (("training.oversampling=2", ADAPTIVE), r"curriculum\.kind is adaptive.*training\.oversampling=1"),
        ((*OPEN_STEPS, ADAPTIVE), r"curriculum\.kind is adaptive.*straggler_deadline_s=null"),
        (("evaluation.every_steps=0",), r"evaluation\.every_steps is 0; use 1 or more, or null"),
        (SCORED, r"keep_best needs .*checkpoint_every=4; got enabled=True, every_steps=None"),
        ((*SCORED, "evaluation.every_steps=3"), r"divisor of training\.checkpoint_every=4; .*every_steps=3"),
        (
            (*SCORED, "evaluation.every_steps=2", "evaluation.enabled=false"),
            r"set evaluation\.enabled=true .*got enabled=False",
        ),
        (
            ("training.keep_best=held_out/set/chart/mean/greedy", *BEST_OF_SET[:2]),
            r"keep_best is 'held_out/set/chart/mean/greedy', no held-out metric of this run; did you mean "
            r"held_out/set/charts/mean/greedy\?",
        ),
        (
            ("training.keep_best=held_out/set/charts/grounded/greedy", *BEST_OF_SET[:2]),
            r"did you mean held_out/set/charts/grounding/greedy\?",
        ),
        (("training.keep_best=charts",), r"keep_best is 'charts', no held-out metric .*use true, or one of held_out/m"),
        (
            (*BEST_OF_SET, "evaluation.sets.charts.every_steps=3"),
            r"set evaluation\.enabled=true and evaluation\.sets\.charts\.every_steps to a divisor of training\."
            r"checkpoint_every=4; got enabled=True, every_steps=3",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused_with_the_remedy(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(*overrides)
