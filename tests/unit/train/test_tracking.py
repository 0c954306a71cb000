"""What a run records: metrics apart from timings, both cut where a run resumes, read back as one."""

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestration.page.curves import curves_svg, held_out_svg
from orchestration.page.figures import colours_of
from orchestration.settings.errors import InfrastructureError
from orchestration.settings.tracking import TrackingConfig
from orchestration.storage.faults import FaultLog, Role
from orchestration.storage.files import write_json
from orchestration.storage.run_folder import RunFolder
from orchestration.train.metrics import step_metrics, step_timings
from orchestration.train.report import write_report
from orchestration.train.trackers import Trackers
from orchestration.train.tracking import RunRecord, read_held_out, read_metrics
from orchestration.workers.tickets import RecordedCompletion
from rewards.core.base import Reason, RewardResult
from tests.unit.storage.fault_limits import fault_limits
from tests.unit.train.tracked import scored, step_of


@pytest.mark.parametrize("end", ['{"step": 1, "trai', "7", "", "{}", '{"st\ufffdp": 1}'])
def test_the_page_of_a_run_leaves_out_a_line_that_a_kill_cut_short(tmp_path: Path, end: str) -> None:
    folder = RunFolder(tmp_path)
    for path in (folder.metrics, folder.timings):
        path.write_text('{"step": 0, "reward/mean": 0.5}\n' + end)
    folder.faults.write_text('{"role": "engine", "index": 0, "cause": "gone", "at": 1.0}\n' + end)
    folder.ledger.write_text('{"step": 0, "trained": [[0, "0-0", "7f"]], "replaced": [], "dropped": []}\n' + end)

    write_report(folder)

    page = folder.report.read_text()
    assert ", 1 steps" in page
    assert "1 groups trained on" in page
    assert "gone" in page


@pytest.mark.parametrize("text", ["null", '{"families": '])
def test_the_page_of_a_run_leaves_out_scores_that_are_no_scores(tmp_path: Path, text: str) -> None:
    folder = RunFolder(tmp_path)
    for name in ("before", "after"):
        folder.evaluation(name).write_text(text)

    write_report(folder)

    assert "Held-out" not in folder.report.read_text()


