"""A run whose reward function fails in four ways while it trains, and whose tracker fails at every call."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.integration.driver import Driver

FAULTY = """
import fcntl
import math
import time
from pathlib import Path


def score(request, run):
    folder = Path(run)
    if not (folder / "metrics.jsonl").exists():
        return 0.5  # a reference, tried before the run begins
    with (folder / "calls.txt").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        number = len(file.readlines()) + 1
        once = {13: "function_timeout", 17: "not_finite", 23: "out_of_range"}
        what = "function_raised" if number % 10 == 0 else once.get(number, "value")
        file.write(what + "\\n")
    if what == "function_raised":
        raise KeyError(f"row {number}")
    while what == "function_timeout":
        time.sleep(1)
    return {"not_finite": math.nan, "out_of_range": 7}.get(what, len(request.response) % 7 / 7)
"""
RAISING = """
from orchestration.train.trackers import Tracker


def refuse(self, *given):
    raise RuntimeError("no room")


METHODS = ("log_metrics", "log_held_out", "log_samples", "rewind", "log_outcome", "close")
Raising = type("Raising", (Tracker,), {"__init__": lambda self, run: None, **dict.fromkeys(METHODS, refuse)})
"""


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_what_fails_in_a_reward_is_masked_counted_and_told_and_the_run_ends_well(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY)
    (tmp_path / "raising.py").write_text(RAISING)
    run = tmp_path / "run"
    routes = (f"reward.routes.{task}=mine" for task in ("match_yesno", "match_mcq", "chart", "iou", "open"))
    driver = Driver(
        tmp_path,
        *("train", "experiment=cpu_smoke", f"run_dir={run}", f"cache_dir={cache}", "training.max_staleness=0"),
        *("training.max_failed_frac=0.5", "evaluation.enabled=false", *routes),
        f"reward.functions.mine={{path: faulty.py:score, parameters: {{run: {run}}}, timeout_s: 3}}",
        "trackers=['raising.py:Raising']",
    )
    assert driver.finish() == 0, driver.output

    calls = Counter((run / "calls.txt").read_text().splitlines())
    assert calls.total() == 48
    failed = calls - Counter(value=48)
    assert failed == {"function_raised": 4, "function_timeout": 1, "not_finite": 1, "out_of_range": 1}
    kept = lines_of(run / "failures.jsonl")
    assert sum((Counter({line["reason"]: line["num_completions"]}) for line in kept), Counter()) == failed
    causes = {line["reason"]: line["causes"][0] for line in kept}
    assert "KeyError: 'row " in causes["function_raised"].splitlines()[-1]
    assert "line 22 in score" in causes["function_timeout"]
    metrics = lines_of(run / "metrics.jsonl")
    shares = {reason: sum(16 * step.get(f"reason/mine/{reason}", 0.0) for step in metrics) for reason in failed}
    assert shares == pytest.approx(failed)
    assert sum(16 * step["reward/failed_frac"] for step in metrics) == pytest.approx(7)
    counts = "mine 4 function_raised, 1 function_timeout, 1 not_finite, 1 out_of_range"
    assert f"7 completions have no reward: {counts}; {run / 'failures.jsonl'}" in driver.output
    assert "Completions without a reward" in (run / "report.html").read_text()
    assert "raising.py:Raising: " in driver.output
    assert "calls failed, 0 records were dropped" in driver.output
    assert driver.leftovers() == []
