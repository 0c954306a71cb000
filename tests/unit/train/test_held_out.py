"""Held-out scores of a run: which samples, which seeds, which mean and which error."""

import asyncio
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestration.settings.composition import compose
from orchestration.settings.experiment import build_settings
from orchestration.storage.run_folder import RunFolder, read_before_after
from orchestration.train.held_out import HeldOut, before_after_table, choose_samples, evaluate, scores_table
from orchestration.train.report import write_report
from orchestration.workers.collect import EvaluationSampling, open_rows
from orchestration.workers.tickets import RecordedCompletion
from rewards.core.base import Reason, RewardResult
from rollout.config import SamplingConfig
from rollout.dataset import SampleTable, write_samples
from rollout.errors import RolloutError
from rollout.records import Sample, SamplingSpec
from tests.unit.train.run_records import SUMMARY

SAMPLING = EvaluationSampling(
    greedy=True,
    num_sampled=2,
    sampling=SamplingConfig(group_size=4, temperature=1.0, max_completion_tokens=8),
    seed=5,
    coord_mode="pixel",
)
FUNCTIONS = {
    ("chart", "unit"): "chart",
    ("match_mcq", "unit"): "matching",
    ("match_yesno", "unit"): "matching",
}
SAMPLES = [
    Sample(sample_id=f"s{i}", source="unit", task=task, question="?", answer="1")
    for i, task in enumerate(["chart", "match_mcq", "chart", "match_yesno", "chart", "match_mcq"])
]


class FakePools:
    """Gives chart samples rewards (0, 1) when sampled and 1 when greedy; refuses the sample named s2."""

    def __init__(self) -> None:
        self.specs: dict[str, list[SamplingSpec]] = {}

    async def generate_group(self, group_id: str, sample: Sample, spec: SamplingSpec) -> Any:
        if sample.sample_id == "s2":
            raise RolloutError("too long")
        self.specs.setdefault(sample.sample_id, []).append(spec)
        return sample, spec

    async def score(self, group: Any, *, keep_texts: bool) -> Any:
        sample, spec = group
        rewards = (1.0,) if spec.greedy else (0.0, 1.0 if sample.sample_id != "s4" else 0.5)
        return None, replace(SUMMARY, completions=tuple(map(completion, rewards)))


def completion(reward: float) -> RecordedCompletion:
    result = RewardResult(
        reward=reward, task_reward=reward, format_reward=1.0, breakdown={}, parsed_answer="1", reason=Reason.OK
    )
    return RecordedCompletion(text="t", result=result, num_tokens=3, truncated=False)


def run(pools: FakePools) -> Any:
    return asyncio.run(
        evaluate(
            SAMPLES,
            engines=pools,  # type: ignore[arg-type]
            rewards=pools,  # type: ignore[arg-type]
            sampling=SAMPLING,
            function_of=FUNCTIONS,
            step=3,
        )
    )


def test_means_and_errors_are_over_samples() -> None:
    chart = run(FakePools()).families["chart"]
    # s0 has mean 0.5, s4 has 0.25; s2 could not be generated. The standard error of two values is half their distance.
    assert chart.num_samples == 2
    assert chart.sampled == pytest.approx(0.375)
    assert chart.sampled_se == pytest.approx(0.125)
    assert (chart.greedy, chart.greedy_se) == (1.0, 0.0)


def test_two_evaluations_draw_the_same_random_numbers_and_samples_differ() -> None:
    first, second = FakePools(), FakePools()
    run(first)
    run(second)
    assert first.specs == second.specs
    assert first.specs["s0"][1].seed != first.specs["s1"][1].seed
    assert [spec.greedy for spec in first.specs["s0"]] == [True, False]


def table_of(path: Path, sources: dict[str, int]) -> SampleTable:
    """Rows source after source, as the data engine writes them."""
    names = [f"{source}/{i}" for source, count in sources.items() for i in range(count)]
    write_samples(
        path, (Sample(sample_id=n, source=n.partition("/")[0], task="chart", question="?", answer="1") for n in names)
    )
    return SampleTable(path)


def chosen_of(table: SampleTable, count: int, seed: int = 0) -> list[str]:
    return [
        s.sample_id for s in choose_samples(table, dict.fromkeys(table.tasks_and_sources(), "chart"), count, seed=seed)
    ]


