"""The task of a row by what it has: options, boxes, the kind of its answer, and what its set is called."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestration.data.sources.answers import ANSWER_KEYS, LETTERS, between_tags, chart_type, is_quantity
from orchestration.data.sources.fields import RowError, is_number, shown
from orchestration.data.sources.option_lists import written_list
from orchestration.data.sources.rows import RejectReason
from rewards.core.config import DEFAULT_ROUTES
from rewards.text.formulas import read_formula
from rewards.text.yes_no import read_yes_no

ANY = "any"
"""Name of this rule in `task: {by_answer: any}`."""
SETTLED = ("match_yesno", "match_mcq", "match_text", "iou", "pointing", "counting", "ocr")
"""Names of tasks that a hint settles; math, chart and open are names of fields too."""
MAX_MATH_CHARS = 128
LONG_WORDS = 8
"""From so many words on a text is compared by what it says, not word for word."""
SENTENCE_WORDS = 5
"""The same of a text that ends like a sentence."""
_FAMILIES = {
    "open": r"captions?\w*|docci|detailed|sharegpt4v|descriptions?|descriptive|conversation",
    "ocr": r"(?:text|doc|st|est|ocr|info|infographics?|scene_?text)[_-]?vqa|ocr\w*|docmatix|sroie|funsd|receipts?",
    "pointing": r"gui|ui|screen_?spot\w*|seeclick|os_?atlas|click\w*|pointing|mind2web",
    "counting": r"count(?:ing|s|qa|bench\w*)?|tally\w*|clevr_?count\w*|super_?clevr|crowd\w*",
    "math": r"math[a-z]*\d*|geo(?:metry|metric|qa\w*|3k|170k|s|meverse)|geometry3k|uni_?geo|pgps\w*|inter_?gps|algebra"
    r"|arithmetic|calculus|trigonometry|gsm8k|mmk12|k12|we_?math|clevr_?math|aime\d*|amc\d*|olympiad\w*|numina\w*",
    "chart": r"charts?|chart_?(?:qa|x|bench|gemma|llama|vqa)\w*|plots?|plotqa|figures?|figureqa|fig_?qa|dvqa"
    r"|tab_?mwp|reach_?qa",
}
"""By task: names and parts of names of sets that ask for it, whole between signs that are no letters."""
_KNOWN = {task: re.compile(rf"(?<![a-z])(?:{names})(?![a-z])", re.IGNORECASE) for task, names in _FAMILIES.items()}
_LATEX = re.compile(
    r"\\[A-Za-z]+|\^|[\u221a\u03c0\u2220\u00b0\u2264\u2265]|_\{|\$[^$]+\$|^\s*[a-z]\s*=\s*\S", re.IGNORECASE
)
_HOW_MANY = re.compile(r"\bhow\s+many\b|\bcount\s+the\b|\bnumber\s+of\b", re.IGNORECASE)
_DEGREES = re.compile(r"\bhow\s+many\s+(?:degrees|radians|percent|dollars|times|ways)\b", re.IGNORECASE)
_WHOLE = re.compile(r"[0-9]{1,4}")
_NUMBER = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,15})?")
_SENTENCE_END = re.compile(r"[.!\u3002]\s*$")
_CJK = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")
_IN_BRACKETS = re.compile(r"\s*(?:<answer>|```json)?\s*\[")
_FORMULA = re.compile(r"[0-9a-zA-Z\s+\-*/()^=.,:<>|%]*")


@dataclass(frozen=True, slots=True)
class RowTask:
    """What a row asks for."""

    task: str
    answer: str
    """As the task's reward reads it."""
    answer_type: str = ""
    doubt: str = ""
    """What else it may be, for a message; empty where that is clear."""


def hinted_task(hint: str) -> str:
    """Return the task that the name of a set, a field of knowledge or a file says; empty if it says none.

    Example:
        >>> hinted_task("hiyouga/geometry3k"), hinted_task("data/chartqa_train.json"), hinted_task("geography")
        ('math', 'chart', '')
    """
    hint = hint.strip().replace("\\", "/")
    if hint in DEFAULT_ROUTES:
        return hint
    tail = "/".join(hint.split("/")[-2:])
    return next((task for task, known in _KNOWN.items() if known.search(tail)), "")


