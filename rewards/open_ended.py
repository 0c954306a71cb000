"""Open-ended reward: BMAS of the answer and the reference, by words that tell something, times two soft guards.

Use it for descriptions only: a reply with a wrong colour outscores an honest paraphrase (see bmas.py).
"""

import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from rewards.base import GoldError, Grade, Reason, RewardError, RewardRequest
from rewards.bmas import Text, bmas_group, composition_factor, group_directions, repetition_factor
from rewards.embedding_table import EmbeddingTable
from rewards.parameters import OpenEndedConfig
from rewards.plain_text import unify

_FUNCTION_WORDS = """
    a an the this that these those some any no each every all both either neither other another such same own
    and or but nor so yet if as than then while when where which who whom whose what how why because since until
    though although of in on at by to for from with without into onto out off over under above below up down
    about around across along through between among behind beside near next within inside outside during after
    before against toward towards upon per via is are was were be been being am has have had having do does did
    done doing can could may might must shall should will would i me my mine we us our ours you your yours he
    him his she her hers it its they them their theirs one ones not only also too very more most much many few
    several there here just even still again well s t image images picture pictures photo photos photograph
    caption description
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
"""English words that any caption may hold, whatever the image shows."""

_SPECIAL_TOKEN = re.compile(r"<\|[^<>|\s]{1,40}\|>")
_KNOWN_WORDS = 1 << 16
_LONGEST_KNOWN = 64


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
        """Say how far each direction goes and what the guards take; see RewardFunction."""
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
            share, gold_share = function_word_share(words), function_word_share(gold_words)
            lines.append(
                f"guards: composition {composition_factor(share, gold_share):.4f} (function words {share:.0%} against "
                f"{gold_share:.0%}), repetition {repetition_factor(words, gold_words):.4f}"
            )
        return lines

    def _grade_words(self, request: RewardRequest, answers: Sequence[str]) -> list[Grade]:
        gold_words = words_of(request.answer)
        gold = self._text(gold_words)
        if not gold.ids:
            raise GoldError("open reference has no words")
        gold_share = function_word_share(gold_words)
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
                composition = composition_factor(function_word_share(words), gold_share)
                grades.append(Grade(value * composition * repetition_factor(words, gold_words), parsed=answer))
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
        floor = self._config.function_word_weight
        return floor if word in FUNCTION_WORDS else max(floor, self._weights.get(word, 1.0))

    def _ids(self, text: str) -> list[int]:
        return list(self._encode(_SPECIAL_TOKEN.sub("", _whole(text)).strip()))


class _WordCharacters(dict[int, int]):
    """For str.translate: letters, marks and digits of any script stay, all else is a blank."""

    def __missing__(self, code: int) -> int:
        kept = code if unicodedata.category(chr(code))[0] in "LMN" else ord(" ")
        self[code] = kept
        return kept


_WORD_CHARACTERS = _WordCharacters()


def words_of(text: str) -> list[str]:
    """Return the words of a text, case-folded, without punctuation and special tokens.

    Example:
        >>> words_of("The **dog**, a Beagle, sits.<|im_end|>")
        ['the', 'dog', 'a', 'beagle', 'sits']
    """
    plain = unify(_SPECIAL_TOKEN.sub("", _whole(text))).casefold()
    return plain.translate(_WORD_CHARACTERS).split()


def function_word_share(words: Sequence[str]) -> float:
    """Return the share of function words among words, in [0, 1]; 0 for none."""
    return sum(word in FUNCTION_WORDS for word in words) / len(words) if words else 0.0


def _whole(text: str) -> str:
    """Half of a surrogate pair is no text; a tokenizer would refuse the whole answer for it."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def word_frequencies(references: Iterable[str]) -> dict[str, object]:
    """Return how many references hold each word, in the form that `reward.open_ended.idf_path` reads.

    Words of one reference alone are left out: a word that is not listed is taken to be rare.
    """
    counts: dict[str, int] = {}
    num_references = 0
    for reference in references:
        num_references += 1
        for word in set(words_of(reference)):
            counts[word] = counts.get(word, 0) + 1
    return {
        "num_references": num_references,
        "words": {word: count for word, count in sorted(counts.items()) if count > 1},
    }


def load_idf(path: str) -> Mapping[str, float]:
    """Return log((N + 1) / (n + 1)) / log(N + 1) of every listed word, in [0, 1), where n of N references hold it.

    Raises:
        RewardError: If the file cannot be read or is not of the form of `word_frequencies`.

    Source:
        BERTScore (Zhang et al., 2020): inverse document frequencies with plus-one smoothing; here divided by their
        greatest value.
    """
    try:
        read = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
        total, words = int(read["num_references"]), dict(read["words"])
        if total < 1 or not all(isinstance(count, int) and 0 < count <= total for count in words.values()):
            raise ValueError("counts lie outside of 1..num_references")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RewardError(
            f"reward.open_ended.idf_path {path} cannot be read ({type(error).__name__}: {error}); write what "
            "rewards.open_ended.word_frequencies gives, or leave it empty"
        ) from error
    return {word: math.log((total + 1) / (count + 1)) / math.log(total + 1) for word, count in words.items()}
