"""The texts of a question's options: which of them an answer spells, whatever its quotes, blanks, LaTeX or unit."""

import re
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache

from rewards.text.number_words import in_digits, is_in_words
from rewards.text.plain_text import clean, compact, read_list, without_article, without_latex
from rewards.text.units import Unit, split_unit

_STORED_LABEL = re.compile(r"\(?([a-z])[).:]+\s*(?=\S)")
_NUMBER = re.compile(
    r"(?P<currency>[$\u20ac\u00a3\u00a5]?)(?P<minus>-?)\+?(?P<whole>[0-9]{1,3}(?:,[0-9]{3})+|[0-9]*)(?:\.(?P<part>[0-9]*))?"
    r"(?P<unit>%|\u00b0[cf]?|[mgslvwjhcf](?:\^[23])?|[a-z](?:\^[23])?/[a-z\u00b5]{1,8}(?:\^[23])?|[\u4e00-\u9fff]{1,3}"
    r"|(?!(?:pi|st|nd|rd|th|am|pm|or|and|more|less|fewer|missing|short|plus|minus|times|wrong|incorrect|false|hundred|thousand|[mbtr]+illion|mn|bn|dozen|sqrt)\b)"
    r"(?:(?:square|cubic)\s)?[a-z\u00b5]{2,12}(?:\^[23])?(?:(?:/|\sper\s)[a-z\u00b5]{1,8}(?:\^[23])?)?)?"
)
"""A number with one unit at most, in compact text; letters that may be variables are no units."""
_SIGNS = {
    "degrees": "\u00b0", "degree": "\u00b0", "deg": "\u00b0", "percent": "%",
    "dollars": "$", "dollar": "$", "euros": "\u20ac", "euro": "\u20ac",
}  # fmt: skip
"""Units that are also written as a sign."""
_CAN_NOT = re.compile(r"\bcan(?:\s+not|'t)\b")
_WORD = re.compile(r"\w+")
_PLAIN_ROOT = re.compile(r"(?<![\\a-z])sqrt\s*(?=[({0-9])")
_ONLY = re.compile(r"^(.+?)\s+only$")
_TOKEN = re.compile(r"\w+|[^\w\s]")
_DIGIT = re.compile("[0-9]")
_BRACKETED_ROOT = re.compile(r"(?:(?<=\u221a)\(([0-9]+)\)(?![0-9])|\((\u221a[0-9]+)\))")