def task_of_row(question: str, answer: str, options: Sequence[str], *, has_boxes: bool, hint: str = "") -> RowTask:
    """Return the task of a row.

    Options are multiple choice, boxes are IoU, or pointing where the hint says so, yes and no are yes/no. The hint
    decides between math, charts, counts and texts read from an image; without one LaTeX is math, a whole number that
    `How many` asks for a count, another number math, a sentence open-ended, and what is left a text to match.

    Args:
        question: Without the options that it may list.
        answer: A text, or several accepted ones as a JSON list. Of yes/no and of numbers the one that more than half
            of them give counts, as accepting all would reward a wrong one; of sentences the first.
        options: Of the row or of its question.
        has_boxes: Whether the row has reference boxes.
        hint: What its set is called; `match_mcq` and others of SETTLED hold as they are.

    Example:
        >>> task_of_row("How many dogs?", "3", (), has_boxes=False).task
        'counting'
        >>> task_of_row("What is the brand?", '["nokia", "Nokia"]', (), has_boxes=False).task
        'match_text'
    """
    named = hinted_task(hint)
    if hint.strip() in SETTLED:
        return RowTask(named, answer)
    if options:
        return RowTask("match_mcq", answer)
    if has_boxes:
        return RowTask("pointing" if named == "pointing" else "iou", answer)
    several = _several(answer)
    if several and named != "chart":
        return _of_several(question, answer, several, named)
    return _of_one(question, answer, named)


def check_alternatives(value: object, name: str, hint: str) -> None:
    """Check that a list of answers can be one of several accepted ones.

    Raises:
        RowError: It holds different numbers, all of which may be one answer, and is of no set of charts.
    """
    is_several = isinstance(value, (list, tuple)) and any(map(is_number, value)) and len({*map(str, value)}) > 1
    if is_several and hinted_task(hint) != "chart":
        what = "is a list of numbers, and whether one or all of them are right is not known"
        raise RowError(RejectReason.UNREADABLE_ROW, f"{name} {what}: map a task for all rows, {{constant: chart}}")


def one_of_repeated(answer: str) -> str:
    """Return the one answer that several people gave to a question about a chart; any other answer as it is.

    Raises:
        RowError: A list repeats some answers: the parts of one, or what several people say.

    Example:
        >>> one_of_repeated('["nokia", "Nokia", "nokia"]'), one_of_repeated('["cat", "dog"]')
        ('nokia', '["cat", "dog"]')
    """
    several = _several(answer)
    said = {text.strip().casefold() for text in several}
    if len(said) == len(several):
        return answer
    if len(said) == 1 and len(several) > 2:
        return several[0]
    raise RowError(
        RejectReason.UNREADABLE_ROW,
        f"the answer {answer[:80]} repeats itself, and whether it lists parts or what several people say is not known: "
        "map answer_type {constant: list} for parts, or task {constant: match_text} where any of them is right",
    )


def check_brackets(value: object, name: str, hint: str) -> None:
    """Check that an answer is not a text of numbers or boxes in brackets, which tasks read in different ways.

    Raises:
        RowError: It is one, and of no set of charts or mathematics.
    """
    if not isinstance(value, str) or not _IN_BRACKETS.match(value) or hinted_task(hint) in ("chart", "math"):
        return
    written = written_list(between_tags(value).strip().removeprefix("```json").strip("`\n ")) or []
    if any(is_number(one) or isinstance(one, (list, Mapping)) for one in written) and not _are_answers(written):
        what = "may be a box, a point, an interval or a list of values: map a task for all rows, {constant: iou},"
        raise RowError(
            RejectReason.UNREADABLE_ROW, f"{name} is {shown(value)}, which {what} {{constant: math}} or another"
        )


