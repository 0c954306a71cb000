"""Completions without a reward, from the step to the end of a run: kept with causes, counted, said once, shown."""

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestration import job
from orchestration.settings.tracking import TrackingConfig
from orchestration.storage.run_folder import RunFolder
from orchestration.train.failures import MOST_CAUSES, failed_completions, read_failed
from orchestration.train.report import write_report
from orchestration.train.trackers import Trackers
from orchestration.train.tracking import RunRecord
from orchestration.workers.tickets import StepGroups
from tests.unit.train.run_records import ticket
from tests.unit.train.tracked import step_of

RAISED = "mine: KeyError at my.py:3: <'x'>\n  File my.py, line 3, in score\nKeyError: <'x'>"
NAN = "mine: returned nan; return a number in [0, 1]"


def step_with_failures(step: int) -> dict[str, Any]:
    """Two groups of four: three completions raised, one of them in a group that was replaced, and one gave NaN."""
    reasons = ("ok", "function_raised", "not_finite", "function_raised")
    first = ticket(0, function="mine", reasons=reasons, failures=(RAISED, NAN, RAISED.replace("x", "y")))
    second = ticket(1, function="mine", reasons=("ok", "function_raised"), failures=(RAISED,))
    groups = StepGroups(step=step, tickets=(first,), replaced=(second,))
    return step_of(step, 1.0) | {"groups": groups}


def record(folder: Path, said: list[str], steps: list[dict[str, Any]], first_step: int = 0) -> RunFolder:
    run = RunFolder(folder)
    trackers = Trackers({}, TrackingConfig(), say=said.append)
    with closing(RunRecord(run, first_step=first_step, num_steps=9, trackers=trackers, say=said.append)) as kept:
        for step in steps:
            kept.log_step(**step)
    return run


def test_they_are_kept_by_reason_with_tracebacks_and_said_once(tmp_path: Path) -> None:
    said: list[str] = []
    run = record(tmp_path, said, [step_with_failures(0), step_of(1, 1.0), step_with_failures(2)])
    lines = [json.loads(line) for line in run.failures.read_text().splitlines()]
    assert [(line["step"], line["reason"], line["num_completions"]) for line in lines] == [
        (0, "function_raised", 3),
        (0, "not_finite", 1),
        (2, "function_raised", 3),
        (2, "not_finite", 1),
    ]
    assert lines[0]["causes"] == [RAISED, RAISED.replace("x", "y")]
    assert lines[0]["sample_id"] == "sample 0"
    assert [line for line in said if "no reward" in line] == [
        "3 completions have no reward (function_raised): mine: KeyError at my.py:3: <'x'>; further ones are counted in "
        "failures.jsonl",
        f"1 completions have no reward (not_finite): {NAN}; further ones are counted in failures.jsonl",
    ]


def test_those_of_steps_that_are_taken_again_are_counted_once(tmp_path: Path) -> None:
    record(tmp_path, [], [step_with_failures(0), step_with_failures(1)])
    run = record(tmp_path, [], [step_with_failures(1)], first_step=1)  # the process was killed after step 1
    assert [one.step for one in read_failed(run.failures)] == [0, 0, 1, 1]


def test_a_run_without_any_has_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = record(tmp_path, [], [step_of(0, 1.0)])
    job._print_outcome(run)
    write_report(run)
    assert not run.failures.exists()
    assert "reward:" not in capsys.readouterr().out
    assert "Completions without a reward" not in run.report.read_text()


def test_the_end_of_a_run_counts_them_and_its_page_shows_the_last_cause(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = record(tmp_path, [], [step_with_failures(0), step_with_failures(1)])
    job._print_outcome(run)
    write_report(run)
    said = f"8 completions have no reward: mine 6 function_raised, 2 not_finite; {run.failures}"
    assert said in capsys.readouterr().out.splitlines()
    page = run.report.read_text()
    assert '<td>mine</td><td class="text">function_raised</td><td>6</td>' in page
    assert "<code>mine: KeyError at my.py:3: &lt;&#39;y&#39;&gt;\n  File my.py, line 3, in score" in page


def test_many_different_causes_are_counted_and_a_few_are_kept() -> None:
    causes = tuple(f"mine: KeyError {number}" for number in range(30))
    one = ticket(0, function="mine", reasons=("function_raised",) * 30, failures=causes)
    [found] = failed_completions(replace(StepGroups(step=0, tickets=()), tickets=(one,)))
    assert (found.num_completions, found.causes) == (30, causes[:MOST_CAUSES])