def test_the_page_of_a_run_that_took_no_step_is_written(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for path in (folder.metrics, folder.timings, folder.faults, folder.ledger):
        path.touch()

    write_report(folder)

    assert ", 0 steps" in folder.report.read_text()


def open_record(folder: RunFolder, first_step: int = 0, *, say: Any = lambda _: None) -> RunRecord:
    trackers = Trackers({}, TrackingConfig(), say=say)
    return RunRecord(folder, first_step=first_step, num_steps=160, trackers=trackers, say=say)


def record(folder: Path, steps: range, clock: float, said: list[str]) -> None:
    folder.mkdir(exist_ok=True)
    kept = open_record(RunFolder(folder), steps[0], say=said.append)
    with closing(kept):
        for step in steps:
            kept.log_step(**step_of(step, clock))


def test_metrics_do_not_know_the_clock_and_timings_know_nothing_else() -> None:
    slow, fast = step_of(3, clock=9.0), step_of(3, clock=0.5)
    metrics = [
        step_metrics(known["groups"], known["report"], known["sync"], known["mismatch"]) for known in (slow, fast)
    ]
    timings = [
        step_timings(known["groups"], known["report"], known["sync"], known["seconds"], counts=known["counts"])
        for known in (slow, fast)
    ]
    assert metrics[0] == metrics[1]
    assert all(timings[0][name] != timings[1][name] for name in timings[0])
    assert not metrics[0].keys() & timings[0].keys()
    assert timings[1]["rollout/tokens_per_s"] == 32.0
    assert metrics[0]["sync/num_compared_tensors"] == 3.0


def test_a_killed_and_resumed_run_leaves_the_metrics_of_an_unbroken_one(tmp_path: Path) -> None:
    said: list[str] = []
    record(tmp_path / "whole", range(4), 0.5, said)
    broken = tmp_path / "broken"
    record(broken, range(3), 9.0, said)
    for path in (RunFolder(broken).metrics, RunFolder(broken).timings):
        path.write_text(path.read_text() + '{"step": 3, "rew')
    record(broken, range(2, 4), 2.0, said)
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert (broken / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    timings = [json.loads(line) for line in RunFolder(broken).timings.read_text().splitlines()]
    assert [(line["step"], line["time/train_s"]) for line in timings] == [(0, 9.0), (1, 9.0), (2, 2.0), (3, 2.0)]


def test_the_console_shows_metrics_beside_timings(tmp_path: Path) -> None:
    said: list[str] = []
    record(tmp_path, range(1), 0.5, said)
    cells = dict(zip(said[0].split(), said[1].split(), strict=True))
    assert (cells["reward"], cells["tok/s"], cells["step_s"], cells["mismatch"]) == ("0.550", "32", "1.00", "1.0e-06")


def test_steps_are_read_back_with_metrics_and_timings_joined(tmp_path: Path) -> None:
    record(tmp_path, range(2), 0.5, [])
    folder = RunFolder(tmp_path)
    folder.timings.write_text(folder.timings.read_text() + '{"step": 2, "time/step_s": 1.0}\n')
    steps = read_metrics(folder)
    assert [step["step"] for step in steps] == [0, 1]
    assert (steps[1]["policy/loss"], steps[1]["time/step_s"]) == (0.1, 1.0)


def test_a_run_that_kept_all_in_one_file_is_still_read(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.metrics.write_text('{"step": 0, "reward/mean": 0.5, "time/step_s": 2.0}\n')
    assert read_metrics(folder) == [{"step": 0, "reward/mean": 0.5, "time/step_s": 2.0}]
    assert "<svg" in curves_svg(read_metrics(folder))


def test_held_out_scores_are_recorded_once_a_step_and_cut_where_a_run_resumes(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)

    def sit(first_step: int, *scores: tuple[int, float]) -> None:
        with closing(open_record(folder, first_step)) as kept:
            for step, sampled in scores:
                kept.log_held_out(scored(step, sampled))

    sit(0, (0, 0.1), (2, 0.2), (4, 0.3), (4, 0.4))
    assert [(r["step"], r["held_out/chart/sampled"]) for r in read_held_out(folder)] == [(0, 0.1), (2, 0.2), (4, 0.4)]
    assert read_held_out(folder)[0]["held_out/source/maps/greedy"] == 0.5

    sit(2)  # back at the checkpoint of step 2: what step 4 scored is of weights that are gone
    assert [record["step"] for record in read_held_out(folder)] == [0, 2]
    sit(0, (0, 0.6))  # no checkpoint was complete: begun again
    assert [(r["step"], r["held_out/chart/sampled"]) for r in read_held_out(folder)] == [(0, 0.6)]


def test_held_out_scores_reach_the_report(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with closing(open_record(folder)) as kept:
        for step, sampled in ((0, 0.125), (2, 0.875)):
            kept.log_held_out(scored(step, sampled))

    write_report(folder)
    page = folder.report.read_text()
    assert "held-out reward, sampled" in page
    assert "<tr><td>2</td><td>0.875 / 0.500</td>" in page
    assert "source/<wbr>maps" in page


def test_a_folder_without_steps_has_none(tmp_path: Path) -> None:
    assert read_metrics(RunFolder(tmp_path)) == []


@pytest.mark.parametrize("name", ["metrics", "timings", "ledger", "samples"])
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.jsonl").symlink_to("/dev/full")
    kept = open_record(RunFolder(tmp_path))
    with pytest.raises(InfrastructureError, match=rf"{name}.jsonl cannot be written \(No space left.*free space"):
        kept.log_step(**step_of(0, 1.0))


def test_a_full_disk_is_told_of_wherever_a_run_writes(tmp_path: Path) -> None:
    full = Path("/dev/full")
    with pytest.raises(InfrastructureError, match="/dev/full cannot be written"):
        FaultLog(fault_limits(), full).record(Role.ENGINE, 0, "died")
    (tmp_path / "data.json.partial").symlink_to(full)
    with pytest.raises(InfrastructureError, match=r"data.json cannot be written \(No space left"):
        write_json(tmp_path / "data.json", {"a": 1})


def test_a_step_without_a_publication_is_recorded_without_its_times(tmp_path: Path) -> None:
    known = step_of(0, 1.0) | {"sync": None, "mismatch": None, "seconds": {}}
    with closing(open_record(RunFolder(tmp_path))) as kept:
        kept.log_step(**known)
        assert kept.next_step == 1
    (step,) = read_metrics(RunFolder(tmp_path))
    assert (step["policy/loss"], "time/step_s" in step, "sync/mismatch" in step) == (0.0, False, False)
    assert "<svg" in curves_svg([step])


def test_the_console_has_a_column_for_every_reward_function_in_use_and_says_how_far_the_run_is(tmp_path: Path) -> None:
    said: list[str] = []
    with closing(open_record(RunFolder(tmp_path), say=said.append)) as kept:
        for step in range(2):
            kept.log_step(**step_of(step, 10.0))
        kept._say_step(2, {"reward/mean": 0.5, "reward/own/mean": 0.25, "reward/format/mean": 1.0})

    header, first, second, header_with_own, third = said
    assert "chart" in header
    assert "math" not in header
    assert "open" not in header
    assert (first.split()[0], first.split()[-1]) == ("1/160", "53m")
    assert second.split()[0] == "2/160"
    assert "own" in header_with_own
    assert third.split()[:4] == ["3/160", "0.500", "-", "0.250"]
    assert len({len(line) for line in (header, first, second)}) == 1


def test_the_page_has_a_curve_for_a_function_of_ones_own(tmp_path: Path) -> None:
    metrics = [{"step": step, "reward/mine/mean": 0.1, "reward/chart+mine/mean": 0.2} for step in range(3)]
    drawn = curves_svg(metrics)
    colours = colours_of(["mine", "chart+mine"])
    assert len({*colours.values()}) == len(colours)  # none has that of another
    assert all(colours[name] in drawn for name in ("mine", "chart+mine"))
    assert colours["math"] not in drawn
    held_out = held_out_svg([{"step": 0, "held_out/mine/sampled_task": 0.5, "held_out/mine/sampled": 0.6}])
    assert colours_of(["mine"])["mine"] in held_out


def test_recorded_groups_keep_parts_words_and_tracebacks(tmp_path: Path) -> None:
    step = step_of(0, 1.0)
    ticket = step["groups"].tickets[0]
    results = [
        RewardResult(0.5, 0.5, 1.0, {"format": 1.0, "mine": 0.5}, "4", Reason.OK, None, (("mine", "short"),)),
        RewardResult(None, None, 1.0, {"format": 1.0}, None, Reason.FUNCTION_RAISED, "mine: KeyError\n  File x", ()),
    ]
    completions = tuple(
        RecordedCompletion(text="a", result=result, num_tokens=1, truncated=False) for result in results
    )
    summary = replace(ticket.summary, completions=completions, parts=(("mine", (0.5,)),))
    groups = replace(step["groups"], tickets=(replace(ticket, summary=summary),))
    with closing(open_record(RunFolder(tmp_path))) as kept:
        kept.log_step(**{**step, "groups": groups})
    [line] = map(json.loads, RunFolder(tmp_path).samples.read_text().splitlines())
    assert line["parts"] == [{"format": 1.0, "mine": 0.5}, {"format": 1.0}]
    assert line["explanations"] == [{"mine": "short"}, {}]
    assert line["failures"] == [None, "mine: KeyError\n  File x"]
