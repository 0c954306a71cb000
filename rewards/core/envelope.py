r"""The envelope of a response: what marks its answer, the reward for keeping to it, and the words that ask for it.

A style (`reward.format.style`) is asked for, written, paid and read here and nowhere else, so that prompt and readers
agree:

    tags    <think>It barks.</think><answer>dog</answer>
    boxed   It barks. \boxed{dog}
    json    It barks. {"answer": "dog"}
    none    dog

No text makes a reader slow: each goes over it a bounded number of times.
"""

import json
import re
from dataclasses import dataclass
from typing import NamedTuple

from rewards.core.base import Reason
from rewards.core.config import FormatConfig

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
INSTRUCTION_PLACE = "{format}"
"""Stands for the instruction of the style in `rollout.system_prompt`."""
MAX_OPENINGS = 32
"""Braces before the key of an answer at which its JSON object is looked for."""

_TRAILING_REVERSED = re.compile("(?:" + "|".join([r"\s", *(re.escape(marker[::-1]) for marker in END_OF_TURN)]) + ")*+")
"""From the end backwards, which a pattern cannot do by itself; possessive, so that it never goes back."""
_BOX = "\\boxed{"
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
"""A brace that groups, or any escaped character: `\\{` groups nothing."""
_KEY = re.compile(r'"answer"\s*:\s*')
_FENCE = "```"
_DECODER = json.JSONDecoder(strict=False, parse_int=str, parse_float=str)
"""Takes line breaks within strings; numbers of any length stay text."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The marked answer, or the reason why there is none."""

    text: str | None
    reason: Reason = Reason.OK


NO_ANSWER = Answer(None, Reason.NO_ANSWER)


def instruction(config: FormatConfig) -> str:
    r"""Return the sentence that asks a model for the form.

    Example:
        >>> instruction(FormatConfig(style="boxed"))
        'First think about the question, then give the final answer inside \\boxed{}.'
    """
    match config.style:
        case "tags":
            thought, answer = (
                f"{config.think_open} {config.think_close}",
                f"{config.answer_open} {config.answer_close}",
            )
            return f"First think about the question inside {thought}, then give the final answer inside {answer}."
        case "boxed":
            return "First think about the question, then give the final answer inside \\boxed{}."
        case "json":
            return (
                "First think about the question, then end with the final answer as a JSON object of this form: "
                '{"answer": ...}'
            )
        case "none":
            return "Give the final answer and nothing else."


def fill_instruction(prompt: str, config: FormatConfig) -> str:
    """Return a system prompt with the instruction in the place of `{format}`; other braces stay.

    Example:
        >>> fill_instruction("You read charts. {format}", FormatConfig(style="none"))
        'You read charts. Give the final answer and nothing else.'
    """
    return prompt.replace(INSTRUCTION_PLACE, instruction(config))


def unmentioned(prompt: str, config: FormatConfig) -> list[str]:
    r"""Return the marks that a reader needs and a prompt never mentions.

    Example:
        >>> unmentioned("Think, then answer in \\boxed{}.", FormatConfig())
        ['<think>', '<answer>']
    """
    match config.style:
        case "tags":
            asks_thought = not (config.think_prefilled or config.allow_empty_think)
            needed = [config.think_open, config.answer_open] if asks_thought else [config.answer_open]
        case "boxed":
            needed = ["\\boxed"]
        case "json":
            needed = ['"answer"']
        case "none":
            needed = []
    return [mark for mark in needed if mark not in prompt]


def write_response(answer: str, config: FormatConfig, *, think: str = ".") -> str:
    """Return a response that has the form, as a model would write it.

    Example:
        >>> write_response("dog", FormatConfig(style="json"), think="It barks.")
        'It barks. {"answer": "dog"}'
    """
    thought = f"{think}{config.think_close}" if config.think_prefilled else f"{think} "
    match config.style:
        case "tags":
            opening = "" if config.think_prefilled else config.think_open
            return f"{opening}{think}{config.think_close}{config.answer_open}{answer}{config.answer_close}"
        case "boxed":
            return f"{thought}{_BOX}{answer}}}"
        case "json":
            return thought + json.dumps({"answer": answer}, ensure_ascii=False)
        case "none":
            return thought + answer if config.think_prefilled else answer


