"""Options and reference of a multiple-choice row: clean texts, the answer as a letter, a random order."""

import hashlib
import random
import re
import string
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestration.data.sources.question_options import options_in
from orchestration.data.sources.rows import Refused, RejectReason
from rewards.core.base import GoldError
from rewards.text.choices import Choices
from rewards.text.plain_text import normalise as comparable

LETTERS = string.ascii_uppercase
_STORED_LABEL = re.compile(r"\(?([A-Za-z])[).:]+\s+(?=\S)|\(([A-Za-z])\)\s*(?=\S)")
_OTHERS = r"(?:above|below|these|those|them|others|options?|choices?|answers?|statements?)"
_PHRASE = re.compile(
    rf"\b(?:all|none|both|neither|either|any|each|some|one|two|three|more than one)(?: of)?(?: the)? {_OTHERS}\b"
    r"|\b(?:above|previous|preceding|other|first|last) (?:options?|choices?|answers?)\b"
    r"|\b(?:options?|choices?|answers?) [a-z]\b"
)
_LETTER = r"\(?[a-z]\)?"
_LETTERS_TOGETHER = re.compile(
    rf"(?:both |either |neither |only )?{_LETTER}(?:, ?{_LETTER})*,? ?(?:and|or|nor|&) ?{_LETTER}(?: only)?"
    rf"|only {_LETTER}|{_LETTER} only"
)

