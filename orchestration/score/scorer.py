"""RowScorer: rows in, results out, batch by batch; where the open-ended table comes from is chosen here."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from orchestration.score.rows import BATCH_ROWS, BadRow, ScoreRow
from rewards.answer import extract_answer
from rewards.base import Reason, RewardResult
from rewards.config import RewardConfig
from rewards.format import format_reward
from rewards.mixed import MixedReward


class RowScorer:
    """Scores rows under one configuration, and under its twin for rows that set `guards` themselves."""

    def __init__(self, config: RewardConfig, embeddings: Path | None) -> None:
        """Build the rewards.

        Args:
            config: Routes, rules, weights and parameters.
            embeddings: Checkpoint whose tokenizer and input embedding table BMAS uses; None takes the table of words.

        Raises:
            RewardError: If the checkpoint lacks a tokenizer or a table.
        """
        self._config = config
        self._embeddings = embeddings
        self._rewards: dict[bool | None, MixedReward] = {}
        self._reward(None)

    def score(self, rows: Iterable[ScoreRow | BadRow]) -> Iterator[tuple[ScoreRow, RewardResult] | BadRow]:
        """Give every row with its result, in order; bad rows pass through."""
        remaining = iter(rows)
        while batch := list(islice(remaining, BATCH_ROWS)):
            results = self._score_batch([row for row in batch if isinstance(row, ScoreRow)])
            yield from (row if isinstance(row, BadRow) else (row, results[row.line]) for row in batch)

    def explain(self, row: ScoreRow) -> list[str]:
        """Say, line by line, how one row is read."""
        if row.is_format_only:
            return [f"format     {format_reward(row.request.response, self._config.format):g}"]
        return self._reward(row.guards).explain(row.request)

    def close(self) -> None:
        """End the grader processes."""
        for reward in self._rewards.values():
            reward.close()

    def _score_batch(self, rows: Sequence[ScoreRow]) -> dict[int, RewardResult]:
        """Give results by line."""
        results = {row.line: self._format_result(row) for row in rows if row.is_format_only}
        for guards in (None, False, True):
            members = [row for row in rows if not row.is_format_only and row.guards is guards]
            if members:
                scored = self._reward(guards).score([row.request for row in members])
                results.update(zip((row.line for row in members), scored, strict=True))
        return results

    def _format_result(self, row: ScoreRow) -> RewardResult:
        """The envelope is the whole task of such a row."""
        value = format_reward(row.request.response, self._config.format)
        answer = extract_answer(row.request.response, self._config.format)
        return RewardResult(
            reward=value,
            task_reward=value,
            format_reward=value,
            breakdown={"format": value},
            parsed_answer=answer.text,
            reason=Reason.OK if value else answer.reason,
        )

    def _reward(self, guards: bool | None) -> MixedReward:
        if guards not in self._rewards:
            open_ended = self._config.open_ended if guards is None else replace(self._config.open_ended, guards=guards)
            self._rewards[guards] = self._build(replace(self._config, open_ended=open_ended))
        return self._rewards[guards]

    def _build(self, config: RewardConfig) -> MixedReward:
        if self._embeddings is not None:
            return MixedReward.from_checkpoint(config, self._embeddings)
        from rewards.word_table import WordTable

        words = WordTable()
        return MixedReward(config, words.encode, words)