def strip_end_of_turn(response: str) -> str:
    """Return the response without surrounding whitespace and without trailing end-of-turn markers."""
    response = response.strip()
    if not response.endswith(END_OF_TURN):
        return response
    trailing = _TRAILING_REVERSED.match(response[::-1])
    assert trailing is not None  # it matches nothing as well
    return response[: len(response) - trailing.end()].strip()


def extract_answer(response: str, config: FormatConfig) -> Answer:
    r"""Return the answer that follows the last think block.

    Args:
        response: The completion's text.
        config: Style and names of the tags; `think_prefilled` and `fallback`.

    Returns:
        The stripped body, or no text with NO_ANSWER (none, unclosed, blank, inside think) or, of tags, TWO_ANSWERS. Of
        several boxes or JSON objects the last one counts.

    Example:
        >>> extract_answer("<think>a</think><answer> B </answer>", FormatConfig()).text
        'B'
        >>> extract_answer(r"So it is $\boxed{\frac{1}{2}}$.", FormatConfig(style="boxed")).text
        '\\frac{1}{2}'
    """
    after_think, has_thought = after_thinking(response, config)
    match config.style:
        case "tags":
            answer = _tagged_answer(after_think, config)
        case "boxed":
            answer = _boxed_answer(after_think)
        case "json":
            found = _last_object(after_think)
            answer = None if found is None else _answer_of(found.answer)
        case "none":
            answer = _answer_of(after_think)
    if answer is not None:
        return answer
    body = after_think.strip() if has_thought and config.fallback == "after_think" else ""
    return Answer(body) if body else NO_ANSWER


def after_thinking(response: str, config: FormatConfig) -> tuple[str, bool]:
    """Return the text after the last think block, and whether there is such a block.

    Thinking that never ended, or began anew, hides whatever follows it.
    """
    text = strip_end_of_turn(response)
    if config.think_prefilled:
        text = config.think_open + text
    _, closing, after_think = text.rpartition(config.think_close)
    return after_think.partition(config.think_open)[0], bool(closing)


def _answer_of(body: str) -> Answer:
    body = strip_end_of_turn(body)
    return Answer(body) if body else NO_ANSWER


def _tagged_answer(text: str, config: FormatConfig) -> Answer | None:
    """Return the single answer block; None where there is no tag of one."""
    opening, closing = config.answer_open, config.answer_close
    num_open, num_close = text.count(opening), text.count(closing)
    if num_open == 0 and num_close == 0:
        return None
    if num_open > 1 or num_close > 1:
        return Answer(None, Reason.TWO_ANSWERS)
    start, end = text.find(opening), text.find(closing)
    return NO_ANSWER if start < 0 or end < start else _answer_of(text[start + len(opening) : end])


def _boxed_answer(text: str) -> Answer | None:
    """Return the body of the last box; None where there is none, no answer where it is not closed."""
    start = text.rfind(_BOX)
    if start < 0:
        return None
    start, depth = start + len(_BOX), 1
    for brace in _BRACE.finditer(text, start):
        if brace[0] == "{":
            depth += 1
        elif brace[0] == "}":
            depth -= 1
            if depth == 0:
                return _answer_of(text[start : brace.start()])
    return NO_ANSWER


class _Object(NamedTuple):
    """A JSON object with an answer, by its place in a text."""

    start: int
    end: int
    answer: str
    """As text: of a string its value, of anything else what is written; empty for null."""


def _last_object(text: str) -> _Object | None:
    """Return the innermost JSON object around the last key `answer`."""
    key, start = None, len(text)
    while key is None and (start := text.rfind('"answer"', 0, start)) >= 0:
        key = _KEY.match(text, start)
    if key is None:
        return None
    for _ in range(MAX_OPENINGS):
        start = text.rfind("{", 0, start)
        if start < 0:
            return None
        try:
            value, end = _DECODER.raw_decode(text, start)
            if end < key.end() or "answer" not in value:
                continue
            answer, answer_end = _DECODER.raw_decode(text, key.end())
        except (ValueError, RecursionError):
            continue
        written = "" if answer is None else text[key.end() : answer_end]
        return _Object(start, end, answer if isinstance(answer, str) else written)
    return None


