"""Open-ended reward: BMAS of the answer and the reference, by weighted words, times four soft guards.

Use it for descriptions only: a reply with a wrong colour outscores an honest paraphrase (see bmas.py).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from rewards.core.base import GoldError, Grade, Reason, RewardRequest
from rewards.core.config import OpenEndedConfig
from rewards.functions.bmas import (
    Text,
    bmas_group,
    composition_factor,
    group_directions,
    overuse_factor,
    repetition_factor,
    specificity_factor,
)
from rewards.functions.caption_words import (
    GENERAL_WORDS,
    function_word_share,
    is_content_word,
    load_idf,
    without_special_tokens,
    words_of,
)
from rewards.functions.embedding_table import EmbeddingTable

_KNOWN_WORDS = 1 << 16
_LONGEST_KNOWN = 64


class Guards(NamedTuple):
    """Factors of a reply's value, each in [0, 1]."""

    composition: float
    repetition: float
    overuse: float
    specificity: float


class OpenEndedReward:
    """Grades free text.

    With guards, texts are compared word by word: case and punctuation are left out, every word is encoded as it stands
    inside of a sentence, and its tokens carry its weight. Without, both texts are stripped and encoded whole.
    """

    def __init__(self, config: OpenEndedConfig, encode: Callable[[str], list[int]], table: EmbeddingTable) -> None:
        """Keep tokenizer and table; load the frequencies of words where the settings name a file.

        Raises:
            RewardError: If the frequencies cannot be read.
        """
        self._config = config
        self._encode = encode
        self._table = table
        self._weights = load_idf(config.idf_path) if config.guards and config.idf_path else {}
        self._known: dict[str, list[int]] = {}
        # SentencePiece puts a blank before a text by itself: ` a` has two tokens there, and one elsewhere.
        self._blank = "" if encode("a a") == 2 * encode("a") else " "

    def grade(self, request: RewardRequest, answers: Sequence[str]) -> list[Grade]:
        """Grade each answer in [0, 1]; see RewardFunction."""
        return self._grade_words(request, answers) if self._config.guards else self._grade_literally(request, answers)

    def explain(self, request: RewardRequest, answer: str) -> list[str]:
        """Return the values of both directions and the guards; see RewardFunction."""
        answer = answer[: self._config.max_chars]
        if not self._config.guards:
            gold, reply, sharpness = Text(self._ids(request.answer)), Text(self._ids(answer)), 1.0
        else:
            gold_words, words = words_of(request.answer), words_of(answer)
            gold, reply, sharpness = self._text(gold_words), self._text(words), self._config.sharpness
        lines = [f"{len(reply.ids)} tokens against {len(gold.ids)}"]
        if not gold.ids or not reply.ids:
            return lines
        forward, backward = group_directions(gold, [reply], self._table, sharpness=sharpness)[0]
        lines.append(
            f"forward (answer found in reference) {forward:.4f}, backward (reference found in answer) {backward:.4f}"
        )
        if self._config.guards:
            guards = self._guards(words, gold_words)
            shares = [f"{function_word_share(each):.0%}" for each in (words, gold_words)]
            lines.append(
                f"guards: composition {guards.composition:.4f} (function words {shares[0]} against {shares[1]}), "
                f"repetition {guards.repetition:.4f}, overuse {guards.overuse:.4f}, "
                f"specificity {guards.specificity:.4f}"
            )
        return lines

    def _grade_words(self, request: RewardRequest, answers: Sequence[str]) -> list[Grade]:
        gold_words = words_of(request.answer)
        gold = self._text(gold_words)
        if not gold.ids:
            raise GoldError("open reference has no words")
        spoken = [words_of(answer) if len(answer) <= self._config.max_chars else None for answer in answers]
        texts = [None if words is None else self._bounded(words) for words in spoken]
        values = bmas_group(gold, [text or Text([]) for text in texts], self._table, sharpness=self._config.sharpness)
        grades = []
        for value, words, text, answer in zip(values, spoken, texts, answers, strict=True):
            if words is None or text is None:
                grades.append(Grade(0.0, Reason.TOO_LONG))
            elif not text.ids:
                grades.append(Grade(0.0, Reason.NO_ANSWER))
            else:
                grades.append(Grade(value * math.prod(self._guards(words, gold_words)), parsed=answer))
        return grades

    def _grade_literally(self, request: RewardRequest, answers: Sequence[str]) -> list[Grade]:
        gold = self._ids(request.answer)
        if not gold:
            raise GoldError("open reference has no tokens")
        ids = [self._ids(answer) if len(answer) <= self._config.max_chars else None for answer in answers]
        ids = [None if one is None or len(set(one)) > self._config.max_distinct_tokens else one for one in ids]
        values = bmas_group(Text(gold), [Text(one or []) for one in ids], self._table)
        return [
            Grade(0.0, Reason.TOO_LONG) if one is None
            else Grade(value, parsed=answer) if one
            else Grade(0.0, Reason.NO_ANSWER)
            for value, one, answer in zip(values, ids, answers, strict=True)
        ]  # fmt: skip

    def _bounded(self, words: Sequence[str]) -> Text | None:
        """Return the tokens of words; None for more different ones than the reward reads."""
        if len(set(words)) > self._config.max_distinct_tokens:
            return None
        text = self._text(words)
        return None if len(set(text.ids)) > self._config.max_distinct_tokens else text

    def _text(self, words: Iterable[str]) -> Text:
        ids: list[int] = []
        weights: list[float] = []
        for word in words:
            own = self._known.get(word)
            if own is None:
                own = self._encode(self._blank + word)
                if len(word) <= _LONGEST_KNOWN:
                    if len(self._known) >= _KNOWN_WORDS:
                        self._known.clear()
                    self._known[word] = own
            ids += own
            weights += [self._weight(word)] * len(own)
        return Text(ids, weights)

    def _weight(self, word: str) -> float:
        least = self._config.function_word_weight
        if not is_content_word(word):
            return least
        most = self._config.general_word_weight if word in GENERAL_WORDS else 1.0
        return max(least, min(most, self._weights.get(word, 1.0)))

    def _guards(self, words: Sequence[str], gold_words: Sequence[str]) -> Guards:
        return Guards(
            composition_factor(function_word_share(words), function_word_share(gold_words)),
            repetition_factor(words, gold_words),
            overuse_factor(*([word for word in each if is_content_word(word)] for each in (words, gold_words))),
            specificity_factor(self._specificity(words), self._specificity(gold_words)),
        )

    def _specificity(self, words: Sequence[str]) -> float:
        """Return the mean weight of the distinct content words; that of a function word if there is none."""
        weights = [self._weight(word) for word in set(words) if is_content_word(word)]
        return math.fsum(weights) / len(weights) if weights else self._config.function_word_weight

    def _ids(self, text: str) -> list[int]:
        return list(self._encode(without_special_tokens(text).strip()))
