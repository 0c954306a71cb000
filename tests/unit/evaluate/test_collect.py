"""Which rows a dataset is asked, and how samples, completions and rewards become records."""

from dataclasses import replace
from pathlib import Path

import pytest

from orchestration.settings.errors import DataError
from orchestration.workers.answers import EvaluatedSample
from orchestration.workers.collect import evaluated_sample, open_rows
from orchestration.workers.tickets import GroupSummary, RecordedCompletion
from rewards import MixedReward, RewardConfig, RewardRequest
from rewards.core.base import Reason, RewardResult
from rollout.dataset import write_samples
from rollout.records import ImageBytes, Sample, Turn
from tests.unit.evaluate.builders import sample, tagged
from tests.unit.train.run_records import SUMMARY

SAMPLE = Sample(
    sample_id="7f",
    source="demo/bar",
    source_id="12",
    task="chart",
    question="How tall?",
    answer="45",
    answer_type="number",
    images=(ImageBytes(data=b"x", width=400, height=300),),
    metadata={"split": "val"},
)


def row(name: str, answer: str = "4") -> Sample:
    return Sample(sample_id=name, source="unit", task="chart", question=f"How tall is {name}?", answer=answer)


def write(path: Path, *samples: Sample) -> Path:
    write_samples(path, samples)
    return path


def group(*results: RewardResult, text: str = tagged("46")) -> GroupSummary:
    completions = [RecordedCompletion(text=text, result=result, num_tokens=9, truncated=False) for result in results]
    return replace(SUMMARY, completions=tuple(completions), image_input_sizes=((200, 150),))


def test_all_rows_are_asked_in_order_and_those_that_are_answered_not_again(tmp_path: Path) -> None:
    bench = open_rows(write(tmp_path / "b.parquet", *map(row, "abc")), seed=0, max_samples=None)
    assert [asked.sample_id for asked in bench.samples({})] == ["a", "b", "c"]
    assert [asked.sample_id for asked in bench.samples({"b": sample("b")})] == ["a", "c"]


def test_fewer_rows_are_drawn_by_the_seed_and_keep_their_order(tmp_path: Path) -> None:
    path = write(tmp_path / "b.parquet", *map(row, "abcdefgh"))
    drawn = {seed: list(open_rows(path, seed=seed, max_samples=3).ids) for seed in range(6)}
    assert all(names == sorted(names) and len(names) == 3 for names in drawn.values())
    assert drawn[0] == list(open_rows(path, seed=0, max_samples=3).ids)
    assert len({tuple(names) for names in drawn.values()}) > 1


def test_a_record_has_the_earlier_turns_and_says_where_images_stand() -> None:
    turns = (Turn(role="user", text="\ufffcWho?"), Turn(role="assistant", text="He."))
    asked = replace(SAMPLE, images=SAMPLE.images * 2, question="Is \ufffc he?", history=turns)
    found = evaluated_sample(asked, {}, "late", function="chart", coord_mode="pixel")
    assert (found.question, found.history) == ("Is <image> he?", (("user", "<image>Who?"), ("assistant", "He.")))
    assert found.request("x").history == found.history


def test_the_digest_follows_what_is_said_before_the_question(tmp_path: Path) -> None:
    turn = Turn(role="user", text="Who?")
    rows = [row("a"), replace(row("a"), system="Be kind."), replace(row("a"), history=(turn,))]
    digests = {
        open_rows(write(tmp_path / f"{i}.parquet", asked), seed=0, max_samples=None).digest
        for i, asked in enumerate(rows)
    }
    assert len(digests) == 3


def test_the_digest_follows_questions_references_and_images(tmp_path: Path) -> None:
    seen = replace(row("a"), images=(ImageBytes(data=b"one", width=3, height=4),))
    other = replace(row("a"), images=(ImageBytes(data=b"two", width=3, height=4),))
    sets = ([row("a")], [row("a", "5")], [row("b")], [row("a"), row("b")], [seen], [other])
    digests = {
        open_rows(write(tmp_path / f"{i}.parquet", *rows), seed=0, max_samples=None).digest
        for i, rows in enumerate(sets)
    }
    assert len(digests) == 6
    again = open_rows(write(tmp_path / "again.parquet", row("a")), seed=0, max_samples=None)
    assert again.digest in digests


def test_two_rows_of_one_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds a sample_id twice"):
        open_rows(write(tmp_path / "b.parquet", row("a"), row("a", "5")), seed=0, max_samples=None)


def test_a_scored_completion_becomes_a_record_that_survives_json() -> None:
    with MixedReward(RewardConfig()) as rewards:
        result = rewards.score([RewardRequest(task="chart", question="?", answer="45", response=tagged("46"))])[0]

    found = evaluated_sample(SAMPLE, {"greedy": group(result)}, function="chart", coord_mode="norm1000")

    assert found.greedy is not None
    assert (found.greedy.reward, found.greedy.parsed_answer, found.greedy.reason) == (1.0, "46", "ok")
    assert (found.greedy.text, found.greedy.num_tokens, found.greedy.truncated) == (tagged("46"), 9, False)
    assert (found.image_sizes, found.image_input_sizes, found.failure) == (((400, 300),), ((200, 150),), None)
    assert EvaluatedSample.from_json(found.to_json()) == found


def test_a_row_keeps_the_parts_of_a_sum_and_what_judges_cost() -> None:
    config = RewardConfig(routes={"chart": {"chart": 1.0, "length": -0.3}})
    with MixedReward(config) as rewards:
        result = rewards.score([RewardRequest(task="chart", question="?", answer="45", response=tagged("46"))])[0]
    counted = replace(group(result), counts=(("judge/wise/num_requests", 2.0),))
    groups = {"greedy": replace(counted, parts=(("chart", (1.0,)),)), "sampled": replace(counted, parts=())}

    found = evaluated_sample(SAMPLE, groups, function="chart+length", coord_mode="pixel")

    assert found.greedy is not None
    assert found.greedy.parts == result.breakdown
    assert found.greedy.parts.keys() == {"format", "chart", "length"}
    assert found.sampled[0].parts == {}
    assert found.counts == {"judge/wise/num_requests": 4.0}
    assert EvaluatedSample.from_json(found.to_json()) == found


def test_a_row_without_any_reward_is_a_failed_one() -> None:
    good, bad = (
        RewardResult(
            reward=reward, task_reward=reward, format_reward=1.0, breakdown={}, parsed_answer=None, reason=reason
        )
        for reward, reason in ((0.0, Reason.OK), (None, Reason.BAD_GOLD))
    )

    def failure_of(failure: str | None = None, **groups: GroupSummary) -> str | None:
        return evaluated_sample(SAMPLE, groups, failure, function="chart", coord_mode="pixel").failure

    assert failure_of(greedy=group(bad), sampled=group(bad)) == "no completion has a reward: bad_gold"
    assert failure_of() == "no completion has a reward: there is none"
    assert failure_of(greedy=group(bad), sampled=group(good)) is None
    assert failure_of("engine died") == "engine died"