_BETWEEN_LETTERS = re.compile(r"[\s,;&+()]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lettered:
    """Options with their reference."""

    options: tuple[str, ...]
    answer: str
    """One letter, several (`A, C`), or the text of an option."""
    is_text: bool = False
    """Whether `answer` is the text of an option, as some sources want it."""


def letter_answer(options: Sequence[str], answer: str, answer_type: str) -> Lettered:
    """Clean options and find the reference among them.

    Args:
        options: Texts as in the source.
        answer: A letter, letters, or an option's text, label included or not.
        answer_type: `index`: the answer is an index from 0. `text`: it is an option's text and is kept as text, unless
            the reward would read that text as a letter. Anything else: see `answer`; a single letter in the range of
            labels is a label, never a text.

    Raises:
        Refused: OPTIONS_UNUSABLE or ANSWER_NOT_IN_OPTIONS.
    """
    texts = clean_options(options)
    if answer_type == "index":
        return Lettered(options=texts, answer=LETTERS[_index(answer, len(texts))])
    if answer_type == "text":
        return _text_answer(texts, options, answer)
    return Lettered(options=texts, answer=", ".join(sorted(_gold(texts, answer))))


def clean_options(options: Sequence[str]) -> tuple[str, ...]:
    """Return options with single spaces, and without labels (`A. cat`, `B. dog`) if all have the right one.

    Raises:
        Refused: OPTIONS_UNUSABLE, for fewer than two options, more than 26, one without text, or two that are one
            text. They may differ by case or marks alone: the reference is a letter, and the reward compares words by
            case where only that tells options apart.
    """
    if not 2 <= len(options) <= len(LETTERS):
        raise Refused(RejectReason.OPTIONS_UNUSABLE, f"{len(options)} options; 2 to {len(LETTERS)} can be lettered")
    texts = _without_labels(tuple(" ".join(option.split()) for option in options))
    seen: dict[str, str] = {}
    for text in texts:
        if not text:
            raise Refused(RejectReason.OPTIONS_UNUSABLE, "an option has no text")
        key = unicodedata.normalize("NFKC", text)
        if key in seen:
            raise Refused(RejectReason.OPTIONS_UNUSABLE, f"options {seen[key]!r} and {text!r} are one text")
        seen[key] = text
    return texts


def can_shuffle(options: Sequence[str]) -> bool:
    """Return whether options may be shuffled.

    Their order matters if an option refers to others (`all of the above`, `both A and B`), or is itself a single
    letter, as labels in a diagram are: after another letter it would be misread.
    """
    return not any(_refers_to_letters(option) for option in options)


def shuffled(lettered: Lettered, *, seed: int, sample_id: str) -> Lettered:
    """Shuffle options by seed and row, and adapt the letters of the reference."""
    digest = hashlib.blake2b(f"{seed}|options|{sample_id}".encode(), digest_size=8).digest()
    order = list(range(len(lettered.options)))
    random.Random(int.from_bytes(digest, "big")).shuffle(order)
    options = tuple(lettered.options[old] for old in order)
    if lettered.is_text:
        return replace(lettered, options=options)
    moved = sorted(LETTERS[order.index(LETTERS.index(letter))] for letter in lettered.answer.split(", "))
    return Lettered(options=options, answer=", ".join(moved))


def rendered(options: Sequence[str]) -> str:
    r"""Return options as lines.

    Example:
        >>> rendered(("cat", "dog"))
        'A. cat\nB. dog'
    """
    return "\n".join(f"{letter}. {option}" for letter, option in _lettered(options))


def without_list(question: str, options: Sequence[str]) -> str:
    r"""Return a question without the list of these options in its own text, which would show them twice.

    Raises:
        Refused: OPTIONS_UNUSABLE, where it lists them in another order: a letter would name either of two options.

    Example:
        >>> without_list("Which?\n(A) cat\n(B) dog", ("cat", "dog"))
        'Which?'
    """
    found = options_in(question)
    if found is None:
        return question
    listed, wanted = [[_key(text) for text in texts] for texts in (found[1], options)]
    if listed != wanted and sorted(listed) == sorted(wanted):
        raise Refused(
            RejectReason.OPTIONS_UNUSABLE,
            f"the question lists {_spelled(found[1])}, and the row has {_spelled(options)}",
        )
    return found[0] if listed == wanted else question


def names_all(question: str, options: Sequence[str]) -> bool:
    """Return whether a question names all options in its own words, in their order.

    Example:
        >>> names_all("Is it red, blue or green?", ("red", "blue", "green")), names_all("Is it red?", ("red", "blue"))
        (True, False)
    """
    place = 0
    for option in options:
        found = re.compile(rf"(?<!\w){re.escape(option)}(?!\w)").search(question, place)
        if found is None:
            return False
        place = found.end()
    return True


def _lettered(options: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(LETTERS[: len(options)], options, strict=True))


def _without_labels(options: tuple[str, ...]) -> tuple[str, ...]:
    rests = []
    for letter, option in _lettered(options):
        match = _STORED_LABEL.match(option)
        if match is None or (match[1] or match[2]).upper() != letter:
            return options
        rests.append(option[match.end() :])
    return tuple(rests)


def _key(text: str) -> str:
    """Return the form in which texts are compared; text of punctuation alone is unchanged."""
    return comparable(text) or text.strip()


def _gold(options: Sequence[str], answer: str) -> frozenset[str]:
    try:
        gold = Choices(options, answer).gold
    except GoldError as error:
        raise Refused(RejectReason.ANSWER_NOT_IN_OPTIONS, f"{answer[:80]!r} is none of {_spelled(options)}") from error
    # Read as a list, "A. dog" with dog at B would be A and B: several options are right only if the answer is letters.
    if len(gold) > 1 and not _are_letters(answer):
        raise Refused(
            RejectReason.ANSWER_NOT_IN_OPTIONS, f"{answer[:80]!r} names {', '.join(sorted(gold))} but not as letters"
        )
    return gold


def _are_letters(answer: str) -> bool:
    """Return whether an answer is only letters: `A, C`, `(A) and (C)`, `AC`."""
    items = [item for item in _BETWEEN_LETTERS.split(answer.strip(" .")) if item and item.casefold() != "and"]
    return all(len(item) == 1 for item in items) or (len(items) == 1 and items[0].isupper())


def _text_answer(options: Sequence[str], with_labels: Sequence[str], answer: str) -> Lettered:
    wanted = _key(answer)
    pairs = list(enumerate(zip(options, with_labels, strict=True)))
    places = [place for place, texts in pairs if answer.strip() in texts]
    if len(places) != 1:
        places = [place for place, texts in pairs if wanted in map(_key, texts)]
    if len(places) != 1:
        raise Refused(RejectReason.ANSWER_NOT_IN_OPTIONS, f"{answer[:80]!r} is none of {_spelled(options)}")
    letter, text = LETTERS[places[0]], options[places[0]]
    try:
        is_text = Choices(options, text).gold == {letter}
    except GoldError:
        is_text = False
    return Lettered(options=tuple(options), answer=text if is_text else letter, is_text=is_text)


def _index(answer: str, num_options: int) -> int:
    text = answer.strip()
    index = int(text) if text.isascii() and text.isdigit() and len(text) < 4 else num_options
    if index >= num_options:
        raise Refused(
            RejectReason.ANSWER_NOT_IN_OPTIONS, f"index {text[:20]!r}; {num_options} options are counted from 0"
        )
    return index


def _refers_to_letters(option: str) -> bool:
    text = comparable(option)
    is_letter = len(text) == 1 and text.upper() in LETTERS
    return is_letter or _PHRASE.search(text) is not None or _LETTERS_TOGETHER.fullmatch(text) is not None


def _spelled(options: Sequence[str]) -> str:
    return "; ".join(f"{letter} {option[:30]!r}" for letter, option in _lettered(options))
