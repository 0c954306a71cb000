"""Mixed reward: every request goes to its row's reward function, and format is added.

total = format weight x format + task weight x task reward, each in [0, 1]. The task reward is the value of one function
or a weighted sum of several. A reference or grader that fails gives None with the cause, so that a group is masked and
counted instead of trained on a silent zero.
"""

from __future__ import annotations

import importlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rewards.core.base import (
    Closable,
    CompletionFunction,
    Counting,
    GoldError,
    Grade,
    Reason,
    RewardError,
    RewardFunction,
    RewardRequest,
    RewardResult,
)
from rewards.core.config import FUNCTIONS, PENALTIES, FunctionConfig, RewardConfig
from rewards.core.envelope import Envelope, extract_answer, read_envelope
from rewards.core.judge_config import JudgeConfig
from rewards.core.parts import FORMAT, OwnFunctionConfig, Part, Route
from rewards.text.boxes import without_marks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rewards.functions.embedding_table import EmbeddingTable
    from rewards.functions.own import OwnReward

logger = logging.getLogger(__name__)

Encode = Callable[[str], list[int]]
"""Text to token ids without special tokens."""
AnyFunction = RewardFunction | CompletionFunction


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
        self._routes: dict[tuple[str, str], tuple[Route, tuple[AnyFunction, ...]]] = {}
        self._functions: dict[tuple[str, str], AnyFunction] = {}
        for part in (part for route in config.every_route() for part in route.parts):
            if _key(part) in self._functions:
                continue
            if part.function != "open_ended":
                self._functions[_key(part)] = _build(part)
            elif encode is not None and embedding is not None:
                self._functions[_key(part)] = _build_open_ended(part.parameters, encode, embedding)

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
        """Score requests; those that share question, images, metadata and reference are graded together.

        Returns:
            One result per request, in order; independent of which other requests are scored with it, unless a function
            of the user's compares the completions of a group.

        Raises:
            RewardError: If a task has no route, or its function was not built.
        """
        groups: dict[tuple[object, ...], list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(request.gold_key, []).append(index)
        if self._config.judges and len(groups) > 1:
            self._ask_ahead(requests)
        results: dict[int, RewardResult] = {}
        for indices in groups.values():
            members = [requests[index] for index in indices]
            for index, result in zip(indices, self._score_group(members), strict=True):
                results[index] = result
        return [results[index] for index in range(len(requests))]

    def start(self) -> None:
        """Load the functions of the user's, so that what is wrong with one is known before anything is scored.

        Raises:
            RewardError: One cannot be loaded or called.
        """
        for function in self._own_functions():
            function.start()

    def reads_images(self, task: str, source: str) -> bool:
        """Return whether a function of such rows takes images, so that their requests must hold them.

        Raises:
            RewardError: As `score` does, or a function of the user's cannot be loaded.
        """
        from rewards.functions.own import OwnReward

        route, functions = self._routed(task, source)
        if any(isinstance(part.parameters, JudgeConfig) and part.parameters.images for part in route.parts):
            return True
        return any(isinstance(function, OwnReward) and function.takes_images for function in functions)

    def take_counts(self) -> dict[str, float]:
        """Return what judges were asked and what it cost since the last call, as metrics: `judge/NAME/num_requests`."""
        total: Counter[str] = Counter()
        for function in self._functions.values():
            if isinstance(function, Counting):
                total.update(function.take_counts())
        return dict(total)

    def explain(self, request: RewardRequest) -> list[str]:
        """Return lines on how one request is read, graded and weighed.

        Raises:
            RewardError: As `score` does.
        """
        route, functions = self._routed(request.task, request.source)
        answer = extract_answer(request.response, self._config.format)
        result = self.score([request])[0]
        names = [part.function if route.is_sum else f"{part.function} with {part.parameters}" for part in route.parts]
        lines = [f"function   {' + '.join(names)}"]
        lines.append(f"format     {result.format_reward:g}, weighs {route.format_weight:g}")
        lines.append(f"answer     {_shortened(answer.text) if answer.text is not None else 'none'}")
        lines.append(f"reference  {_shortened(request.answer)}")
        said = dict(result.explanations)
        for part, function in zip(route.parts, functions, strict=True):
            if route.is_sum:
                lines.append(_part_line(part, result.breakdown))
            if isinstance(function, CompletionFunction):
                read = function.explain_completion(request, answer.text)
            elif answer.text is not None and result.reason is not Reason.BAD_GOLD and part.function in result.breakdown:
                read = function.explain(request, _as_read(answer.text, part))
            else:
                read = []
            lines.extend(f"           {line}" for line in read)
            if part.function in said:
                lines.append(f"           says: {_printable(said[part.function])}")
        lines.append(f"read as    {'nothing' if result.parsed_answer is None else _shortened(result.parsed_answer)}")
        lines.append(f"reason     {result.reason}: {result.reason.meaning}")
        if result.failure is not None:
            first, *trace = result.failure.splitlines()
            lines.extend([f"failure    {_printable(first)}", *(f"           {_printable(line)}" for line in trace)])
        if result.reward is None:
            return [*lines, "reward     none: masked from its group and counted"]
        assert result.task_reward is not None
        lines.append(f"task       {result.task_reward:.6g}, weighs {route.task_weight:g}")
        return [*lines, f"reward     {result.reward:.6g}"]

    def close(self) -> None:
        """End the grader processes, if any were started."""
        for function in self._functions.values():
            if isinstance(function, Closable):
                function.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _ask_ahead(self, requests: Sequence[RewardRequest]) -> None:
        """Ask each judge about all groups at once; asked about one after the other it would mostly wait."""
        from rewards.functions.judge import JudgeReward

        asked: dict[JudgeReward, list[tuple[RewardRequest, str | None]]] = {}
        for request in requests:
            answer = read_envelope(request.response, self._config.format).answer
            for function in self._routed(request.task, request.source)[1]:
                if isinstance(function, JudgeReward):
                    asked.setdefault(function, []).append((request, answer))
        for judge, members in asked.items():
            judge.ask_ahead([request for request, _ in members], [answer for _, answer in members])

    def _own_functions(self) -> list[OwnReward]:
        from rewards.functions.own import OwnReward

        return [function for function in self._functions.values() if isinstance(function, OwnReward)]

    def _routed(self, task: str, source: str) -> tuple[Route, tuple[AnyFunction, ...]]:
        """Return the route of such rows and the functions of its parts."""
        pair = (task, source)
        routed = self._routes.get(pair)
        if routed is not None:
            return routed
        route = self._config.route(*pair)
        if any(_key(part) not in self._functions for part in route.parts):
            raise RewardError(
                f"task {task!r} is routed to {route.function}, which needs a tokenizer and an embedding table: "
                "give MixedReward encode and embedding, or leave such rows out"
            )
        self._routes[pair] = route, tuple(self._functions[_key(part)] for part in route.parts)
        return self._routes[pair]

    def _score_group(self, requests: Sequence[RewardRequest]) -> list[RewardResult]:
        route, functions = self._routed(requests[0].task, requests[0].source)
        envelopes = [read_envelope(request.response, self._config.format) for request in requests]
        columns = [
            _grades(part, function, requests, envelopes) for part, function in zip(route.parts, functions, strict=True)
        ]
        return [
            _result(route, envelope.format_reward, grades)
            for envelope, *grades in zip(envelopes, *columns, strict=True)
        ]


def _grades(
    part: Part, function: AnyFunction, requests: Sequence[RewardRequest], envelopes: Sequence[Envelope]
) -> list[Grade]:
    """Grade a group by one function."""
    if isinstance(function, CompletionFunction):
        read = [envelope.answer for envelope in envelopes]
        grades = _grade_each(
            function,
            lambda rows: function.grade_completions([requests[row] for row in rows], [read[row] for row in rows]),
            range(len(requests)),
        )
        return [
            _with_reason(grade, envelope, request)
            for grade, envelope, request in zip(grades, envelopes, requests, strict=True)
        ]
    texts = [_as_read(envelope.answer, part) for envelope in envelopes if envelope.answer is not None]
    try:
        graded = iter(
            _grade_each(
                function, lambda rows: function.grade(requests[0], [texts[row] for row in rows]), range(len(texts))
            )
        )
    except GoldError as error:
        return [Grade(None, Reason.BAD_GOLD, failure=f"{part.function}: {error}")] * len(requests)
    return [
        next(graded) if envelope.answer is not None else _no_answer(envelope, request)
        for request, envelope in zip(requests, envelopes, strict=True)
    ]


def _with_reason(grade: Grade, envelope: Envelope, request: RewardRequest) -> Grade:
    """Return a grade that says so where a completion had no answer block."""
    if envelope.answer is not None or grade.value is None or grade.reason is not Reason.OK:
        return grade
    return grade._replace(reason=_no_answer(envelope, request).reason)


def _as_read(text: str, part: Part) -> str:
    """An answer as its function reads it: marks of objects and boxes mean something to grounding alone."""
    return text if part.function in ("grounding", "pointing") else without_marks(text)


def _no_answer(envelope: Envelope, request: RewardRequest) -> Grade:
    cut = request.truncated and envelope.reason is Reason.NO_ANSWER
    return Grade(0.0, Reason.TRUNCATED if cut else envelope.reason)


def _result(route: Route, format_value: float, grades: Sequence[Grade]) -> RewardResult:
    breakdown = {FORMAT: format_value}
    for part, grade in zip(route.parts, grades, strict=True):
        if grade.value is not None:
            breakdown[part.function] = grade.value
    failed = next((grade for grade in grades if grade.value is None), None)
    said = tuple((part.function, g.explanation) for part, g in zip(route.parts, grades, strict=True) if g.explanation)
    if failed is not None:
        return RewardResult(None, None, format_value, breakdown, failed.parsed, failed.reason, failed.failure, said)
    value = route.task_reward(breakdown)
    total = route.format_weight * format_value + route.task_weight * value
    reason = next((grade.reason for grade in grades if grade.reason is not Reason.OK), Reason.OK)
    parsed = next((grade.parsed for grade in grades if grade.parsed is not None), None)
    return RewardResult(total, value, format_value, breakdown, parsed, reason, None, said)


def _grade_each(
    function: AnyFunction, grade: Callable[[Sequence[int]], list[Grade]], rows: Sequence[int]
) -> list[Grade]:
    """Grade rows of a group; if that crashes, grade one by one, so that the crash stays with the row that caused it."""
    try:
        grades = grade(rows)
    except GoldError:
        raise
    except Exception as error:
        logger.debug("%s crashed", type(function).__name__, exc_info=True)
        if len(rows) <= 1:
            failure = f"{type(function).__name__}: {type(error).__name__}: {error}"
            return [Grade(None, Reason.GRADER_FAILED, failure=failure) for _ in rows]
        return [one for row in rows for one in _grade_each(function, grade, [row])]
    for one in grades:
        if one.value is not None and not 0.0 <= one.value <= 1.0:
            raise AssertionError(f"{type(function).__name__} gave {one.value}, outside of [0, 1]")
    return grades


def _shortened(text: str, limit: int = 300) -> str:
    return repr(text) if len(text) <= limit else f"{text[:limit]!r} ... ({len(text)} characters)"


def _printable(text: str) -> str:
    """Return a text in one line, with what would steer a terminal written out."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def _part_line(part: Part, breakdown: Mapping[str, float]) -> str:
    gates = "".join(f", where {name} is above {least:g}" for name, least in part.above)
    value = breakdown.get(part.function)
    return f"{part.function:<10} {'none' if value is None else f'{value:.6g}'}, weighs {part.weight:g}{gates}"


def _key(part: Part) -> tuple[str, str]:
    """Return what a built function is kept by: its name and parameters."""
    return part.function, repr(part.parameters)


def _build(part: Part) -> AnyFunction:
    """Build a function of a route; only modules of routed functions are imported."""
    if isinstance(part.parameters, OwnFunctionConfig):
        from rewards.functions.own import OwnReward

        return OwnReward(part.function, part.parameters)
    if isinstance(part.parameters, JudgeConfig):
        from rewards.functions.judge import JudgeReward

        return JudgeReward(part.parameters, part.function)
    module, _, name = (FUNCTIONS | PENALTIES)[part.function].partition(":")
    build: Callable[[FunctionConfig], AnyFunction] = getattr(importlib.import_module(module), name)
    return build(part.parameters)


def _build_open_ended(
    parameters: object, encode: Encode, embedding: EmbeddingTable | NDArray[np.float32]
) -> RewardFunction:
    from rewards.core.config import OpenEndedConfig
    from rewards.functions.embedding_table import EmbeddingTable
    from rewards.functions.open_ended import OpenEndedReward

    assert isinstance(parameters, OpenEndedConfig)
    table = embedding if isinstance(embedding, EmbeddingTable) else EmbeddingTable(embedding)
    return OpenEndedReward(parameters, encode, table)
