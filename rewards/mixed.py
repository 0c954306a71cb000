"""Mixed reward: every request goes to its task's reward function, and format is added.

total = format weight x format + task weight x task reward, each in [0, 1]. A reference or grader that fails gives
None with the cause, so that a group is masked and counted instead of being taught from a silent zero.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Self

from rewards.answer import Answer, extract_answer
from rewards.base import GoldError, Grade, Reason, RewardError, RewardFunction, RewardRequest, RewardResult, look_up
from rewards.config import RewardConfig
from rewards.format import format_reward

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rewards.embedding_table import EmbeddingTable

__all__ = ["MixedReward", "RewardConfig", "function_of"]

logger = logging.getLogger(__name__)


def function_of(config: RewardConfig, task: str) -> str:
    """Give the function name (matching, chart, grounding, open_ended, math) that reads a task.

    Raises:
        RewardError: If no route names the task.
    """
    return look_up(task, config.routes, what="task (reward.routes)")


class MixedReward:
    """Scores requests of all tasks; holds the embedding table and, once math is scored, one grader process.

    Example:
        >>> request = RewardRequest(task="chart", question="How tall is red?", answer="45",
        ...                         response="<think>The axis says 45.</think><answer>47</answer>")
        >>> with MixedReward(RewardConfig()) as rewards:
        ...     rewards.score([request])[0].reward
        1.0
    """

    def __init__(
        self,
        config: RewardConfig,
        encode: Callable[[str], list[int]] | None = None,
        embedding: EmbeddingTable | NDArray[np.float32] | None = None,
    ) -> None:
        """Build the functions that the routes name.

        Args:
            config: Routes, weights and parameters.
            encode: Text to token ids without special tokens; needed, with `embedding`, by open_ended alone.
            embedding: [V, d] rows of a frozen input embedding table.
        """
        self._config = config
        self._functions: dict[str, RewardFunction] = {}
        for name in dict.fromkeys(config.routes.values()):
            if name == "open_ended":
                if encode is not None and embedding is not None:
                    self._functions[name] = _build_open_ended(config, encode, embedding)
            else:
                self._functions[name] = _build(name, config)

    def function_of(self, task: str) -> str:
        """Give `function_of(config, task)`."""
        return function_of(self._config, task)

    def unrouted(self, tasks: Iterable[str]) -> tuple[str, ...]:
        """Give the tasks that cannot be scored: without a route, or open_ended without tokenizer and table."""
        missing = [task for task in tasks if self._config.routes.get(task, "") not in self._functions]
        return tuple(dict.fromkeys(missing))

    def score(self, requests: Sequence[RewardRequest]) -> list[RewardResult]:
        """Score requests; those that share a reference are graded together, whatever their order.

        Returns:
            One result per request, in order; independent of which other requests are scored with it.

        Raises:
            RewardError: If a task has no route, or its function was not built.
        """
        groups: dict[tuple[object, ...], list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(request.gold_key, []).append(index)
        results: dict[int, RewardResult] = {}
        for indices in groups.values():
            members = [requests[index] for index in indices]
            results.update(zip(indices, self._score_group(members), strict=True))
        return [results[index] for index in range(len(requests))]

    def close(self) -> None:
        """End the grader process, if one was started."""
        from rewards.mathematics import MathReward

        for function in self._functions.values():
            if isinstance(function, MathReward):
                function.close()

    def __enter__(self) -> Self:
        """Give the reward itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()

    def _score_group(self, requests: Sequence[RewardRequest]) -> list[RewardResult]:
        name = self.function_of(requests[0].task)
        if name not in self._functions:
            raise RewardError(
                f"task {requests[0].task!r} is routed to {name}, which needs a tokenizer and an embedding table: "
                "give MixedReward encode and embedding, or leave such rows out"
            )
        answers = [extract_answer(request.response, self._config.format) for request in requests]
        texts = [answer.text for answer in answers if answer.text is not None]
        try:
            grades = iter(_grade_each(self._functions[name], requests[0], texts))
        except GoldError as error:
            bad_gold = Grade(None, Reason.BAD_GOLD, failure=f"{name}: {error}")
            return [self._result(request, name, bad_gold) for request in requests]
        return [
            self._result(request, name, _no_answer(answer, request) if answer.text is None else next(grades))
            for request, answer in zip(requests, answers, strict=True)
        ]

    def _result(self, request: RewardRequest, name: str, grade: Grade) -> RewardResult:
        format_value = format_reward(request.response, self._config.format)
        breakdown = {"format": format_value}
        total = None
        if grade.value is not None:
            breakdown[name] = grade.value
            format_weight, task_weight = self._config.weights(request.task)
            total = format_weight * format_value + task_weight * grade.value
        return RewardResult(
            reward=total,
            task_reward=grade.value,
            format_reward=format_value,
            breakdown=breakdown,
            parsed_answer=grade.parsed,
            reason=grade.reason,
            failure=grade.failure,
        )


def _no_answer(answer: Answer, request: RewardRequest) -> Grade:
    cut = request.truncated and answer.reason is Reason.NO_ANSWER
    return Grade(0.0, Reason.TRUNCATED if cut else answer.reason)


def _grade_each(function: RewardFunction, request: RewardRequest, answers: Sequence[str]) -> list[Grade]:
    """Grade a group; if that crashes, grade one by one, so that the crash stays with the answer that caused it."""
    try:
        grades = function.grade(request, answers)
    except GoldError:
        raise
    except Exception as error:
        logger.debug("reward of task %s crashed", request.task, exc_info=True)
        if len(answers) <= 1:
            failure = f"{type(function).__name__}: {type(error).__name__}: {error}"
            return [Grade(None, Reason.GRADER_FAILED, failure=failure) for _ in answers]
        return [grade for answer in answers for grade in _grade_each(function, request, [answer])]
    for answer_grade in grades:
        if answer_grade.value is not None and not 0.0 <= answer_grade.value <= 1.0:
            raise AssertionError(f"{type(function).__name__} gave {answer_grade.value}, outside of [0, 1]")
    return grades


def _build(name: str, config: RewardConfig) -> RewardFunction:
    """Build the function called `name`; imports stand here so that only what is routed is loaded."""
    if name == "matching":
        from rewards.matching import MatchingReward

        return MatchingReward(config.matching)
    if name == "chart":
        from rewards.chart import ChartReward

        return ChartReward(config.chart)
    if name == "grounding":
        from rewards.grounding import GroundingReward

        return GroundingReward(config.grounding)
    from rewards.mathematics import MathReward

    return MathReward(config.math)


def _build_open_ended(
    config: RewardConfig, encode: Callable[[str], list[int]], embedding: EmbeddingTable | NDArray[np.float32]
) -> RewardFunction:
    from rewards.embedding_table import EmbeddingTable
    from rewards.open_ended import OpenEndedReward

    table = embedding if isinstance(embedding, EmbeddingTable) else EmbeddingTable(embedding)
    return OpenEndedReward(config.open_ended, encode, table)