class OptionTexts:
    """Finds options by their text.

    Example:
        >>> texts = OptionTexts(("10 cm", "the red bird"), "AB")
        >>> texts.with_text("10"), texts.with_text("red bird"), texts.with_text("10 m")
        ('A', 'B', '')
    """

    def __init__(self, options: Sequence[str], labels: str) -> None:
        """Keep the options; their texts are normalised when the first answer is compared.

        Args:
            options: Texts in the order of `labels`; empty where only labels are known.
            labels: Of the options.
        """
        self._options = options
        self.labels = labels

    @cached_property
    def normalised(self) -> list[str]:
        """The texts as they are compared, in the order of the labels."""
        return _option_texts(self._options, self.labels)

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self.normalised), default=0)

    @cached_property
    def _labels_of(self) -> dict[str, str]:
        """Labels by text as compared."""
        return self._by_form(_same)

    @cached_property
    def _labels_of_bare(self) -> dict[str, str]:
        """Labels by text without article."""
        return self._by_form(without_article)

    @cached_property
    def _labels_of_key(self) -> dict[str, str]:
        """Labels by compact text, then by that without article."""
        return self._by_form(lambda text: without_article(_key(text))) | self._by_form(_key)

    def _by_form(self, form: Callable[[str], str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for label, text in zip(self.labels, self.normalised, strict=False):
            if text:
                found[form(text)] = found.get(form(text), "") + label
        return found

    @cached_property
    def _words_of(self) -> list[str]:
        """The words of each text, between blanks."""
        return [f" {_words(text)} " for text in self.normalised]

    @cached_property
    def _numbers(self) -> list[tuple[str, str, str]]:
        numbers = (
            (label, _read_number(_key(in_digits(text) if is_in_words(text) else text)))
            for label, text in zip(self.labels, self.normalised, strict=False)
        )
        return [(label, *number) for label, number in numbers if number is not None]

    @cached_property
    def _formulas(self) -> list[tuple[str, str, Unit | None]]:
        """Labels, texts without unit and units of the options that are no plain number."""
        known = {label for label, _, _ in self._numbers}
        return [
            (label, *_read_formula(_key(text)))
            for label, text in zip(self.labels, self.normalised, strict=False)
            if label not in known and _DIGIT.search(text) is not None
        ]

    @cached_property
    def are_letters(self) -> bool:
        """Whether the texts are letters that name things in the picture: options A to E of figures A to E."""
        return bool(self.normalised) and all(len(text) == 1 and text.isalpha() for text in self.normalised)

    def number_of(self, label: str) -> float | None:
        """Return the number that the text of an option is, whatever its unit; None for any other text."""
        return next((float(value) for other, value, _ in self._numbers if other == label), None)

    def has_other_unit(self, text: str, label: str) -> bool:
        """Return whether a folded text is the number of an option with another unit: `5 m` for `5 cm`."""
        number = _read_number(_key(text))
        own = next(((value, unit) for other, value, unit in self._numbers if other == label), None)
        if number is None or own is None or number[0] != own[0] or not number[1] or not own[1]:
            return False
        return not _is_same(number[1], own[1])

    def written(self, label: str) -> str:
        """Return the text of an option as in the row."""
        return self._options[self.labels.index(label)]

    def text_of(self, label: str) -> str:
        """Return the normalised text of an option; empty where options have none."""
        return self.normalised[self.labels.index(label)] if self.normalised else ""

    def identical(self, answer: str) -> str:
        """Return the labels of all options written exactly so."""
        return "".join(
            label for label, option in zip(self.labels, self._options, strict=False) if option.strip() == answer
        )

    def with_text(self, text: str) -> str:
        """Return the labels of all options with this text, or with this number where only one side has a unit."""
        text = text.casefold()
        if not text or not self._options:
            return ""
        found = self._labels_of.get(text)
        if found is not None:
            return found
        key = _key(text)
        if not key or len(key) > self._longest + 24:  # an article, a pair of brackets and a unit at most
            return ""
        found = self._labels_of_bare.get(without_article(text))
        if found is not None:
            return found
        found = self._labels_of_key.get(key) or self._labels_of_key.get(without_article(key))
        if found is None and key[0] in "([" and key[-1] in ")]":
            found = self._labels_of_key.get(key[1:-1])
        if found is None and (digits := in_digits(text)) != text:
            key = _key(digits)
        if found is None and (number := _read_number(key)) is not None:
            value, unit = number
            found = "".join(a for a, v, u in self._numbers if v == value and (not u or not unit or _is_same(u, unit)))
        elif found is None and _DIGIT.search(key) is not None:
            formula, measured = _read_formula(key)
            found = "".join(a for a, f, u in self._formulas if f == formula and _one_side_at_most(u, measured))
        return found or ""

    @cached_property
    def _mentioned(self) -> tuple[re.Pattern[str] | None, list[str]]:
        """A pattern of all texts, the longest first, with a group for each, and the labels of the groups."""
        labels_of: dict[str, str] = {}
        for label, text in zip(self.labels, self.normalised, strict=False):
            if len(text) > 1 or text.isdecimal():
                plain = without_article(without_latex(text))
                labels_of[plain] = labels_of.get(plain, "") + label
        texts = sorted(filter(None, labels_of), key=len, reverse=True)
        pattern = "|".join(f"({_pattern_of(text)})" for text in texts)
        return re.compile(pattern, re.IGNORECASE) if texts else None, [labels_of[text] for text in texts]

    def mentions(self, text: str) -> list[tuple[str, int, int]]:
        """Return the labels, start and end of each option's text in a text; of two that overlap the longer one.

        Args:
            text: Through `plain_text.without_latex`; case is kept.
        """
        pattern, labels = self._mentioned
        if pattern is None:
            return []
        return [(labels[match.lastindex - 1], *match.span()) for match in pattern.finditer(text) if match.lastindex]

    def without(self, text: str, label: str) -> str:
        """Return a text without the mentions of one option; see `mentions`."""
        for labels, start, end in reversed(self.mentions(text)):
            if label in labels:
                text = f"{text[:start]} {text[end:]}"
        return text

    def with_part(self, text: str) -> str:
        """Return the labels of all options that hold these words, side by side: `Paris` of `Paris, France`."""
        words = _words(text.casefold())
        if len(words) < 3:
            return ""
        return "".join(label for label, held in zip(self.labels, self._words_of, strict=False) if f" {words} " in held)

    def starting_with(self, text: str) -> tuple[str, str]:
        """Return the labels of the longest option texts that a sentence begins with, and how it goes on."""
        text = without_article(text.casefold().lstrip())
        longest, labels = 0, ""
        for label, option in zip(self.labels, self.normalised, strict=False):
            option = without_article(option)
            if len(option) >= longest and option and text.startswith(option) and not text[len(option) :][:1].isalnum():
                labels = label if len(option) > longest else labels + label
                longest = len(option)
        return labels, text[longest:].lstrip()


def spoken(text: str) -> str:
    """Return a pattern of an option's text and of its inflections: `decreases`, `decrease`, `decreased`."""
    if len(text) < 4 or not text.isalpha():
        return re.escape(text)
    return re.escape(re.sub(r"(?<=\w{3})s$", "", text)) + "(?:e?[sd])?"


def _pattern_of(text: str) -> str:
    """Return a pattern of an option's text as a whole, with any blanks and article; see `spoken`."""
    tokens = _TOKEN.findall(text)
    pattern = r"\s*".join(map(re.escape, tokens)) if len(tokens) > 1 else spoken(text)
    pattern = re.sub(r"(?<=\w)\\s\*(?=\w)", r"\\s+", pattern)
    before = r"(?<![\w.,-])" if text[0].isdecimal() else r"(?<!\w)" if text[0].isalnum() else ""
    behind = r"(?!\w|[.,/][0-9])" if text[-1].isdecimal() else r"(?!\w)" if text[-1].isalnum() else ""
    article = r"(?:(?:the|an?)\s+)?" if text[0].isalpha() else ""
    return before + article + pattern + behind


def _words(text: str) -> str:
    return " ".join(_WORD.findall(without_article(text)))


def _same(text: str) -> str:
    return text


def _key(text: str) -> str:
    """Return the form in which texts are one option although blanks, quotes of a list or LaTeX differ."""
    items = read_list(text) if text.startswith("[") else None
    text = _PLAIN_ROOT.sub("\u221a", text) if "sqrt" in text else text
    return compact(", ".join(items) if items else _ONLY.sub(r"only \1", _CAN_NOT.sub("cannot", text)))


def _read_number(text: str) -> tuple[str, str] | None:
    """Return the digits of a compact number without what changes no value, and its currency and unit."""
    match = _NUMBER.fullmatch(text)
    if match is None or not (match["whole"] or match["part"]):
        return None
    part = (match["part"] or "").rstrip("0")
    value = (match["whole"].replace(",", "").lstrip("0") or "0") + (f".{part}" if part else "")
    unit = match["unit"] or ""
    return match["minus"] + value if value != "0" else value, match["currency"] + _SIGNS.get(unit, unit)


def _read_formula(text: str) -> tuple[str, Unit | None]:
    """Return a compact formula without its unit, and the unit."""
    formula, unit = split_unit(text)
    return _BRACKETED_ROOT.sub(lambda root: root[1] or root[2], formula), unit


def _one_side_at_most(unit: Unit | None, other: Unit | None) -> bool:
    """Return whether two units are equal or at least one is missing."""
    return unit is None or other is None or unit == other


def _is_same(unit: str, other: str) -> bool:
    """Return whether two units are one, however spelled: `cm` and `centimeters`."""
    return unit == other or ((known := _unit(unit)) is not None and known == _unit(other))


@lru_cache(maxsize=1024)
def _unit(spelled: str) -> Unit | None:
    return split_unit(f"1 {spelled}")[1]


def _option_texts(options: Sequence[str], labels: str) -> list[str]:
    """Return the normalised option texts, without the labels that some datasets store inside them (`A. cat`)."""
    texts = [clean(option).casefold() for option in options]
    matches = [_STORED_LABEL.match(text) for text in texts]
    if all(match is not None and match[1].upper() == labels[i] for i, match in enumerate(matches)):
        return [text[match.end() :] for text, match in zip(texts, matches, strict=True) if match is not None]
    return texts
