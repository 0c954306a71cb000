"""What another toolkit is given of a completion: the answer without think and answer tags."""

from rewards.answer import ANSWER_CLOSE, ANSWER_OPEN, THINK_CLOSE, THINK_OPEN, extract_answer, strip_end_of_turn
from rewards.parameters import FormatConfig

UNANSWERED = "[unanswered]"
"""Stands for no answer at all. An empty cell would be read back as NaN, and `no answer` as a no."""


def bare_answer(text: str) -> str:
    """Give the text of an answer as a scorer that knows no tags would want it.

    The one answer block, if there is one; else what follows the last think block, without tags. Two blocks come out
    one behind the other, so that a hedge stays a hedge. Thinking that never ended is no answer.

    Example:
        >>> bare_answer("<think>a</think><answer>B</answer>"), bare_answer("So it is B."), bare_answer("<think>B")
        ('B', 'So it is B.', '[unanswered]')
    """
    body = extract_answer(text, FormatConfig()).text
    if body is None:
        after = strip_end_of_turn(text).rpartition(THINK_CLOSE)[2]
        body = after.partition(THINK_OPEN)[0]
    for tag in (ANSWER_OPEN, ANSWER_CLOSE, THINK_OPEN, THINK_CLOSE):
        body = body.replace(tag, " ")
    return strip_end_of_turn(body) or UNANSWERED