def _are_answers(values: Sequence[object]) -> bool:
    """Return whether a list holds accepted answers as objects, as VQA has them."""
    return all(isinstance(one, Mapping) and set(one) & set(ANSWER_KEYS) for one in values)


def _of_one(question: str, answer: str, named: str) -> RowTask:
    text = answer.strip()
    if _says_yes_or_no(text):
        return RowTask("match_yesno", text)
    if named in ("chart", "ocr"):
        return _typed(named, question, answer)
    if named == "open" or (not _LATEX.search(text) and _is_long(text)):
        return RowTask("open", answer)
    is_plain = _NUMBER.fullmatch(text) is not None
    is_number = is_plain or (is_quantity(text) and any(map(str.isdigit, text)))  # `eight` may be what a sign says
    if _is_count(text) and (named == "counting" or (named != "math" and _asks_how_many(question))):
        return RowTask("counting", text)
    if _LATEX.search(text) or (named == "math" and _is_formula(text)):
        return RowTask("math", answer)
    if is_number:
        if named == "math" or is_plain or read_formula(text, MAX_MATH_CHARS)[0] is not None:
            doubt = "" if named == "math" else "a number, taken as math"
            return RowTask("math", answer, doubt=doubt)
        return RowTask("chart", answer, "number", "a number with a unit, taken as chart")
    if len(text) == 1 and text.upper() in LETTERS:
        return RowTask("match_text", answer, doubt="a letter without options, taken as a text")
    return RowTask("match_text", answer)


def _of_several(question: str, answer: str, several: Sequence[str], named: str) -> RowTask:
    """Return the task of a row with several accepted answers."""
    kinds = [_of_one(question, text, named) for text in several]
    most, count = Counter(kind.task for kind in kinds).most_common(1)[0]
    if named == "ocr" or most in ("match_text", "ocr") or count * 2 <= len(kinds):
        return RowTask("ocr" if named == "ocr" else "match_text", answer)
    if most == "open":
        return next(kind for kind in kinds if kind.task == "open")
    of_kind = [(kind, kind.answer.strip().casefold().rstrip(".")) for kind in kinds if kind.task == most]
    said, times = Counter(text for _, text in of_kind).most_common(1)[0]
    if times * 2 <= len(of_kind):  # of yes and no, which stage normalise refuses
        return RowTask("match_yesno" if most == "match_yesno" else "match_text", answer)
    return next(kind for kind, text in of_kind if text == said)


def _typed(task: str, question: str, answer: str) -> RowTask:
    return RowTask(task, answer, chart_type(question, answer) if task == "chart" else "")


def _several(answer: str) -> list[str]:
    """Return the texts of a JSON list; empty if it is none."""
    if not answer.startswith("["):
        return []
    try:
        values = json.loads(answer)
    except (ValueError, RecursionError):
        return []
    return values if isinstance(values, list) and values and all(isinstance(one, str) for one in values) else []


def _is_count(text: str) -> bool:
    return _WHOLE.fullmatch(text) is not None or (text.isalpha() and is_quantity(text))


def _says_yes_or_no(text: str) -> bool:
    return text.rstrip(".").casefold() in ("yes", "no", "true", "false") and read_yes_no(text)[0] is not None


def _asks_how_many(question: str) -> bool:
    return _HOW_MANY.search(question) is not None and _DEGREES.search(question) is None


def _is_long(text: str) -> bool:
    num_words = len(text) // 2 if _CJK.search(text) else len(text.split())
    return num_words >= LONG_WORDS or (num_words >= SENTENCE_WORDS and _SENTENCE_END.search(text) is not None)


def _is_formula(text: str) -> bool:
    """Return whether a text is a number, a formula or one variable, in the words of a set of mathematics."""
    has_sign = any(char.isdigit() or char in "+*/=^<>" for char in text)
    is_plain = _FORMULA.fullmatch(text) is not None and not re.search(r"[A-Za-z]{4,}", text)
    return (has_sign and is_plain) or (is_quantity(text) and read_formula(text, MAX_MATH_CHARS)[0] is not None)