def test_chosen_samples_cover_every_source_in_proportion(tmp_path: Path) -> None:
    table = table_of(tmp_path / "h.parquet", {"human": 300, "augmented": 300, "tiny": 3})
    counts = Counter(name.partition("/")[0] for name in chosen_of(table, 128))
    assert counts.total() == 128
    assert counts["tiny"] == 1
    assert abs(counts["human"] - counts["augmented"]) <= 1


def test_chosen_samples_follow_the_seed_alone_and_a_smaller_choice_is_part_of_a_larger_one(tmp_path: Path) -> None:
    table = table_of(tmp_path / "h.parquet", {"human": 30, "augmented": 50})
    assert chosen_of(table, 20) == chosen_of(table, 20)
    assert set(chosen_of(table, 20)) < set(chosen_of(table, 40))
    assert chosen_of(table, 20) != chosen_of(table, 20, seed=1)
    assert len(chosen_of(table, 1000)) == 80


def test_a_run_and_an_evaluation_of_it_ask_the_same_rows(tmp_path: Path) -> None:
    table = table_of(tmp_path / "h.parquet", {"human": 30, "augmented": 50})
    bench = open_rows(tmp_path / "h.parquet", seed=7, max_samples=20)
    assert list(bench.ids) == chosen_of(table, 20, seed=7)


def test_samples_are_chosen_by_function_whatever_their_order(tmp_path: Path) -> None:
    write_samples(tmp_path / "h.parquet", SAMPLES)
    chosen = choose_samples(SampleTable(tmp_path / "h.parquet"), FUNCTIONS, 2)
    assert Counter(FUNCTIONS[s.task, s.source] for s in chosen) == {"chart": 2, "matching": 2}


def test_scores_come_by_source_too_and_as_metrics() -> None:
    found = run(FakePools())
    assert found.sources["unit"].num_samples == 5
    metrics = found.metrics()
    assert metrics["held_out/chart/sampled"] == pytest.approx(0.375)
    assert metrics["held_out/mean/greedy"] == 1.0
    assert not any(name.startswith("held_out/source/") for name in metrics)  # one source alone says nothing more

    two = replace(found, sources={"a": found.sources["unit"], "b": found.sources["unit"]})
    assert two.metrics()["held_out/source/b/greedy"] == 1.0


def held_out(tmp_path: Path, pools: FakePools, said: list[str], *settings: str) -> HeldOut:
    """The held-out samples of a run folder, as a sitting of the run opens them."""
    path = tmp_path / "held_out.parquet"
    if not path.exists():
        write_samples(path, SAMPLES)
    config = build_settings(compose([f"run_dir={tmp_path}", "evaluation.samples_per_family=2", *settings]))
    return HeldOut(
        config,
        SampleTable(path),
        engines=pools,  # type: ignore[arg-type]
        rewards=pools,  # type: ignore[arg-type]
        folder=RunFolder(tmp_path),
        say=said.append,
    )


class FailingPools(FakePools):
    """A function of the user's raises over the first sampled completion of every chart."""

    async def score(self, group: Any, *, keep_texts: bool) -> Any:
        payload, summary = await super().score(group, keep_texts=keep_texts)
        sample, spec = group
        if sample.task != "chart" or spec.greedy:
            return payload, summary
        failed = RewardResult(None, None, 1.0, {}, None, Reason.FUNCTION_RAISED, "mine: KeyError")
        first, *others = summary.completions
        return payload, replace(summary, completions=(replace(first, result=failed), *others))


def test_completions_without_a_reward_are_counted_told_and_shown_as_such(tmp_path: Path) -> None:
    said: list[str] = []
    found = asyncio.run(held_out(tmp_path, FailingPools(), said).score("after", 2))
    assert found.num_without_reward == {"chart/function_raised": found.families["chart"].num_samples}
    assert said[-1].startswith("held-out completions without a reward, which no score counts: ")
    assert json.loads((tmp_path / "evaluation_after.json").read_text())["num_without_reward"]
    assert found.families["chart"].sampled > 0.4  # of the others, none of which is 0
    rewards = [example["sampled_rewards"] for example in found.examples if example["family"] == "chart"]
    assert {of_example[0] for of_example in rewards} == {None}
    RunFolder(tmp_path).config.write_text(json.dumps({"model": {"coord_mode": "pixel"}}))
    write_report(RunFolder(tmp_path))
    assert "sampled, no reward" in RunFolder(tmp_path).report.read_text()


