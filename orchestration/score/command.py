"""The flow of `mixed-r1 score`: read, score, write, sum up, say what was wrong."""

import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from orchestration.score.agreement import Agreement
from orchestration.score.expectations import Expectations
from orchestration.score.rows import BadRow, ScoreRow, read_rows
from orchestration.score.scorer import RowScorer
from orchestration.score.summary import Summary
from orchestration.settings.errors import DataError
from rewards.base import RewardResult
from rewards.config import RewardConfig

EXIT_OK = 0
EXIT_BAD_ROWS = 3
EXIT_UNEXPECTED = 4
MAX_BAD_ROWS_SHOWN = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreCommand:
    """What the user asked for."""

    source: Path
    output: Path | None
    """JSONL to write; None writes none; `-` is standard output."""
    embeddings: Path | None
    explain: str | None
    """Id of the one row to explain."""
    against: str | None = None
    """Column with another verdict on each row, to be compared with the rewards; None compares nothing."""


def score_file(command: ScoreCommand, config: RewardConfig) -> int:
    """Score a file and give the exit code: 0; 3 with bad rows; 4 where a value differs from what its row expects.

    Raises:
        DataError: If the file cannot be read or holds no row, the output cannot be written, no row has the id to
            explain, or none has the verdict to compare with.
        RewardError: If the settings or the checkpoint cannot be used.
    """
    with closing(RowScorer(config, command.embeddings)) as scorer:
        rows = read_rows(command.source, config)
        if command.explain is not None:
            return _explain(command, rows, scorer)
        return _score(command, rows, scorer)


def _score(command: ScoreCommand, rows: Iterator[ScoreRow | BadRow], scorer: RowScorer) -> int:
    summary, expectations = Summary(), Expectations()
    agreement = None if command.against is None else Agreement(command.against)
    num_bad = num_open_on_words = 0
    with _writer(command) as output:
        for scored in scorer.score(rows):
            if isinstance(scored, BadRow):
                num_bad += 1
                _report_bad_row(command.source, scored, num_bad)
                continue
            row, result = scored
            task = str(row.fields["task"])
            summary.add(task, result)
            if agreement is not None:
                agreement.add(row.row_id, row.fields, result)
            num_open_on_words += command.embeddings is None and "open_ended" in result.breakdown
            as_expected = expectations.check(row.row_id, row.fields, result.task_reward)
            if output is not None:
                output.write(json.dumps(_output(row, result, as_expected), default=_spell) + "\n")
    expectations.check_relations()
    report = sys.stderr if str(command.output) == "-" else sys.stdout
    print(summary.table(), file=report)
    if num_open_on_words:
        print(
            f"open-ended rows scored over a table of words, not a model's: {num_open_on_words}; "
            "--embeddings CHECKPOINT takes the model's",
            file=report,
        )
    if agreement is not None:
        if not agreement.num_stated:
            raise DataError(
                f"no row of {command.source} states {agreement.column!r}; name a column of true, false or 0 to 1"
            )
        print(agreement.report(), file=report)
    _report_expectations(expectations, report)
    if num_bad:
        print(f"{num_bad} bad rows were left out", file=sys.stderr)
        return EXIT_BAD_ROWS
    return EXIT_UNEXPECTED if expectations.misses else EXIT_OK


def _explain(command: ScoreCommand, rows: Iterator[ScoreRow | BadRow], scorer: RowScorer) -> int:
    for row in rows:
        if isinstance(row, ScoreRow) and row.row_id == command.explain:
            source = f" of {row.request.source}" if row.request.source else ""
            print(f"row        {row.row_id}, line {row.line}, task {row.fields['task']}{source}")
            print(f"response   {row.request.response[:600]!r}")
            print("\n".join(scorer.explain(row)))
            if row.fields.get("expected") is not None:
                print(f"expected   {row.fields['expected']} {row.fields.get('why', '')}".rstrip())
            return EXIT_OK
    raise DataError(f"no row of {command.source} that can be scored has the id {command.explain!r}")


def _output(row: ScoreRow, result: RewardResult, as_expected: bool | None) -> dict[str, Any]:
    """Give the row as it came, with what it earned."""
    verdict = {} if as_expected is None else {"as_expected": as_expected}
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


def _spell(value: object) -> str:
    """Stand for what JSON has no word for, such as a Parquet file's image bytes."""
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else str(value)


@contextmanager
def _writer(command: ScoreCommand) -> Iterator[TextIO | None]:
    """Give the stream of result rows; a file appears under its name only when it is whole."""
    if command.output is None:
        yield None
    elif str(command.output) == "-":
        yield sys.stdout
    else:
        if command.output.resolve() == command.source.resolve():
            raise DataError(f"{command.output} is the file that is read; name another for the results")
        partial = command.output.with_name(command.output.name + ".partial")
        try:
            with partial.open("w") as file:
                yield file
            partial.replace(command.output)
        except OSError as error:
            raise DataError(f"{command.output} cannot be written: {error.strerror}") from error
        finally:
            partial.unlink(missing_ok=True)


def _report_bad_row(source: Path, row: BadRow, count: int) -> None:
    if count <= MAX_BAD_ROWS_SHOWN:
        print(f"{source}:{row.line}: {row.reason}", file=sys.stderr)
    elif count == MAX_BAD_ROWS_SHOWN + 1:
        print("further bad rows are counted, not shown", file=sys.stderr)


def _report_expectations(expectations: Expectations, report: TextIO) -> None:
    if not expectations.num_checked:
        return
    misses, differences = expectations.misses, expectations.policy_differences
    print(f"{expectations.num_checked} rows state what they expect: {len(misses)} misses", end="", file=report)
    print(f", {len(differences)} policy differences" if differences else "", file=report)
    for line in misses:
        print(f"  miss    {line}", file=report)
    for line in differences:
        print(f"  policy  {line}", file=report)
