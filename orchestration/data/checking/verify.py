"""Whether a row's own reward can be earned: its reference, given as the answer, must score 1."""

from dataclasses import replace
from typing import Self

from orchestration.data.reasons import Refused, RejectReason
from orchestration.data.records import Candidate
from rewards.base import RewardRequest
from rewards.config import RewardConfig, RewardRule
from rewards.mixed import MixedReward
from rewards.word_table import WordTable

TOLERANCE = 1e-6
"""BMAS of a text with itself is a sum of 32-bit products."""


class ReferenceCheck:
    """The rewards of a run, asked about references; owns a grader process once a math row was checked.

    Open-ended references are compared over the table of words: a text is as similar to itself in any table.
    """

    def __init__(self, config: RewardConfig) -> None:
        """Build the rewards that the run will use; weights of words, which its own data may give, are left out."""
        self._config = config
        words = WordTable()
        self._rewards = MixedReward(_without_word_weights(config), words.encode, words)

    def check(self, candidate: Candidate) -> None:
        """Accept a candidate whose reference its reward can use.

        Raises:
            Refused: UNKNOWN_TASK, REFERENCE_UNUSABLE or REFERENCE_NOT_RIGHT.
        """
        if not self._config.is_routed(candidate.task, candidate.source):
            raise Refused(
                RejectReason.UNKNOWN_TASK,
                f"task {candidate.task!r} of source {candidate.source!r} is routed to no reward function",
            )
        sizes = tuple(image.size for image in candidate.images)
        request = RewardRequest(
            task=candidate.task,
            source=candidate.source,
            question=candidate.question,
            response=f"<think>.</think><answer>{candidate.answer}</answer>",
            answer=candidate.answer,
            options=candidate.options,
            answer_type=candidate.answer_type,
            image_sizes=sizes,
            image_input_sizes=sizes,
        )
        result = self._rewards.score([request])[0]
        if result.task_reward is None:
            raise Refused(RejectReason.REFERENCE_UNUSABLE, result.failure or result.reason.meaning)
        if result.task_reward < 1.0 - TOLERANCE:
            raise Refused(
                RejectReason.REFERENCE_NOT_RIGHT,
                f"{candidate.answer[:80]!r} scores {result.task_reward:.6g} ({result.reason}: {result.reason.meaning})",
            )

    def close(self) -> None:
        """End the grader process, if one was started."""
        self._rewards.close()

    def __enter__(self) -> Self:
        """Give the check itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()


def _without_word_weights(config: RewardConfig) -> RewardConfig:
    return replace(
        config,
        open_ended=replace(config.open_ended, idf_path=""),
        rules=tuple(_rule_without_word_weights(rule) for rule in config.rules),
    )


def _rule_without_word_weights(rule: RewardRule) -> RewardRule:
    return replace(rule, parameters={key: value for key, value in rule.parameters.items() if key != "idf_path"})
