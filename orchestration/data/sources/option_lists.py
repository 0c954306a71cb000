"""Options in the forms in which rows hold them, and which option a label or a place names."""

import ast
import io
import json
import re
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from orchestration.data.sources.answers import LETTERS, bare_letter, letter
from orchestration.data.sources.fields import RowError, as_answer, as_texts, is_missing, refuse, shown
from orchestration.data.sources.question_options import options_in
from orchestration.data.sources.rows import RejectReason

MAX_LIST_CHARS = 20_000
"""Characters of a list written as text; the longest real ones have a few thousand."""
LABEL_KEYS = ("label", "key", "id", "letter")
TEXT_KEYS = ("text", "content", "value", "option", "choice")
_LABELLED = re.compile(r"[(\[]?([A-Za-z])[)\].:]+\s*(\S.*)", re.DOTALL)
_OWN_LABEL = re.compile(r"[(\[]?(?:([A-Za-z])|(\d{1,2}))(?:[)\]]\s*|\.\s+)(\S.*)", re.DOTALL)
_ADJACENT = re.compile(r"[\"']\s+[\"']")
"""Between two texts of a list that NumPy printed."""

Entry = tuple[str, object]
"""Label, empty where there is none, and value of an option."""


@dataclass(frozen=True, slots=True)
class OptionList:
    """The options of a row without the empty ones, and what names them."""

    texts: tuple[str, ...] = ()
    labels: Mapping[str, int] = field(default_factory=dict)
    """By label in small letters, and by letter where labels are none: index in `texts`. Empty where the row gives no
    labels and leaves no place empty, so that the letters are those of the row."""
    places: tuple[int | None, ...] = ()
    """By place in the row, empty options counted: index in `texts`, None of an empty option."""

    def named(self, answer: str, *, by: Literal["label", "place"]) -> str:
        """Return an answer whose letters are those of `texts`.

        Args:
            answer: A label, several (`A, C`), a label with the option's text, or another text, which is returned as it
                is.
            by: Whether a letter is a label of the row, or says the place from A.

        Raises:
            RowError: ANSWER_NOT_IN_OPTIONS, for a letter that is neither label nor option.

        Example:
            >>> read_options({"A": "cat", "B": None, "C": "cow"}, "options").named("C", by="label")
            'B'
        """
        if by == "place" and self.places == tuple(range(len(self.texts))):
            return answer
        if by == "place":
            letters = answer.split(", ")
            if not all(one in LETTERS for one in letters):
                return answer
            return ", ".join(self._letter(self._at(LETTERS.index(one)), one) for one in letters)
        if not self.labels:
            return answer
        known = self._of_label(answer)
        if known is not None:
            return letter(known)
        several = [one for one in re.split(r"\s*(?:[,;&]|\band\b)\s*|\s+", answer.strip("[]() ")) if one]
        if len(several) > 1 and all(len(one) == 1 for one in several):
            return ", ".join(self._letter(self._of_label(one), one) for one in several)
        labelled = _LABELLED.fullmatch(answer.strip())
        place = self.labels.get(labelled[1].casefold()) if labelled else None
        if place is not None and labelled is not None and self.texts[place].strip() == labelled[2].strip():
            return letter(place)
        if bare_letter(answer) is not None and answer.strip() not in self.texts:
            return self._letter(None, answer)
        return answer

    def lettered(self, answers: Sequence[str]) -> str:
        """Return the options that several answers name, each by label or text, as letters; one answer as `named`."""
        found = [self.named(answer, by="label") for answer in answers]
        if len(found) == 1:
            return found[0]
        moved = [letter(self.texts.index(one)) if one in self.texts else one for one in found]
        return ", ".join(dict.fromkeys(moved))

    def _of_label(self, text: str) -> int | None:
        found = self.labels.get(text.strip().casefold())
        bare = bare_letter(text)
        return self.labels.get(bare.casefold()) if found is None and bare is not None else found

    def _at(self, place: int) -> int | None:
        return self.places[place] if place < len(self.places) else None

    def _letter(self, index: int | None, named: str) -> str:
        if index is None:
            spelled = "; ".join(f"{letter(place)} {text[:30]!r}" for place, text in enumerate(self.texts))
            raise RowError(RejectReason.ANSWER_NOT_IN_OPTIONS, f"the answer {named!r} names none of {spelled}")
        return letter(index)


