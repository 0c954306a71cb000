"""The envelope of a response: think block, answer block, and the reward for keeping to them.

Tags are found without any regex.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

from rewards.core.base import Reason
from rewards.core.config import FormatConfig

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"

END_OF_TURN = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<end_of_turn>",
    "<eos>",
    "</s>",
)
"""Markers that a decoder may leave behind; they are the engine's, not the model's text."""

_TRAILING_REVERSED = re.compile("(?:" + "|".join([r"\s", *(re.escape(marker[::-1]) for marker in END_OF_TURN)]) + ")*+")
"""From the end backwards, which a pattern cannot do by itself; possessive, so that it never goes back."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The body of the answer block, or the reason why there is none."""

    text: str | None
    reason: Reason = Reason.OK


def strip_end_of_turn(response: str) -> str:
    """Return the response without surrounding whitespace and without trailing end-of-turn markers."""
    response = response.strip()
    if not response.endswith(END_OF_TURN):
        return response
    trailing = _TRAILING_REVERSED.match(response[::-1])
    assert trailing is not None  # it matches nothing as well
    return response[: len(response) - trailing.end()].strip()


def extract_answer(response: str, config: FormatConfig) -> Answer:
    """Return the single answer block that follows the last think block.

    Args:
        response: The completion's text.
        config: `think_prefilled` and `fallback` are read.

    Returns:
        The stripped body, or no text with NO_ANSWER (none, unclosed, blank, inside think) or TWO_ANSWERS.

    Example:
        >>> extract_answer("<think>a</think><answer> B </answer>", FormatConfig()).text
        'B'
    """
    text = strip_end_of_turn(response)
    if config.think_prefilled:
        text = THINK_OPEN + text
    _, closing, after_think = text.rpartition(THINK_CLOSE)
    if THINK_OPEN in after_think:
        # Thinking never ended (or began anew): whatever follows is still thought, not an answer.
        after_think = after_think[: after_think.index(THINK_OPEN)]
    num_open, num_close = after_think.count(ANSWER_OPEN), after_think.count(ANSWER_CLOSE)
    if num_open == 0 and num_close == 0 and closing and config.fallback == "after_think":
        body = after_think.strip()
        return Answer(body) if body else Answer(None, Reason.NO_ANSWER)
    if num_open > 1 or num_close > 1:
        return Answer(None, Reason.TWO_ANSWERS)
    start, end = after_think.find(ANSWER_OPEN), after_think.find(ANSWER_CLOSE)
    if start < 0 or end < start:
        return Answer(None, Reason.NO_ANSWER)
    body = strip_end_of_turn(after_think[start + len(ANSWER_OPEN) : end])
    return Answer(body) if body else Answer(None, Reason.NO_ANSWER)


TAGS = (THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE)


def format_reward(response: str, config: FormatConfig) -> float:
    """Return the format reward: whether a response has the form `<think>..</think><answer>..</answer>`.

    Args:
        response: The completion's text; trailing end-of-turn markers are ignored.
        config: Variants; see FormatConfig.

    Returns:
        0 or 1; with `config.graded` a multiple of 0.25.

    Source:
        The graded variant is V-Triune, equation 4.

    Example:
        >>> format_reward("<think>It barks.</think><answer>dog</answer>", FormatConfig())
        1.0
    """
    text = strip_end_of_turn(response)
    if config.think_prefilled:
        text = THINK_OPEN + text
    if config.graded:
        return 0.25 * sum(text.count(tag) == 1 for tag in TAGS)
    if not text.startswith(THINK_OPEN) or not text.endswith(ANSWER_CLOSE):
        return 0.0
    count = text.count
    if not count(THINK_OPEN) == count(THINK_CLOSE) == count(ANSWER_OPEN) == count(ANSWER_CLOSE) == 1:
        return 0.0
    think_end, answer_start = text.index(THINK_CLOSE), text.index(ANSWER_OPEN)
    if answer_start < think_end or text[think_end + len(THINK_CLOSE) : answer_start].strip():
        return 0.0
    think = text[len(THINK_OPEN) : think_end].strip()
    answer = text[answer_start + len(ANSWER_OPEN) : -len(ANSWER_CLOSE)].strip()
    return float(bool(answer) and (bool(think) or config.allow_empty_think))


class Envelope(NamedTuple):
    """An answer with its format reward."""

    answer: str | None
    """Body of the answer block; None where there is none that counts."""
    reason: Reason
    """OK, or why there is no answer."""
    format_reward: float


def read_envelope(response: str, config: FormatConfig) -> Envelope:
    """Return the results of `extract_answer` and `format_reward`, in one pass where a response has the asked form.

    Example:
        >>> read_envelope("<think>It barks.</think><answer>dog</answer>", FormatConfig())
        Envelope(answer='dog', reason=<Reason.OK: 'ok'>, format_reward=1.0)
    """
    text = strip_end_of_turn(response)
    think, _, rest = (THINK_OPEN + text if config.think_prefilled else text).partition(THINK_CLOSE)
    between, opening, body = rest.partition(ANSWER_OPEN)
    if opening and think.startswith(THINK_OPEN) and body.endswith(ANSWER_CLOSE) and not between.strip():
        think, body = think[len(THINK_OPEN) :], strip_end_of_turn(body[: -len(ANSWER_CLOSE)])
        # Every tag ends in one of these: a second one is for the functions that know all cases.
        is_once = not ("think>" in think or "answer>" in think or "think>" in body or "answer>" in body)
        if is_once and body and think.strip():
            return Envelope(body, Reason.OK, 1.0)
    answer = extract_answer(response, config)
    return Envelope(answer.text, answer.reason, format_reward(response, config))
