"""Multiple choice: which options an answer names, by label or by text.

Read in this order: a lone label; the exact text of exactly one option; a label, a delimiter and a rest that
contradicts neither. A letter inside a word, or standing as an article, is no label.
"""

import re
import string
from collections.abc import Sequence

from rewards.base import GoldError, Grade, Reason
from rewards.plain_text import clean, without_article

_LONE = re.compile(r"[(\[{<\"'*#.\s]*([A-Za-z])[)\]}>\"'*.,:;!?\s]*")
_OPTION_WORD = re.compile(r"(?:option|choice|letter|answer)\s+(?=[(\[{\"'*]*[A-Za-z]\b)", re.IGNORECASE)
_LABEL_AND_REST = re.compile(r"[(\[{<\"'*]*([A-Za-z])(?:\s*[)\]}>\"'*.,:;!-]+\s*|\s+-+\s+)(\S.*)")
_LABEL_AND_OWN_TEXT = re.compile(r"([A-Za-z])\s+(\S.*)")
_SECOND_LABEL = re.compile(r"(?<![\w'])(?:([A-Z])(?![\w'])|([a-z])(?=[)\]:.](?:\s|$)))")
_ARTICLE_USE = re.compile(r"A\s+(?!(?:is|or|and|nor|are|was|because|instead|too)\b)[a-z]{2}")
_SEPARATOR = re.compile(r"\s*(?:[,;&+\n]|\band\b)\s*", re.IGNORECASE)
_STORED_LABEL = re.compile(r"\(?([a-z])[).:]+\s*(?=\S)")
_LABELS_RUN = re.compile(r"[A-Z]{2,}")


class Choices:
    """The options of one question and the set of right ones.

    Example:
        >>> choices = Choices(("10", "12", "14"), "B")
        >>> [choices.grade(text).value for text in ("(B)", "B. 12", "12", "B. 14", "A or B")]
        [1.0, 1.0, 1.0, 0.0, 0.0]
    """

    def __init__(self, options: Sequence[str], answer: str) -> None:
        """Normalise the options and resolve the reference.

        Args:
            options: Option texts in the order A, B, C, ...; empty allows every label, without texts.
            answer: One label, several (`A, C` or `AC`), or the text of exactly one option.

        Raises:
            GoldError: If the reference names no option, or more options than labels exist.
        """
        if len(options) > len(string.ascii_uppercase):
            raise GoldError(f"match_mcq has {len(options)} options; labels A..Z allow 26")
        self._labels = string.ascii_uppercase[: len(options)] if options else string.ascii_uppercase
        self._texts = _option_texts(options, self._labels)
        self.gold: frozenset[str] = frozenset()
        """Labels of the right options."""
        gold, _ = self._read_one(answer)
        self.gold = frozenset(gold) if gold else frozenset(self._read_several(answer) or ())
        if not self.gold:
            raise GoldError(f"match_mcq reference {answer!r} names none of the {len(options)} options")

    @property
    def spelled(self) -> str:
        """The options as they are compared, each behind its label."""
        return "; ".join(f"{label} {text!r}" for label, text in zip(self._labels, self._texts, strict=False))

    def grade(self, answer: str) -> Grade:
        """Give 1 if the answer names exactly the right options, else 0."""
        label, reason = self._read_one(answer)
        named = frozenset(label) if label else frozenset()
        if not named or len(self.gold) > 1:
            several = self._read_several(answer)
            if several:
                named, reason = several, Reason.OK
        if not named:
            return Grade(0.0, reason)
        if len(named) > 1 and len(self.gold) == 1:
            return Grade(0.0, Reason.AMBIGUOUS, parsed=", ".join(sorted(named)))
        return Grade(float(named == self.gold), parsed=", ".join(sorted(named)))

    def _read_one(self, answer: str) -> tuple[str | None, Reason]:
        """Give the one label that the answer names, or None and why."""
        text = clean(answer)
        word = _OPTION_WORD.match(text)
        if word is not None:
            text = text[word.end() :]
        lone = _LONE.fullmatch(text)
        if lone is not None and lone.group(1).upper() in self._labels:
            return lone.group(1).upper(), Reason.OK
        by_text = self._with_text(text)
        if by_text:
            return (by_text, Reason.OK) if len(by_text) == 1 else (None, Reason.AMBIGUOUS)
        if lone is not None:
            return None, Reason.UNREADABLE
        own = _LABEL_AND_OWN_TEXT.fullmatch(text)
        if own is not None and self._with_text(own.group(2).strip("()[] ")) == own.group(1).upper():
            return own.group(1).upper(), Reason.OK
        if "\n" in answer:
            text = clean(re.sub(r"\s*\n\s*", ". ", answer.strip()))
        parts = _LABEL_AND_REST.fullmatch(text)
        if parts is None or parts.group(1).upper() not in self._labels:
            return None, Reason.UNREADABLE
        return self._check_rest(parts.group(1).upper(), parts.group(2))

    def _check_rest(self, label: str, rest: str) -> tuple[str | None, Reason]:
        """Give the label unless the text behind it names another option."""
        by_text = self._with_text(clean(rest))
        if label in by_text:
            return label, Reason.OK
        if by_text:
            return None, Reason.CONTRADICTION
        for match in _SECOND_LABEL.finditer(rest):
            other = (match.group(1) or match.group(2)).upper()
            if other != label and other in self._labels and not _ARTICLE_USE.match(rest, match.start()):
                return None, Reason.AMBIGUOUS
        return label, Reason.OK

    def _with_text(self, text: str) -> str:
        """Give the labels of all options with this text; articles are ignored when nothing matches with them."""
        text = text.casefold()
        if not text:
            return ""
        found = [self._labels[i] for i, option in enumerate(self._texts) if option == text]
        if not found:
            bare = without_article(text)
            found = [self._labels[i] for i, option in enumerate(self._texts) if without_article(option) == bare]
        return "".join(found)

    def _read_several(self, answer: str) -> frozenset[str] | None:
        """Give the set of labels of a list such as `A, C`; None if any item names no option."""
        text = clean(answer)
        if _LABELS_RUN.fullmatch(text) and list(text) == sorted(set(text)) and set(text) <= set(self._labels):
            return frozenset(text) if len(self.gold) != 1 else None
        if "\n" in answer:
            text = re.sub(r"\s*\n\s*", "\n", answer.strip())
        text = re.sub(r"^(?:(?:options|choices|answers)\s*:?|both)\s+", "", text.strip("()[]{} "), flags=re.IGNORECASE)
        items = [item for item in _SEPARATOR.split(text) if item]
        if len(items) == 1:
            items = text.split()
        if not 2 <= len(items) <= len(self._labels) + 1:
            return None
        labels = [self._read_one(item)[0] for item in items]
        return frozenset(label for label in labels if label) if all(labels) else None


def _option_texts(options: Sequence[str], labels: str) -> list[str]:
    """Give the normalised option texts, without the labels that some datasets store inside them (`A. cat`)."""
    texts = [clean(option).casefold() for option in options]
    matches = [_STORED_LABEL.match(text) for text in texts]
    if all(match is not None and match.group(1).upper() == labels[i] for i, match in enumerate(matches)):
        return [text[match.end() :] for text, match in zip(texts, matches, strict=True) if match is not None]
    return texts