def read_options(value: object, name: str, *, are_columns: bool = False) -> OptionList:
    """Read options: a list, an object by label, labels beside texts, columns, or the text of one of these.

    Null, NaN and empty texts are no options, and move no label: of `{"A": "cat", "B": null, "C": "cow"}` C is cow.

    Args:
        value: Of the row; None is no options.
        name: Of its field, for messages.
        are_columns: Whether `value` holds columns of the row by name; what their names have in common is no label.

    Raises:
        RowError: It is none of these.

    Example:
        >>> read_options("['cat', 'dog']", "options").texts
        ('cat', 'dog')
        >>> read_options({"label": ["A", "B"], "text": ["cat", "dog"]}, "options").texts
        ('cat', 'dog')
    """
    entries = _column_entries(value) if are_columns and isinstance(value, Mapping) else _entries(value, name)
    entries = _with_own_labels(entries)
    kept = [place for place, (_, text) in enumerate(entries) if not _is_empty(text)]
    texts = tuple(as_answer(entries[place][1], f"{name}[{place}]") for place in kept)
    labels = {entries[place][0].strip().casefold(): index for index, place in enumerate(kept) if entries[place][0]}
    places = tuple(kept.index(place) if place in kept else None for place in range(len(entries)))
    if labels and len(labels) < len(kept):
        raise RowError(RejectReason.UNREADABLE_ROW, f"{name} has one label for several options, or one without")
    if labels or kept != list(range(len(kept))):
        if are_columns and isinstance(value, Mapping):
            names = [str(column).casefold() for column in value]
            labels = {**{names[place]: index for index, place in enumerate(kept)}, **labels}
        if not any(len(label) == 1 and label.isalpha() for label in labels):
            labels = {**{letter(place).casefold(): index for index, place in enumerate(kept)}, **labels}
    return OptionList(texts, labels, places)


def python_list(text: str, name: str) -> tuple[str, ...]:
    """Read a list of texts that is written as Python source, without running anything.

    Raises:
        RowError: UNREADABLE_ROW, also for lists longer than MAX_LIST_CHARS.
    """
    value = _literal(text)
    if not isinstance(value, list):
        raise RowError(RejectReason.UNREADABLE_ROW, f"{name} is {shown(text)}; it should be a list of texts")
    return as_texts(value, name)


def written_list(text: str) -> list[object] | None:
    """Return the list that a text writes in JSON or Python; None where it writes none.

    Example:
        >>> written_list('["a", null]'), written_list("['a', 2]"), written_list("a, b")
        (['a', None], ['a', 2], None)
    """
    value = _written(text) if text.lstrip().startswith("[") else None
    return value if isinstance(value, list) else None


def _written(text: str) -> object:
    if len(text) > MAX_LIST_CHARS:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _literal(text)


def _literal(text: str) -> object:
    """Return the value of Python source; texts beside each other, as NumPy prints them, are items of their own."""
    try:
        if len(text) > MAX_LIST_CHARS:
            return None
        text = text.strip()
        return ast.literal_eval(_with_commas(text) if _ADJACENT.search(text) else text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, tokenize.TokenError):
        return None


def _with_commas(text: str) -> str:
    """Return Python source with a comma between two texts that have nothing but space between them."""
    tokens = [one for one in tokenize.generate_tokens(io.StringIO(text).readline) if one.type != tokenize.NL]
    lines = text.splitlines(keepends=True)
    for one, other in reversed(list(pairwise(tokens))):
        if one.type == other.type == tokenize.STRING:
            row, column = one.end
            lines[row - 1] = f"{lines[row - 1][:column]},{lines[row - 1][column:]}"
    return "".join(lines)


