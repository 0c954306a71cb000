"""The envelope of a response: where thinking ends, where the answer stands. Tags are found without any regex."""

import re
from dataclasses import dataclass

from rewards.base import Reason
from rewards.parameters import FormatConfig

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
    """Give the single answer block that follows the last think block.

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
    body = after_think[start + len(ANSWER_OPEN) : end].strip()
    return Answer(body) if body else Answer(None, Reason.NO_ANSWER)
