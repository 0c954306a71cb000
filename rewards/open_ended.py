"""Open-ended reward: BMAS of the answer and the reference, times guards that are 1 on ordinary text.

Use it for descriptions only: a reply with a wrong colour outscores an honest paraphrase (see bmas.py).
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rewards.base import GoldError, Grade, Reason, RewardError, RewardRequest
from rewards.bmas import BmasOptions, bmas_group, group_directions
from rewards.embedding_table import EmbeddingTable
from rewards.parameters import OpenEndedConfig

NGRAM = 4
_SPECIAL_TOKEN = re.compile(r"<\|[^<>|\s]{1,40}\|>")


class OpenEndedReward:
    """Grades free text.

    Both texts are stripped and encoded in the same way: `dog` and ` dog` are different rows of the table.
    """

    def __init__(self, config: OpenEndedConfig, encode: Callable[[str], list[int]], table: EmbeddingTable) -> None:
        """Keep tokenizer and table; load token weights where the settings name a file.

        Raises:
            RewardError: If the weights cannot be read or do not fit the table.
        """
        self._config = config
        self._encode = encode
        self._table = table
        idf = _load_weights(config.idf_path) if config.idf_path else None
        if idf is not None and idf.shape != (table.shape[0],):
            raise RewardError(f"reward.open_ended.idf_path holds {idf.shape}; the table needs ({table.shape[0]},)")
        self._options = BmasOptions(f1=config.f1, distinct=config.distinct, idf=idf)

    def grade(self, request: RewardRequest, answers: Sequence[str]) -> list[Grade]:
        """Grade each answer in [0, 1]; see RewardFunction."""
        gold = self._ids(request.answer)
        if not gold:
            raise GoldError("open reference has no tokens")
        ids = [self._ids(answer) if len(answer) <= self._config.max_chars else None for answer in answers]
        ids = [None if one is None or len(set(one)) > self._config.max_distinct_tokens else one for one in ids]
        values = bmas_group(gold, [one or [] for one in ids], self._table, options=self._options)
        return [
            Grade(0.0, Reason.TOO_LONG) if reply is None else self._finish(value, reply, gold, answer)
            for value, reply, answer in zip(values, ids, answers, strict=True)
        ]

    def explain(self, request: RewardRequest, answer: str) -> list[str]:
        """Say how far each direction goes and what the guards take; see RewardFunction."""
        gold, reply = self._ids(request.answer), self._ids(answer[: self._config.max_chars])
        if not gold or not reply:
            return [f"{len(reply)} tokens against {len(gold)}"]
        forward, backward = group_directions(gold, [reply], self._table, options=self._options)[0]
        lines = [
            f"{len(reply)} tokens against {len(gold)}",
            f"forward (answer found in reference) {forward:.4f}, backward (reference found in answer) {backward:.4f}",
        ]
        if self._config.guards:
            length = length_factor(len(reply), len(gold), self._config)
            lines.append(f"guards: length {length:.4f}, repetition {duplicate_factor(reply, gold, self._config):.4f}")
        return lines

    def _ids(self, text: str) -> list[int]:
        # Half of a surrogate pair is no text; a tokenizer would refuse the whole answer for it.
        whole = text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
        return list(self._encode(_SPECIAL_TOKEN.sub("", whole).strip()))

    def _finish(self, value: float, reply: Sequence[int], gold: Sequence[int], answer: str) -> Grade:
        if not reply:
            return Grade(0.0, Reason.NO_ANSWER)
        if self._config.baseline > 0.0:
            value = max(0.0, (value - self._config.baseline) / (1.0 - self._config.baseline))
        if self._config.guards:
            value *= length_factor(len(reply), len(gold), self._config) * duplicate_factor(reply, gold, self._config)
        return Grade(value, parsed=answer)


def _load_weights(path: str) -> NDArray[np.float32]:
    try:
        weights: NDArray[np.float32] = np.load(Path(path).expanduser(), allow_pickle=False).astype(np.float32)
    except (OSError, ValueError) as error:
        raise RewardError(f"reward.open_ended.idf_path {path} cannot be read as .npy: {error}") from error
    return weights


def length_factor(num_reply: int, num_gold: int, config: OpenEndedConfig) -> float:
    """Give min(1, n / (0.5 m), 2 m / n): 1 between half and twice the reference's length in tokens.

    Returns:
        In [0, 1]; lengths n = `num_reply`, m = `num_gold`, both at least 1; the two ratios come from `config`.

    Example:
        >>> length_factor(10, 40, OpenEndedConfig()), length_factor(160, 40, OpenEndedConfig())
        (0.5, 0.5)
    """
    shortest, longest = config.min_length_ratio * num_gold, config.max_length_ratio * num_gold
    return min(1.0, num_reply / shortest, longest / num_reply)


def duplicate_factor(reply: Sequence[int], gold: Sequence[int], config: OpenEndedConfig) -> float:
    """Give (1 - d) / (1 - tau) where the share d of repeated 4-grams exceeds tau = max(0.3, that of the gold).

    Returns:
        In [0, 1].

    Example:
        >>> duplicate_factor([1, 2, 3, 4, 5], [1, 2, 3], OpenEndedConfig())
        1.0
    """
    duplicates = duplicate_frac(reply)
    free = max(config.max_duplicate_frac, duplicate_frac(gold))
    return 1.0 if duplicates <= free else (1.0 - duplicates) / (1.0 - free)


def duplicate_frac(ids: Sequence[int]) -> float:
    """Give the share of 4-grams that occurred before; 0 for fewer than four tokens."""
    total = len(ids) - NGRAM + 1
    if total < 1:
        return 0.0
    return 1.0 - len(set(zip(*(ids[offset : offset + total] for offset in range(NGRAM)), strict=True))) / total
