"""Format reward: 1 for exactly one think block and then exactly one answer block, both non-blank, nothing else."""

from rewards.answer import ANSWER_CLOSE, ANSWER_OPEN, THINK_CLOSE, THINK_OPEN, strip_end_of_turn
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
