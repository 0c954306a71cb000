"""Mixed reward: every request goes to its row's reward function, and format is added.

total = format weight x format + task weight x task reward, each in [0, 1]. A reference or grader that fails gives
None with the cause, so that a group is masked and counted instead of trained on a silent zero.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rewards.core.base import GoldError, Grade, Reason, RewardError, RewardFunction, RewardRequest, RewardResult
from rewards.core.config import FUNCTIONS, FunctionConfig, RewardConfig, Route
from rewards.core.envelope import Envelope, extract_answer, read_envelope
from rewards.text.boxes import without_marks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rewards.functions.embedding_table import EmbeddingTable

logger = logging.getLogger(__name__)

Encode = Callable[[str], list[int]]
"""Text to token ids without special tokens."""


class MixedReward:
    """Scores requests of all tasks; holds the embedding table and, once math is scored, a grader process.

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
        encode: Encode | None = None,
        embedding: EmbeddingTable | NDArray[np.float32] | None = None,
    ) -> None:
        """Build every function that routes and rules name.

        Args:
            config: Routes, rules, weights and parameters.
            encode: Needed, with `embedding`, by open_ended alone; without them such rows cannot be scored.
            embedding: [V, d] rows of a frozen input embedding table.
        """
        self._config = config
        self._routes: dict[tuple[str, str], tuple[Route, RewardFunction]] = {}
        self._functions: dict[FunctionConfig, RewardFunction] = {}
        for route in config.every_route():
            if route.parameters in self._functions:
                continue
            if route.function != "open_ended":
                self._functions[route.parameters] = _build(route)
            elif encode is not None and embedding is not None:
                self._functions[route.parameters] = _build_open_ended(route.parameters, encode, embedding)

    @classmethod
    def from_checkpoint(cls, config: RewardConfig, folder: Path | str) -> Self:
        """Take tokenizer and embedding table from a Hugging Face folder; the table is mapped, not copied.

        Raises:
            RewardError: If the folder lacks either, or the settings do not fit them.
        """
        from rewards.functions.embedding_table import EmbeddingTable
        from rewards.functions.tokenizer import load_tokenizer

        tokenizer = load_tokenizer(folder)
        return cls(
            config,
            encode=lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids),
            embedding=EmbeddingTable.from_checkpoint(folder),
        )

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
            for index, result in zip(indices, self._score_group(members), strict=True):
                results[index] = result
        return [results[index] for index in range(len(requests))]

    def explain(self, request: RewardRequest) -> list[str]:
        """Return lines on how one request is read, graded and weighed.

        Raises:
            RewardError: As `score` does.
        """
        route, function = self._routed(request)
        answer = extract_answer(request.response, self._config.format)
        result = self.score([request])[0]
        lines = [f"function   {route.function} with {route.parameters}"]
        lines.append(f"format     {result.format_reward:g}, weighs {route.format_weight:g}")
        lines.append(f"answer     {_shortened(answer.text) if answer.text is not None else 'none'}")
        lines.append(f"reference  {_shortened(request.answer)}")
        if answer.text is not None and result.failure is None:
            lines.extend(f"           {line}" for line in function.explain(request, _as_read(answer.text, route)))
        lines.append(f"read as    {'nothing' if result.parsed_answer is None else _shortened(result.parsed_answer)}")
        lines.append(f"reason     {result.reason}: {result.reason.meaning}")
        if result.failure is not None:
            lines.append(f"failure    {result.failure}")
        if result.reward is None:
            return [*lines, "reward     none: masked from its group and counted"]
        assert result.task_reward is not None
        lines.append(f"task       {result.task_reward:.6g}, weighs {route.task_weight:g}")
        return [*lines, f"reward     {result.reward:.6g}"]

    def close(self) -> None:
        """End the grader processes, if any were started."""
        from rewards.functions.mathematics import MathReward

        for function in self._functions.values():
            if isinstance(function, MathReward):
                function.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _routed(self, request: RewardRequest) -> tuple[Route, RewardFunction]:
        pair = (request.task, request.source)
        routed = self._routes.get(pair)
        if routed is not None:
            return routed
        route = self._config.route(*pair)
        function = self._functions.get(route.parameters)
        if function is None:
            raise RewardError(
                f"task {request.task!r} is routed to {route.function}, which needs a tokenizer and an embedding table: "
                "give MixedReward encode and embedding, or leave such rows out"
            )
        self._routes[pair] = route, function
        return route, function

    def _score_group(self, requests: Sequence[RewardRequest]) -> list[RewardResult]:
        route, function = self._routed(requests[0])
        envelopes = [read_envelope(request.response, self._config.format) for request in requests]
        texts = [_as_read(envelope.answer, route) for envelope in envelopes if envelope.answer is not None]
        try:
            grades = iter(_grade_each(function, requests[0], texts))
        except GoldError as error:
            bad_gold = Grade(None, Reason.BAD_GOLD, failure=f"{route.function}: {error}")
            return [_result(route, envelope.format_reward, bad_gold) for envelope in envelopes]
        return [
            _result(
                route,
                envelope.format_reward,
                next(grades) if envelope.answer is not None else _no_answer(envelope, request),
            )
            for request, envelope in zip(requests, envelopes, strict=True)
        ]


def _as_read(text: str, route: Route) -> str:
    """An answer as its function reads it: marks of objects and boxes mean something to grounding alone."""
    return text if route.function in ("grounding", "pointing") else without_marks(text)


def _no_answer(envelope: Envelope, request: RewardRequest) -> Grade:
    cut = request.truncated and envelope.reason is Reason.NO_ANSWER
    return Grade(0.0, Reason.TRUNCATED if cut else envelope.reason)


def _result(route: Route, format_value: float, grade: Grade) -> RewardResult:
    value, reason, parsed, failure = grade
    breakdown, total = {"format": format_value}, None
    if value is not None:
        breakdown[route.function] = value
        total = route.format_weight * format_value + route.task_weight * value
    return RewardResult(total, value, format_value, breakdown, parsed, reason, failure)


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


def _shortened(text: str, limit: int = 300) -> str:
    return repr(text) if len(text) <= limit else f"{text[:limit]!r} ... ({len(text)} characters)"


def _build(route: Route) -> RewardFunction:
    """Build the function of a route; only modules of routed functions are imported."""
    module, _, name = FUNCTIONS[route.function].partition(":")
    build: Callable[[FunctionConfig], RewardFunction] = getattr(importlib.import_module(module), name)
    return build(route.parameters)


def _build_open_ended(
    parameters: FunctionConfig, encode: Encode, embedding: EmbeddingTable | NDArray[np.float32]
) -> RewardFunction:
    from rewards.core.config import OpenEndedConfig
    from rewards.functions.embedding_table import EmbeddingTable
    from rewards.functions.open_ended import OpenEndedReward

    assert isinstance(parameters, OpenEndedConfig)
    table = embedding if isinstance(embedding, EmbeddingTable) else EmbeddingTable(embedding)
    return OpenEndedReward(parameters, encode, table)
