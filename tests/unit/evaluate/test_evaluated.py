"""Samples and rewards become records without loss."""

from orchestration.workers.answers import EvaluatedSample
from orchestration.workers.evaluated import completion_of, evaluated_sample
from rewards import MixedReward, RewardConfig, RewardRequest
from rollout.records import ImageBytes, Sample
from tests.unit.evaluate.builders import completion, tagged

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


def test_a_scored_completion_becomes_a_record_that_survives_json() -> None:
    with MixedReward(RewardConfig()) as rewards:
        result = rewards.score([RewardRequest(task="chart", question="?", answer="45", response=tagged("46"))])[0]
    said = completion_of(result, text=tagged("46"), num_tokens=9, truncated=False)

    row = evaluated_sample(
        SAMPLE, function="chart", coord_mode="norm1000", image_input_sizes=((200, 150),), greedy=said
    )

    assert (said.reward, said.parsed_answer, said.reason) == (1.0, "46", "ok")
    assert (row.image_sizes, row.image_input_sizes, row.failure) == (((400, 300),), ((200, 150),), None)
    assert EvaluatedSample.from_json(row.to_json()) == row


def test_a_row_without_any_reward_is_a_failed_one() -> None:
    bad = completion(None, reason="bad_gold")

    def failure_of(**changes: object) -> str | None:
        return evaluated_sample(SAMPLE, function="chart", coord_mode="pixel", **changes).failure  # type: ignore[arg-type]

    assert failure_of(greedy=bad, sampled=(bad,)) == "no completion has a reward: bad_gold"
    assert failure_of() == "no completion has a reward: there is none"
    assert failure_of(greedy=bad, sampled=(completion(0.0),)) is None
    assert failure_of(failure="engine died") == "engine died"