def format_reward(response: str, config: FormatConfig) -> float:
    """Return the format reward: whether a response has the form that the style asks for.

    tags: `<think>..</think><answer>..</answer>` and nothing else. boxed: one box, closed and not blank. json: one
    object with an answer, at the end, bare or in a fence. none: always.

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
    match config.style:
        case "tags":
            return _tags_reward(response, config)
        case "boxed":
            return _box_reward(response, extract_answer(response, config), config)
        case "json":
            text, _ = after_thinking(response, config)
            found = _last_object(text)
            if found is None or not found.answer.strip() or _last_object(text[: found.start]) is not None:
                return 0.0
            return float(text[found.end :].strip() in ("", _FENCE))
        case "none":
            return 1.0


def _box_reward(response: str, answer: Answer, config: FormatConfig) -> float:
    text, _ = after_thinking(response, config)
    return float(text.count(_BOX) == 1 and answer.text is not None)


def _tags_reward(response: str, config: FormatConfig) -> float:
    think_open, think_close = config.think_open, config.think_close
    answer_open, answer_close = config.answer_open, config.answer_close
    text = strip_end_of_turn(response)
    if config.think_prefilled:
        text = think_open + text
    count = text.count
    if config.graded:
        return 0.25 * sum(count(tag) == 1 for tag in (think_open, think_close, answer_open, answer_close))
    if not text.startswith(think_open) or not text.endswith(answer_close):
        return 0.0
    if not count(think_open) == count(think_close) == count(answer_open) == count(answer_close) == 1:
        return 0.0
    think_end, answer_start = text.index(think_close), text.index(answer_open)
    if answer_start < think_end or text[think_end + len(think_close) : answer_start].strip():
        return 0.0
    think = text[len(think_open) : think_end].strip()
    answer = text[answer_start + len(answer_open) : -len(answer_close)].strip()
    return float(bool(answer) and (bool(think) or config.allow_empty_think))


class Envelope(NamedTuple):
    """An answer with its format reward."""

    answer: str | None
    """The marked answer; None where there is none that counts."""
    reason: Reason
    """OK, or why there is no answer."""
    format_reward: float


def read_envelope(response: str, config: FormatConfig) -> Envelope:
    """Return the results of `extract_answer` and `format_reward`, in one pass where a response has the asked tags.

    Example:
        >>> read_envelope("<think>It barks.</think><answer>dog</answer>", FormatConfig())
        Envelope(answer='dog', reason=<Reason.OK: 'ok'>, format_reward=1.0)
    """
    if config.style == "tags" and (answer := _asked_answer(response, config)):
        return Envelope(answer, Reason.OK, 1.0)
    found = extract_answer(response, config)
    value = _box_reward(response, found, config) if config.style == "boxed" else format_reward(response, config)
    return Envelope(found.text, found.reason, value)


def _asked_answer(response: str, config: FormatConfig) -> str:
    """Return the answer of a response that is exactly a think block and an answer block; empty for any other."""
    text, think_open, answer_close = strip_end_of_turn(response), config.think_open, config.answer_close
    think, _, rest = (think_open + text if config.think_prefilled else text).partition(config.think_close)
    between, opening, body = rest.partition(config.answer_open)
    if not (opening and think.startswith(think_open) and body.endswith(answer_close)) or between.strip():
        return ""
    think, body = think[len(think_open) :], strip_end_of_turn(body[: -len(answer_close)])
    # Every tag ends in one of these: a second one is for the functions that know all cases.
    ends = f"{config.think_tag}>", f"{config.answer_tag}>"
    is_once = not any(end in part for end in ends for part in (think, body))
    return body if is_once and think.strip() else ""