def test_tables_keep_their_columns_where_the_name_of_a_sum_is_long() -> None:
    score = {**dict.fromkeys(("sampled", "sampled_se", "greedy"), 0.5), "num_samples": 4}
    names = ("chart", "open_ended+mine+repetition")
    scores = dict.fromkeys(names, score)
    for table in (scores_table(scores, scores), before_after_table(scores, scores)):
        head, *rows = table.splitlines()[-3:]
        assert {len(line) for line in rows} == {len(head)}


def test_scores_are_told_when_they_are_made_with_the_change_against_the_untrained_model(tmp_path: Path) -> None:
    said: list[str] = []
    run_held_out = held_out(tmp_path, FakePools(), said)
    asyncio.run(run_held_out.score("before", 0))
    asyncio.run(run_held_out.score("step_00000002", 2))

    assert [line for line in said if line.startswith("scoring")] == [
        "scoring held-out samples at step 0 ...",
        "scoring held-out samples at step 2 ...",
    ]
    first, second = (text.splitlines() for text in said if text.startswith("held-out reward"))
    assert [line.split()[0] for line in second[1:]] == ["chart", "matching"]
    assert "+0.000" in second[1]
    assert "+0.000" not in first[1]


def test_scores_of_other_rows_are_not_compared_after_a_resume(tmp_path: Path) -> None:
    said: list[str] = []
    asyncio.run(held_out(tmp_path, FakePools(), said).score("before", 0))
    asyncio.run(held_out(tmp_path, FakePools(), said).score("after", 2))
    assert not any("are not compared" in text for text in said)
    assert all(read_before_after(RunFolder(tmp_path)))

    # An older version wrote no digest of the rows; another number of samples gives another digest.
    old = json.loads((tmp_path / "evaluation_before.json").read_text())
    del old["rows"]
    (tmp_path / "evaluation_before.json").write_text(json.dumps(old))
    for settings in ((), ("evaluation.samples_per_family=1",)):
        said.clear()
        asyncio.run(held_out(tmp_path, FakePools(), said, *settings).score("after", 2))
        assert "are not compared with new ones" in said[0]
        assert any(text.startswith("held-out reward") for text in said)
        before, after = read_before_after(RunFolder(tmp_path))
        assert before == {}
        assert after["families"]


def test_a_run_says_when_no_held_out_sample_could_be_scored(tmp_path: Path) -> None:
    class Refusing(FakePools):
        async def generate_group(self, group_id: str, sample: Sample, spec: SamplingSpec) -> Any:
            raise RolloutError("prompt of 900 tokens")

    said: list[str] = []
    found = asyncio.run(held_out(tmp_path, Refusing(), said).score("before", 0))
    assert found.families == {}
    assert said[-1] == "not one of 4 held-out samples could be scored: prompt of 900 tokens"


def test_held_out_completions_are_sampled_as_their_settings_and_those_of_their_task_say(tmp_path: Path) -> None:
    pools = FakePools()
    tasks = "rollout.sampling.tasks={chart: {max_completion_tokens: 5, temperature: 0.5, group_size: 16}}"
    own = (
        "evaluation.samples_per_family=9",
        "evaluation.top_p=0.9",
        "evaluation.top_k=20",
        "evaluation.min_p=0.1",
        "evaluation.stop=[END]",
    )
    asyncio.run(held_out(tmp_path, pools, [], f"+{tasks}", *own).score("before", 0))

    (greedy, sampled), (greedy_choice, sampled_choice) = pools.specs["s0"], pools.specs["s1"]
    assert (sampled.top_p, sampled.top_k, sampled.min_p, sampled.stop) == (0.9, 20, 0.1, ("END",))
    assert (greedy.temperature, greedy.top_p, greedy.top_k, greedy.min_p, greedy.stop) == (0.0, 1.0, 0, 0.0, ("END",))
    assert (sampled.max_completion_tokens, greedy.max_completion_tokens, sampled.temperature) == (5, 5, 0.5)
    assert (sampled_choice.max_completion_tokens, greedy_choice.max_completion_tokens) == (64, 64)
    assert (sampled.group_size, sampled_choice.group_size, sampled_choice.temperature) == (4, 4, 1.0)
