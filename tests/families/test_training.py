"""The main job with a tiny warm-started model of each family: 20 GRPO steps on the same questions; the reward rises."""

import json
from pathlib import Path
from statistics import mean

import pytest

from tests.families.conftest import CASES
from tests.integration.conftest import _end_commands  # noqa: F401
from tests.integration.driver import Driver

MODELS = Path(__file__).parents[2] / "conf" / "model"
NUM_STEPS, NUM_COMPARED = 20, 5
LEAST_RISE = 0.04
"""Of the mean reward, which is between 0 and 1, from the first steps to the last: two standard errors of the difference
between two means of 640 completions. Measured are 0.08 and more, see learner/README.md."""
NUM_ROWS = 16
"""Questions: every step asks all of them, so that its reward does not depend on which were drawn."""


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if (MODELS / f"tiny_{name}.yaml").is_file()])
def test_the_reward_rises_over_20_steps(name, tmp_path, differences):
    run_dir = tmp_path / "run"
    cache, steps = f"cache_dir={tmp_path / 'cache'}", f"training.num_steps={NUM_STEPS}"
    quick = ("train", "experiment=cpu_quick", f"model=tiny_{name}", f"training.groups_per_step={NUM_ROWS}")
    rows = [f"data.recipe.sources.{name}.options.num_rows={NUM_ROWS}" for name in ("demo", "demo_held_out")]
    driver = Driver(tmp_path, *quick, *rows, f"run_dir={run_dir}", cache, steps)

    assert driver.finish(timeout_s=1500.0) == 0, driver.output

    rewards = [json.loads(line)["reward/mean"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert len(rewards) == NUM_STEPS
    first, last = mean(rewards[:NUM_COMPARED]), mean(rewards[-NUM_COMPARED:])
    differences.state("reward over 20 steps", name, f"{first:.2f} to {last:.2f}")
    assert last - first > LEAST_RISE
