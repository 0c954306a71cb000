"""`mixed-r1 score`: read rows, score them, write the results, print the summary and what was wrong."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from orchestration.page.formatting import NO_NAME
from orchestration.score.rows import BATCH_ROWS, BadRow, ScoreRow, images_of, read_rows
from orchestration.score.summary import Agreement, Expectations, Summary
from orchestration.settings.errors import DataError
from orchestration.storage.files import whole_file
from rewards.core.base import Reason, RewardRequest, RewardResult
from rewards.core.config import RewardConfig
from rewards.core.envelope import extract_answer, format_reward
from rewards.mixed import MixedReward

EXIT_OK = 0
EXIT_BAD_ROWS = 3
EXIT_UNEXPECTED = 4
MAX_ROWS_SHOWN = 100


class RowScorer:
    """Scores rows in batches under one configuration; rows that set `guards` themselves get a copy with that value."""

    def __init__(self, config: RewardConfig, embeddings: Path | None, folder: Path) -> None:
        """Load what the settings name; image files of rows are named from `folder`."""
        self._config = config
        self._embeddings = embeddings
        self._folder = folder
        self._rewards: dict[bool | None, MixedReward] = {}
        self._reward(None)

    def score(self, rows: Iterable[ScoreRow | BadRow]) -> Iterator[tuple[ScoreRow, RewardResult] | BadRow]:
        """Yield every row with its result, in order; bad rows pass through."""
        remaining = iter(rows)
        while batch := list(islice(remaining, BATCH_ROWS)):
            results = self._score_batch([row for row in batch if isinstance(row, ScoreRow)])
            yield from (row if isinstance(row, BadRow) else (row, results[row.line]) for row in batch)

    def explain(self, row: ScoreRow) -> list[str]:
        """Return, line by line, how one row is read."""
        if row.is_format_only:
            return [f"format     {format_reward(row.request.response, self._config.format):g}"]
        return self._reward(row.guards).explain(self._request(row))

    def close(self) -> None:
        """End the grader processes."""
        for reward in self._rewards.values():
            reward.close()

    def _score_batch(self, rows: Sequence[ScoreRow]) -> dict[int, RewardResult]:
        """Return results by line."""
        results = {row.line: self._format_result(row) for row in rows if row.is_format_only}
        for guards in (None, False, True):
            members = [row for row in rows if not row.is_format_only and row.guards is guards]
            if members:
                scored = self._reward(guards).score([self._request(row) for row in members])
                results.update(zip((row.line for row in members), scored, strict=True))
        return results

    def _request(self, row: ScoreRow) -> RewardRequest:
        """Return the request of a row, with its images where a function takes them."""
        if not self._reward(row.guards).reads_images(row.request.task, row.request.source):
            return row.request
        return replace(row.request, images=images_of(row, self._folder))

    def _format_result(self, row: ScoreRow) -> RewardResult:
        """Score format alone, which is the whole task of such a row."""
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
            self._rewards[guards].start()
        return self._rewards[guards]

    def _build(self, config: RewardConfig) -> MixedReward:
        if self._embeddings is not None:
            return MixedReward.from_checkpoint(config, self._embeddings)
        from rewards.functions.word_table import WordTable

        words = WordTable()
        return MixedReward(config, words.encode, words)


def score_file(
    source: Path,
    config: RewardConfig,
    *,
    output: Path | None,
    embeddings: Path | None,
    explain: str | None,
    against: str | None,
) -> int:
    """Score a file and return the exit code: 0; 3 with bad rows; 4 where a value differs from what its row expects.

    Args:
        source: Rows as JSON lines or Parquet.
        config: Routes, rules, weights and parameters.
        output: JSON lines to write; None writes none; `-` is standard output.
        embeddings: Checkpoint whose tokenizer and input embedding table BMAS uses; None takes the table of words.
        explain: Id of the one row to explain; None scores all.
        against: Column with another verdict on each row, to be compared with the rewards; None compares nothing.

    Raises:
        DataError: If the file cannot be read or holds no row, the output cannot be written, no row has the id to
            explain, or none has the verdict to compare with.
        RewardError: If the settings or the checkpoint cannot be used.
    """
    with closing(RowScorer(config, embeddings, source.parent)) as scorer:
        rows = read_rows(source, config)
        if explain is not None:
            return _explain(source, explain, rows, scorer)
        summary, expectations = Summary(), Expectations()
        agreement = None if against is None else Agreement(against, config.format)
        num_bad = num_failed = num_open_on_words = 0
        with _writer(output, source) as file:
            for scored in scorer.score(rows):
                if isinstance(scored, BadRow):
                    num_bad += 1
                    _report_row(source, scored.line, scored.reason, num_bad, "bad")
                    continue
                row, result = scored
                if result.failure is not None:
                    num_failed += 1
                    cause = result.failure.partition("\n")[0]  # the whole of it is in the output
                    _report_row(source, row.line, f"{row.row_id}: {cause}", num_failed, "failed")
                summary.add(str(row.fields["task"]), result)
                if agreement is not None:
                    agreement.add(row.row_id, row.fields, result)
                num_open_on_words += embeddings is None and "open_ended" in result.breakdown
                as_expected = expectations.check(row.row_id, row.fields, result.task_reward)
                if file is not None:
                    file.write(json.dumps(_output(row, result, as_expected), default=_as_text) + "\n")
    expectations.check_relations()
    report = sys.stderr if str(output) == "-" else sys.stdout
    print(summary.table(), file=report)
    if num_open_on_words:
        print(
            f"open-ended rows scored over a table of words, not a model's: {num_open_on_words}; "
            "--embeddings CHECKPOINT takes the model's",
            file=report,
        )
    if agreement is not None:
        if not agreement.num_stated:
            raise DataError(f"no row of {source} states {against!r}; name a column of true, false or 0 to 1")
        print(agreement.report(), file=report)
    print(expectations.report(), end="", file=report)
    if num_bad:
        print(f"{num_bad} bad rows were left out", file=sys.stderr)
        return EXIT_BAD_ROWS
    return EXIT_UNEXPECTED if expectations.misses else EXIT_OK


def _explain(source: Path, row_id: str, rows: Iterator[ScoreRow | BadRow], scorer: RowScorer) -> int:
    for row in rows:
        if isinstance(row, ScoreRow) and row.row_id == row_id:
            of = f" of {row.request.source}" if row.request.source else ""
            print(f"row        {row.row_id}, line {row.line}, task {row.fields['task'] or NO_NAME}{of}")
            print(f"response   {row.request.response[:600]!r}")
            print("\n".join(scorer.explain(row)))
            if row.fields.get("expected") is not None:
                print(f"expected   {row.fields['expected']} {row.fields.get('why', '')}".rstrip())
            return EXIT_OK
    raise DataError(f"no row of {source} that can be scored has the id {row_id!r}")


def _output(row: ScoreRow, result: RewardResult, as_expected: bool | None) -> dict[str, Any]:
    """Return the row as it was read, with its rewards."""
    verdict: dict[str, Any] = {} if as_expected is None else {"as_expected": as_expected}
    if len(result.breakdown) > 2:
        verdict["parts"] = dict(result.breakdown)
    if result.explanations:
        verdict["explanations"] = dict(result.explanations)
    return {
        **row.fields,
        "reward": result.reward,
        "format_reward": result.format_reward,
        "task_reward": result.task_reward,
        "parsed_answer": result.parsed_answer,
        "reason": result.reason.value,
        "failure": result.failure,
        **verdict,
    }


def _as_text(value: object) -> str:
    """Return text for what JSON cannot hold, such as a Parquet file's image bytes."""
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else str(value)


@contextmanager
def _writer(output: Path | None, source: Path) -> Iterator[TextIO | None]:
    """Open the stream of result rows; a file appears under its name only when it is whole."""
    if output is None:
        yield None
    elif str(output) == "-":
        yield sys.stdout
    else:
        if output.resolve() == source.resolve():
            raise DataError(f"{output} is the file that is read; name another for the results")
        try:
            with whole_file(output) as partial, partial.open("w") as file:
                yield file
        except OSError as error:
            raise DataError(f"{output} cannot be written: {error.strerror}") from error


def _report_row(source: Path, line: int, reason: str, count: int, kind: str) -> None:
    if count <= MAX_ROWS_SHOWN:
        print(f"{source}:{line}: {reason}", file=sys.stderr)
    elif count == MAX_ROWS_SHOWN + 1:
        print(f"further {kind} rows are counted, not shown", file=sys.stderr)
