"""The main job with a tiny warm-started model of each family: 20 GRPO steps, and the reward rises."""

import json
from statistics import mean

import pytest

from tests.families.conftest import CASES
from tests.integration.conftest import _end_commands  # noqa: F401
from tests.integration.driver import Driver

NUM_STEPS, NUM_COMPARED = 20, 5
LEAST_RISE = 0.03
"""Between the first and the last steps; rewards of all tasks together are between 0 and 1."""


@pytest.mark.slow
@pytest.mark.parametrize("name", [case.name for case in CASES.values() if case.demo_model is not None])
def test_the_reward_rises_over_20_steps(name, tmp_path, differences):
    run_dir = tmp_path / "run"
    model = f"model={CASES[name].demo_model}"
    driver = Driver(
        tmp_path, "train", "experiment=cpu_quick", model, f"run_dir={run_dir}", f"cache_dir={tmp_path / 'cache'}",
        f"training.num_steps={NUM_STEPS}",
    )  # fmt: skip

    assert driver.finish(timeout_s=1500.0) == 0, driver.output

    rewards = [json.loads(line)["reward/mean"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert len(rewards) == NUM_STEPS
    first, last = mean(rewards[:NUM_COMPARED]), mean(rewards[-NUM_COMPARED:])
    differences.state("reward over 20 steps", name, f"{first:.2f} to {last:.2f}")
    assert last - first > LEAST_RISE
