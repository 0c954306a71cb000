"""What cannot work is refused in one clear line, before Ray or a model is touched."""

from pathlib import Path

import pytest

from tests.integration.driver import Driver


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rollout.engine=2"], "rollout.engine"),
        (["rollout.enginess=2"], "rollout.enginess is not a setting; did you mean rollout.engines?"),
        (["lerner.num_ranks=2"], "lerner is not a setting; did you mean learner?"),
        (["learner.num_ranks=3"], "training.groups_per_step=32 does not divide by learner.num_ranks=3; use 30 or 33"),
        (["data=parquet", "data.train=/absent.parquet", "data.held_out=/absent.parquet"], "data.train=/absent.parquet"),
        (["run_dir=/proc/nowhere"], "run_dir=/proc/nowhere cannot be written"),
        (["rollout.sampling.group_size=1"], "rollout.sampling.group_size is 1"),
        (["model=qwen2_5_vl"], "model.path"),
        (["rollout.engine.dtype=float16"], "rollout.engine.dtype is 'float16'; allowed: float32, bfloat16"),
        (["training.max_staleness=-1"], "training.max_staleness is -1"),
    ],
)
def test_mistake_is_one_clear_line(tmp_path: Path, overrides: list[str], message: str) -> None:
    driver = Driver(tmp_path, "train", f"run_dir={tmp_path / 'run'}", *overrides)
    assert driver.finish() == 2, driver.output
    assert message in driver.output
    assert len(driver.output.strip().splitlines()) == 1, driver.output


def test_unknown_verb_names_the_nearest(tmp_path: Path) -> None:
    driver = Driver(tmp_path, "trian")
    assert driver.finish() == 2
    assert "did you mean train?" in driver.output
