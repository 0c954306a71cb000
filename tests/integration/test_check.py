"""`mixed-r1 check` as a user runs it: a table, check.json, an exit code, and no process left."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.integration.driver import Driver

LAYOUTS = {
    "default": (),
    "two_by_two": ("rollout.engines=2", "learner.num_ranks=2"),
    "colocated": ("cluster.layout=colocated", "training.max_staleness=0", "rollout.engines=2", "learner.num_ranks=2"),
    "internvl": ("model=tiny_internvl",),
}


def check(folder: Path, cache: Path, *more: str) -> Driver:
    return Driver(folder, "check", "experiment=cpu_smoke", f"run_dir={folder / 'run'}", f"cache_dir={cache}", *more)


def rows_of(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "run" / "check" / "check.json").read_text())
    return {row["what"]: row for row in found["rows"]}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_healthy_run_is_all_right_and_leaves_nothing_behind(name: str, tmp_path: Path, cache: Path) -> None:
    driver = check(tmp_path, cache, *LAYOUTS[name])
    assert driver.finish() == 0, driver.output
    assert driver.leftovers() == []
    rows = rows_of(tmp_path)
    assert {what: row for what, row in rows.items() if row["verdict"] == "fault"} == {}
    assert {"versions", "run_dir", "weights after a step", "logprobs, two pictures", "step's memory"} <= set(rows)
    assert ("turns" in rows) == (name == "colocated")
    assert f"{len(rows)} all right, 0 not conclusive, 0 faults" in driver.output
    left = {path.name for path in (tmp_path / "run" / "check").iterdir()}
    assert left <= {".lock", "check.json", "logs", "turns.jsonl", "faults.jsonl"}


@pytest.mark.slow
def test_a_model_folder_without_weights_is_checked_with_random_ones(tmp_path: Path, cache: Path) -> None:
    from tests.integration.tiny import save_tiny_model

    model = tmp_path / "model"
    save_tiny_model(model)
    (model / "model.safetensors").unlink()
    refused = check(tmp_path, cache, f"model.path={model}")
    assert refused.finish() == 2
    assert not (tmp_path / "run").exists()

    driver = check(tmp_path, cache, f"model.path={model}", "check.random_weights=true")
    assert driver.finish() == 0, driver.output
    assert driver.leftovers() == []


@pytest.mark.slow
def test_boxes_read_in_another_frame_end_with_code_1_and_the_setting(tmp_path: Path, cache: Path) -> None:
    from tests.integration.tiny import save_tiny_model

    model = tmp_path / "model"
    save_tiny_model(model)
    driver = check(tmp_path, cache, f"model.path={model}", "model.coord_mode=norm1000")
    assert driver.finish() == 1, driver.output
    [(what, row)] = [(what, row) for what, row in rows_of(tmp_path).items() if row["verdict"] == "fault"]
    assert (what, row["remedy"]) == ("box frame", "set model.coord_mode=pixel_resized")
    assert driver.leftovers() == []


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path, cache: Path) -> None:
    driver = check(tmp_path, cache)
    driver.poll(lambda: "first weights" in driver.output, 200.0)
    driver.send(signal.SIGINT)
    assert driver.finish() == 130, driver.output
    assert driver.leftovers() == []
    assert "Traceback" not in driver.output


def test_a_model_that_cannot_be_trained_is_refused_before_anything_starts(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "model").mkdir()
    driver = check(tmp_path, cache, f"model.path={tmp_path / 'model'}")
    assert driver.finish() == 2
    assert "holds no config.json" in driver.output
    assert not (tmp_path / "run").exists()
