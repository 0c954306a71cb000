"""Which columns ask and which answer: turns, questions, expressions, captions; and how answers name options."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from orchestration.data.sources.any_task import ANY
from orchestration.data.sources.column_kinds import Column, Kind, plain_name, turns_of
from orchestration.data.sources.fields import RowError
from orchestration.data.sources.findings import NAMED, Findings
from orchestration.data.sources.mapping import build_mapping
from orchestration.data.sources.option_lists import OptionList
from orchestration.data.sources.streams import Record
from orchestration.data.sources.turns import REPLYING
from rewards.text.plain_text import normalise

TURNS = ("messages", "conversations", "conversation", "prompt", "message", "dialogue", "dialog", "chat", "turns")
QUESTIONS = (
    "question", "problem", "query", "instruction", "prompt", "question_text", "original_question", "user",
    "user_prompt", "input_text", "q",
)  # fmt: skip
CONTEXT = ("hint", "context", "passage", "input")
"""What stands with a question: the hint and the passage before it, the input of an instruction behind it."""
ANSWERS = (
    "ground_truth", "answer", "answers", "solution", "gt_answer", "gt", "gold_answer", "gold", "correct_answer",
    "correct_choice_idx", "correct_choice", "correct_option", "correct_index", "correct", "answer_key", "answer_idx",
    "answer_index", "label", "labels", "target", "targets", "multiple_choice_answer", "direct_answers", "direct_answer",
    "original_answer", "output", "response", "completion", "reply", "reference", "cls", "a",
)  # fmt: skip
COMPLETIONS = ("completion", "response", "chosen")
EXPRESSIONS = (
    "expression", "expressions", "referring_expression", "ref_exp", "sentence", "sentences", "ref", "refs", "phrase",
    "caption", "captions", "description", "normal_caption", "text", "label", "category", "class_name",
)  # fmt: skip
CAPTIONS = (
    "caption", "captions", "text", "txt", "description", "descriptions", "long_caption", "blip_caption", "alt_text",
    "detailed_caption", "sentence", "sentences",
)  # fmt: skip
HISTORIES = ("history", "chat_history", "dialog_history", "conversation_history")
ASK_BOX = "Give the bounding box of: {%s}"
ASK_CAPTION = "Describe this image in detail."


def find_question(found: Findings, boxes: Column | None) -> None:
    """Map what asks, where it is found: turns, a text with its context, an expression with a box, a caption."""
    if "question" in found.mapping:
        return
    turns = found.find(TURNS, "turns") or next((one for one in found.columns if found.is_free(one, "turns")), None)
    if turns is not None:
        found.put("question", turns.path(), "a list of turns", turns)
        _find_turns(found)
        return
    column = found.find(QUESTIONS, "text")
    if column is None and found.find(ANSWERS, "text", "truth", "number", "texts") is not None and boxes is None:
        column = found.find(("text", "input", "sentence", "statement"), "text")
    if column is not None:
        before = [one for one in (found.find((name,), "text") for name in CONTEXT) if one and one is not column]
        before = [one for one in before if len(one.steps) == 1]
        if before and all(one.name.replace(".", "").isidentifier() for one in (*before, column)):
            texts = {one.name: f"{{{one.name}?}}" for one in before}
            behind = [text for name, text in texts.items() if name.lower() == "input"]
            form = "\n".join([*(text for text in texts.values() if text not in behind), f"{{{column.name}}}", *behind])
            found.put("question", {"format": form}, NAMED, *before, column)
        else:
            found.put("question", column.path(), NAMED, column)
        _find_turns(found)
        return
    expression = found.find(EXPRESSIONS, "text", "texts", "objects") if boxes is not None else None
    if expression is not None:
        _ask(found, expression)
        return
    if boxes is None:
        _find_captions(found)
    if "question" in found.mapping:
        return
    free = [one for one in found.columns if found.is_free(one, "text") and plain_name(one.steps[-1]) not in ANSWERS]
    asking = [one for one in free if 2 * sum(map(_asks, one.present)) > len(one.present)]
    if asking:
        found.put("question", asking[0].path(), "texts that end with a question mark", asking[0])
        found.doubt(f"{asking[0].name} is taken as the question", "question=COLUMN")


def _asks(value: object) -> bool:
    return str(value).rstrip().endswith(("?", "\uff1f"))


def _ask(found: Findings, expression: Column) -> None:
    """Ask for the box of what a column names."""
    first = expression.present[0]
    steps = list(expression.steps)
    if isinstance(first, (list, tuple)):
        steps.append("0")
        first = first[0]
    if isinstance(first, Mapping):
        steps.append(next((key for key in ("sent", "raw", "text", "sentence") if key in first), "text"))
    path = ".".join(steps)
    found.put("question", {"format": ASK_BOX % path}, "what the box is of", expression)
    found.doubt(f"the question is {ASK_BOX % path!r}", f'question={{format: "{ASK_BOX % path}"}}')


def _find_turns(found: Findings) -> None:
    """Find what stands around the question where columns of their own hold it."""
    system = found.find(("system", "system_prompt", "system_message"), "text")
    if system is not None and len(system.steps) == 1:
        found.put("system", system.path(may_lack=True), NAMED, system)
    history = next((one for one in found.columns if one.name in HISTORIES and one.present), None)
    if history is not None:
        found.put("history", history.path(may_lack=True), NAMED, history)


def _find_captions(found: Findings) -> None:
    """Take pictures with a text and no question for captions."""
    caption = _caption(found)
    if caption is None or "answer" in found.mapping:
        return
    found.put("question", {"constant": ASK_CAPTION}, "pictures with captions")
    found.doubt(f"rows hold no question: {ASK_CAPTION!r} is asked", 'question={constant: "TEXT"}')
    _answer_with(found, caption)


def _caption(found: Findings) -> Column | None:
    return found.find(CAPTIONS, "text", "texts") if "images" in found.mapping else None


def _answer_with(found: Findings, caption: Column) -> None:
    found.put("answer", caption.path(*(["0"] if caption.is_mostly("texts") else [])), "a caption", caption)
    found.put("task", {"constant": "open"}, "captions are open-ended")


def find_answer(found: Findings, boxes: Column | None) -> None:
    """Map the answer or the boxes, where there are some; the reply of a conversation where nothing else answers."""
    if found.mapping.keys() & {"answer", "boxes"}:
        return
    column = _answer_column(found)
    if boxes is not None and (column is None or plain_name(boxes.steps[-1]) in ANSWERS):
        found.put("boxes", boxes.path(may_lack=not boxes.is_whole), "holds boxes", boxes)
        if boxes.is_whole:
            return
        column = None  # rows without boxes may have a reply
    if column is not None:
        found.put("answer", column.path(), NAMED, column)
        if boxes is not None:
            _drop_boxes(found)
            what = f"{boxes.name} is not read, as {column.name} is the answer"
            found.doubt(what, f"boxes={boxes.name} asks for boxes")
        return
    completion = found.find(COMPLETIONS, "turns")
    if completion is not None:
        found.put("answer", completion.path(), "the assistant's turn", completion)
        return
    turns = next((one for one in found.columns if one.path() == found.mapping["question"]), None)
    replies = [turns_of(value)[-1][0] in REPLYING for value in turns.present if turns_of(value)] if turns else []
    if turns is not None and 2 * sum(replies) > len(replies):
        found.put("answer", turns.path(), "the assistant's last turn", turns)
        return
    caption = _caption(found)
    question = found.mapping["question"]
    if caption is not None and isinstance(question, Mapping) and set(question) == {"constant"}:
        _answer_with(found, caption)


def _drop_boxes(found: Findings) -> None:
    for key in ("box_labels", "box_form", "box_frame", "box_image"):
        if found.reasons.get(key) != "set":
            found.mapping.pop(key, None)
            found.reasons.pop(key, None)
    found.uncertain = [sentence for sentence in found.uncertain if not sentence.startswith("boxes ")]


def _answer_column(found: Findings) -> Column | None:
    kinds: tuple[Kind, ...] = ("text", "texts", "number", "truth", "objects", "object", "box")
    verl = next((one for one in found.columns if one.name == "reward_model.ground_truth"), None)
    return verl if verl is not None and found.is_free(verl, *kinds) else found.find(ANSWERS, *kinds)


def how_answers_name_options(found: Findings, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return how answers name options: by letter, label or text (any), or by a number from 0 or 1."""
    if "options" not in found.mapping or "answer" not in found.mapping:
        return ANY
    constants = {"question": {"constant": "?"}, "task": {"constant": "match_mcq"}}
    mapping = build_mapping({**constants, **{key: found.mapping[key] for key in ("options", "answer")}})
    pairs: list[tuple[object, OptionList]] = []
    for row in rows:
        answer = mapping.references["answer"].of(row)
        try:
            read = mapping.options(Record("", row))
        except RowError:
            continue
        if read.texts and answer is not None and not is_unknown(answer):
            pairs.append((answer, read))
    numbers = [_number(answer) for answer, _ in pairs]
    if not pairs or any(number is None for number in numbers):
        return ANY
    named = [[*map(normalise, read.texts), *read.labels] for _, read in pairs]
    as_texts = sum(str(number) in names for number, names in zip(numbers, named, strict=True))
    spans = [(number or 0, len(read.places)) for number, (_, read) in zip(numbers, pairs, strict=True)]
    from_0 = all(0 <= number < size for number, size in spans)
    from_1 = all(1 <= number <= size for number, size in spans)
    least, most = min(number for number, _ in spans), max(number for number, _ in spans)
    if as_texts == len(pairs):
        if from_0 or from_1:
            found.doubt(f"answers {least} to {most} are taken as options of that text", "answer_is=index counts from 0")
        return ANY
    if from_0 or from_1:
        if from_0 and from_1:
            found.doubt(f"answers {least} to {most} are taken as positions from 0", "answer_is=index1 counts from 1")
        return "index" if from_0 else "index1"
    found.doubt(f"answers {least} to {most} are no positions of the options", "answer_is=index, index1 or option")
    return ANY


def is_unknown(answer: object) -> bool:
    """Return whether an answer is -1, as tables write that a place is not known."""
    return str(answer).strip() in ("-1", "-1.0")


def _number(answer: object) -> int | None:
    if isinstance(answer, bool):
        return None
    text = str(answer).strip().removesuffix(".0")
    return int(text) if re.fullmatch(r"[0-9]{1,3}", text) else None
