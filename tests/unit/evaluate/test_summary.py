"""Summaries, comparisons and their tables, with the arithmetic beside them."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from orchestration.evaluate.benchmarks import PRESETS, apply_preset
from orchestration.evaluate.publish import WIDTH, comparison_table, preset_table, summary_table
from orchestration.evaluate.statistics import Resampling
from orchestration.evaluate.store import write_json
from orchestration.evaluate.summary import SummarySettings, compare, summarise
from orchestration.settings.errors import DataError
from orchestration.workers.answers import EvaluatedSample, row_metrics
from tests.unit.evaluate.builders import completion, sample

FEW = SummarySettings(pass_ks=(1, 2, 4), resampling=Resampling(num_resamples=500))


def four(*values: float | None) -> tuple:
    return tuple(completion(v, reason="ok" if v is not None else "grader_failed") for v in values)


ROWS = [
    sample("a", 1.0, sampled=four(1.0, 0.0, 0.0, 0.0)),
    sample("b", 0.0, source="unit/b", sampled=four(1.0, 1.0, 0.0, 0.0)),
    sample("c", 0.6, task="iou", answer="[0, 0, 9, 9]", sampled=four(0.5, 0.4, 0.6, None)),
    sample("d", 0.8, task="open", sampled=four(0.8, 0.6, 1.0, 0.8)),
    sample("e", greedy=None, failure="prompt too long"),
]


def test_a_row_has_means_and_pass_at_k_of_its_completions() -> None:
    metrics = row_metrics(ROWS[0], (1, 2, 4))

    assert metrics["greedy/task_reward"] == 1.0
    assert metrics["sampled/task_reward"] == 0.25
    assert metrics["sampled/reward"] == pytest.approx((1.0 + 3 * 0.1) / 4)
    # one pass of four: 1 - 3/4; 1 - C(3, 2) / C(4, 2) = 1 - 3/6; certain.
    assert [metrics[f"pass@{k}"] for k in (1, 2, 4)] == pytest.approx([0.25, 0.5, 1.0])


def test_a_box_passes_from_half_and_pass_at_more_than_graded_is_left_out() -> None:
    metrics = row_metrics(ROWS[2], (1, 2, 4))

    assert metrics["sampled/task_reward"] == pytest.approx(0.5)
    # 0.5 and 0.6 of three graded pass: 2/3, and with two draws 1 - C(1, 2) / C(3, 2) = 1.
    assert (metrics["pass@1"], metrics["pass@2"]) == (pytest.approx(2 / 3), 1.0)
    assert "pass@4" not in metrics


def test_open_text_passes_nothing_and_a_failed_row_has_no_metric() -> None:
    assert not any(name.startswith("pass@") for name in row_metrics(ROWS[3], (1,)))
    assert row_metrics(ROWS[4], (1,)) == {}


def test_a_summary_counts_failed_rows_apart() -> None:
    summary = summarise(ROWS, FEW)

    assert (summary.overall.num_samples, summary.overall.num_failed) == (5, 1)
    assert summary.failures == {"prompt too long": 1}
    greedy = summary.overall.metrics["greedy/task_reward"]
    assert (greedy.value, greedy.num_samples) == (pytest.approx((1.0 + 0.0 + 0.6 + 0.8) / 4), 4)
    assert summary.by_task["chart"].num_failed == 1
    assert summary.by_source["unit/b"].metrics["pass@2"].value == pytest.approx(1 - 1 / 6)  # 1 - C(2,2) / C(4,2)
    assert set(summary.by_function) == {"chart", "grounding", "open_ended"}
    assert summary.reasons == {"grader_failed": 1, "ok": 19}


def test_what_judges_cost_is_summed_over_all_rows_and_printed() -> None:
    rows = [
        sample("a", counts={"judge/wise/num_requests": 1200.0, "judge/wise/num_prompt_tokens": 50.0}),
        sample("b", greedy=None, failure="late", counts={"judge/wise/num_requests": 34.0, "judge/old/num_votes": 2.0}),
    ]
    summary = summarise(rows, FEW)
    assert summary.counts == {
        "judge/old/num_votes": 2.0, "judge/wise/num_prompt_tokens": 50.0, "judge/wise/num_requests": 1234.0,
    }  # fmt: skip
    assert summary_table(summary).splitlines()[-2:] == [
        "judge old: 0 requests, 0 prompt and 0 completion tokens; of 2 votes 0 were known and 0 failed",
        "judge wise: 1,234 requests, 50 prompt and 0 completion tokens; of 0 votes 0 were known and 0 failed",
    ]
    assert "judge" not in summary_table(summarise(ROWS, FEW))


def test_the_macro_mean_gives_every_task_one_vote() -> None:
    # chart (1 + 0) / 2, iou 0.6, open 0.8
    assert summarise(ROWS, FEW).macro["greedy/task_reward"].value == pytest.approx((0.5 + 0.6 + 0.8) / 3)


def test_every_number_of_a_summary_is_written_with_its_interval(tmp_path: Path) -> None:
    write_json(tmp_path / "summary.json", summarise(ROWS, FEW))

    values = json.loads((tmp_path / "summary.json").read_text())
    assert list(values) == ["overall", "macro", "by_task", "by_source", "by_function", "reasons", "failures", "counts"]
    for block in (values["overall"], *values["by_task"].values(), *values["by_source"].values()):
        assert list(block) == ["num_samples", "num_failed", "metrics"]
        for estimate in block["metrics"].values():
            low, high = estimate["interval"]
            assert low - 1e-12 <= estimate["value"] <= high + 1e-12


def test_a_summary_of_nothing_is_empty() -> None:
    summary = summarise([])

    assert (summary.overall.num_samples, summary.overall.metrics, summary.macro) == (0, {}, {})


def test_questions_about_one_image_widen_the_interval() -> None:
    rows = [sample(f"{i}", float(i // 10 % 2), metadata={"image": f"{i // 10}"}) for i in range(100)]

    tied = summarise(rows, SummarySettings(cluster_key="image")).overall.metrics["greedy/task_reward"]
    free = summarise(rows).overall.metrics["greedy/task_reward"]

    assert tied.value == free.value
    assert tied.high - tied.low > 2 * (free.high - free.low)


def changed(row: EvaluatedSample, value: float) -> EvaluatedSample:
    return sample(row.sample_id, value, task=row.task, source=row.source, answer=row.answer)


def test_a_comparison_pairs_rows_by_id_whatever_their_order() -> None:
    before = ROWS[:4]
    after = [changed(row, value) for row, value in zip(before, (1.0, 1.0, 0.6, 0.9), strict=True)][::-1]

    greedy = compare(before, after, settings=FEW, metrics=("greedy/task_reward",))[0]

    # differences 0, 1, 0, 0.1
    assert greedy.overall.difference.value == pytest.approx(1.1 / 4)
    assert greedy.overall.p_value == 0.5  # 1 and 0.1: the same side in 2 of 4 patterns
    assert greedy.by_task["chart"].difference.value == 0.5
    assert greedy.by_task["chart"].p_value == greedy.by_task["chart"].adjusted_p_value == 1.0
    assert set(greedy.by_function) == {"chart", "grounding", "open_ended"}


def test_a_metric_that_one_side_lacks_is_left_out() -> None:
    after = [changed(row, 1.0) for row in ROWS[:4]]

    assert [found.metric for found in compare(ROWS[:4], after, settings=FEW)] == ["greedy/task_reward"]


def test_holm_is_applied_within_a_table() -> None:
    names = [f"{i}" for i in range(20)]
    before = [sample(name, 0.0, source="s/1" if int(name) < 10 else "s/2") for name in names]
    after = [sample(name, 1.0, source="s/1" if int(name) < 10 else "s/2") for name in names]

    found = compare(before, after, settings=FEW)[0]

    assert found.by_source["s/1"].p_value == 2 / 2**10
    assert [row.adjusted_p_value for row in found.by_source.values()] == [2 * 2 / 2**10] * 2
    assert found.overall.adjusted_p_value is None


def test_a_row_that_failed_on_one_side_is_refused_unless_allowed() -> None:
    after = [sample("a", 1.0), sample("b", source="unit/b", greedy=None, failure="engine died")]

    with pytest.raises(DataError, match="before only"):
        compare(ROWS[:2], after, settings=FEW)
    found = compare(ROWS[:2], after, settings=FEW, allow_unmatched=True)[0]

    assert (found.overall.num_pairs, found.overall.num_only_before, list(found.by_source)) == (1, 1, ["unit/a"])


def test_other_questions_under_the_same_ids_are_refused() -> None:
    with pytest.raises(DataError, match="sample a has another question or reference"):
        compare([sample("a")], [sample("a", answer="5")])


def test_an_id_that_occurs_twice_is_refused() -> None:
    with pytest.raises(DataError, match="the evaluation after has a sample id twice"):
        compare([sample("a")], [sample("a"), sample("a")])


def test_tables_are_aligned_and_fit_the_terminal() -> None:
    rows = [*ROWS, sample("z", source="a-source/with-a-name-that-is-much-longer-than-its-column")]
    after = [changed(row, 0.5) for row in rows if row.failure is None]
    before = [row for row in rows if row.failure is None]
    tables = [
        summary_table(summarise(rows, FEW)),
        preset_table(apply_preset(PRESETS["chartqa"], rows)),
        comparison_table(compare(before, after, settings=FEW)[0]),
    ]

    for table in tables:
        assert max(map(len, table.splitlines())) <= WIDTH
    assert "a-source/with-a-name-that-is..." in tables[0]
    assert "a-source/with-a-name-that-is..." in tables[2]
    starts = [line.index("[") for line in tables[1].splitlines() if line.startswith("  ")]
    assert all(left == right for left, right in pairwise(starts))


def test_the_summary_table_names_the_cause_of_failures() -> None:
    table = summary_table(summarise(ROWS, FEW))

    assert "failed 1: prompt too long" in table
    assert "0.600 [" in table
    assert "mean over tasks" in table


def test_a_task_or_source_with_an_empty_name_is_shown() -> None:
    rows = [sample("a", task="", source="", function="chart")]

    table = summary_table(summarise(rows, FEW)).splitlines()
    changes = comparison_table(compare(rows, rows, settings=FEW)[0]).splitlines()

    assert [line.split()[:2] for line in table if line.startswith("  ''")] == [["''", "1"]] * 2
    assert sum(line.startswith("  ''") for line in changes) == 2
