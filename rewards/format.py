"""Format reward: 1 for exactly one think block and then exactly one answer block, both non-blank, nothing else."""

from typing import NamedTuple

from rewards.answer import ANSWER_CLOSE, ANSWER_OPEN, THINK_CLOSE, THINK_OPEN, extract_answer, strip_end_of_turn
from rewards.base import Reason
from rewards.parameters import FormatConfig

TAGS = (THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE)


def format_reward(response: str, config: FormatConfig) -> float:
    """Give how well a response keeps to `<think>..</think><answer>..</answer>`.

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
    """What stands around an answer, and the answer."""

    answer: str | None
    """Body of the answer block; None where there is none that counts."""
    reason: Reason
    """OK, or why there is no answer."""
    format_reward: float


def read_envelope(response: str, config: FormatConfig) -> Envelope:
    """Return what `extract_answer` and `format_reward` say of a response; of one in the asked form by one reading.

    Example:
        >>> read_envelope("<think>It barks.</think><answer>dog</answer>", FormatConfig())
        Envelope(answer='dog', reason=<Reason.OK: 'ok'>, format_reward=1.0)
    """
    text = strip_end_of_turn(response)
    think, _, rest = (THINK_OPEN + text if config.think_prefilled else text).partition(THINK_CLOSE)
    between, opening, body = rest.partition(ANSWER_OPEN)
    if opening and think.startswith(THINK_OPEN) and body.endswith(ANSWER_CLOSE) and not between.strip():
        think, body = think[len(THINK_OPEN) :], body[: -len(ANSWER_CLOSE)].strip()
        # Every tag ends in one of these: a second one is for the functions that know all cases.
        is_once = not ("think>" in think or "answer>" in think or "think>" in body or "answer>" in body)
        if is_once and body and think.strip():
            return Envelope(body, Reason.OK, 1.0)
    answer = extract_answer(response, config)
    return Envelope(answer.text, answer.reason, format_reward(response, config))