def _entries(value: object, name: str) -> list[Entry]:
    """Return labels and values of options in the order of the row; of an object, in the order of its labels."""
    if is_missing(value) or value == "":
        return []
    if isinstance(value, str):
        return _text_entries(value, name)
    if isinstance(value, Mapping):
        labels, texts = _first_of(value, LABEL_KEYS, plural=True), _first_of(value, TEXT_KEYS, plural=True)
        if isinstance(labels, (list, tuple)) and isinstance(texts, (list, tuple)):
            if len(labels) != len(texts):
                raise RowError(RejectReason.UNREADABLE_ROW, f"{name} has {len(labels)} labels for {len(texts)} texts")
            return [(as_answer(label, name), text) for label, text in zip(labels, texts, strict=True)]
        named = {str(label): text for label, text in value.items()}
        return [(label, named[label]) for label in sorted(named, key=lambda label: (len(label), label))]
    if not isinstance(value, (list, tuple)):
        return refuse(name, value, "a list of texts, or an object by label")
    return [entry for item in value for entry in _item_entries(item, name)]


def _item_entries(item: object, name: str) -> list[Entry]:
    """Return the entry of an item: a text, an object of label and text, or one of `{label: text}`."""
    if not isinstance(item, Mapping):
        return [("", item)]
    text = _first_of(item, TEXT_KEYS)
    if text is not None:
        label = _first_of(item, LABEL_KEYS)
        return [("" if label is None else as_answer(label, name), text)]
    if len(item) == 1:
        return [(str(label), text) for label, text in item.items()]
    return refuse(name, item, "a list of texts")


def _text_entries(text: str, name: str) -> list[Entry]:
    written = _written(text) if text.lstrip().startswith(("[", "{")) else None
    if isinstance(written, (list, Mapping)):
        return _entries(written, name)
    found = options_in(f"?\nOptions:\n{text}")
    if found is None or found[0] != "?":
        return refuse(name, text, "a list of texts")
    return [("", option) for option in found[1]]


def _column_entries(columns: Mapping[object, object]) -> list[Entry]:
    names = [str(name) for name in columns]
    shared = _shared_prefix(names)
    return [(name[shared:].strip("_ -."), value) for name, value in zip(names, columns.values(), strict=True)]


def _shared_prefix(names: Sequence[str]) -> int:
    """Return the length of what all names begin with: `option_` of option_a, option_b."""
    first, last = min(names), max(names)
    same = next((index for index, char in enumerate(first) if index >= len(last) or char != last[index]), len(first))
    return same if len(names) > 1 and all(len(name) > same for name in names) else 0


def _first_of(value: Mapping[object, object], keys: Sequence[str], *, plural: bool = False) -> object:
    names = [name for key in keys for name in ((key, f"{key}s") if plural else (key,))]
    return next((value[name] for name in names if value.get(name) is not None), None)


def _with_own_labels(entries: list[Entry]) -> list[Entry]:
    """Return options with the labels that their texts begin with, where these are no letters from A on in order.

    Numbers, as in `1. cat`, stay in the texts. Letters that are in order are taken off by stage normalise.
    """
    texts = [text for label, text in entries if not label and isinstance(text, str) and text.strip()]
    if len(texts) < 2 or len(texts) < sum(not _is_empty(text) for _, text in entries):
        return entries
    labelled = [found for text in texts if (found := _OWN_LABEL.fullmatch(text.strip()))]
    numbers = [found[2] for found in labelled if found[2]]
    if len(numbers) == len(texts) and list(map(int, numbers)) in ([*range(len(texts))], [*range(1, len(texts) + 1)]):
        names = iter(numbers)
        return [("" if _is_empty(text) else next(names), text) for _, text in entries]
    letters = [found[1].upper() for found in labelled if found[1]]
    if (
        len(set(letters)) < len(texts)
        or letters == list(LETTERS[: len(texts)])
        or set(letters) - set(LETTERS[: len(entries)])
    ):
        return entries
    own = iter(labelled)
    return [("", text) if _is_empty(text) else ((found := next(own))[1], found[3]) for _, text in entries]


def _is_empty(value: object) -> bool:
    return is_missing(value) or (isinstance(value, str) and not value.strip())
