"""Rows to score, read one by one from JSON lines or Parquet; bad rows come with their line and reason."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestration.score.summary import RELATIONS
from orchestration.settings.errors import DataError
from rewards.core.base import RewardError, RewardRequest
from rewards.core.config import RewardConfig

FORMAT_TASK = "format"
"""Rows of this task are scored for format alone and need no answer."""

FRAMES = {
    "pixel": "pixel",
    "resized": "pixel_resized",
    "pixel_resized": "pixel_resized",
    "norm1000": "norm1000",
    "norm1": "norm1",
}
"""`coord` of a row to RewardRequest.coord_mode."""

BATCH_ROWS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRow:
    """One row of the file, and its request to the rewards."""

    line: int
    """1-based line of a JSONL file, 1-based row of a Parquet file."""
    row_id: str
    fields: Mapping[str, Any]
    """Everything the row holds; unknown fields are written out again."""
    request: RewardRequest
    guards: bool | None
    """Whether the guards of open-ended rewards apply to this row; None leaves it to the settings."""

    @property
    def is_format_only(self) -> bool:
        """Whether the row is scored for format alone."""
        return self.request.task == FORMAT_TASK


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """A row that cannot be scored."""

    line: int
    reason: str


class _BadRowError(ValueError):
    """The row cannot be scored, and why."""


def read_rows(path: Path, config: RewardConfig) -> Iterator[ScoreRow | BadRow]:
    """Read every row of a file, in order, a few at a time.

    Args:
        path: `.parquet`, else JSON lines. Fields: id, task, response, answer; options, image_size [w, h], coord,
            input_size [w, h], answer_type, source, truncated, guards, metadata, images where they matter.
        config: Says which tasks and sources a reward reads.

    Raises:
        DataError: If the file cannot be read at all, or holds no row.
    """
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {found}; give a .jsonl or .parquet file of rows to score")
    line = 0
    for row in rows_of(_parquet_rows(path) if path.suffix == ".parquet" else _json_rows(path), config):
        line = row.line
        yield row
    if not line:
        raise DataError(f"{path} holds no row")


def rows_of(
    records: Iterable[tuple[int, Mapping[str, Any] | str]], config: RewardConfig
) -> Iterator[ScoreRow | BadRow]:
    """Return the rows of (line, fields), or of (line, what is wrong with it).

    Args:
        records: the fields that `read_rows` names.
        config: Says which tasks and sources a reward reads.
    """
    for line, fields in records:
        if isinstance(fields, str):
            yield BadRow(line=line, reason=fields)
            continue
        try:
            yield _row(line, dict(fields), config)
        except (_BadRowError, RewardError) as error:
            yield BadRow(line=line, reason=str(error))


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield (line, object), or (line, what is wrong with it)."""
    with path.open("rb") as file:
        for line, raw in enumerate(file, start=1):
            try:
                text = raw.decode("utf-8-sig" if line == 1 else "utf-8").strip()
                if not text:
                    continue
                fields = json.loads(text)
            except UnicodeDecodeError as error:
                yield line, f"not UTF-8 at byte {error.start}"
            except (ValueError, RecursionError) as error:
                yield line, f"not JSON: {error}"
            else:
                yield (
                    line,
                    _stated(fields) if isinstance(fields, dict) else f"a JSON object is needed, not {_kind(fields)}",
                )


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        file = parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{path} is no Parquet file: {error}") from error
    line = 0
    with file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            for fields in batch.to_pylist():
                line += 1
                yield line, _stated(fields)


def _stated(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that have a value: a null is a field left out."""
    return {name: value for name, value in fields.items() if value is not None}


def _row(line: int, fields: dict[str, Any], config: RewardConfig) -> ScoreRow:
    task = _text(fields, "task")
    source = str(fields.get("source", ""))
    if task != FORMAT_TASK and not config.is_routed(task, source):
        raise _BadRowError(
            f"task is {task!r}; use {', '.join([*config.routes, FORMAT_TASK])}, or name a function for it: "
            f"+reward.routes.{task}=FUNCTION"
        )
    image_size, input_size = _size(fields, "image_size"), _size(fields, "input_size")
    frame = fields.get("coord", "pixel")
    if frame not in FRAMES:
        raise _BadRowError(f"coord is {frame!r}; use {', '.join(FRAMES)}")
    if FRAMES[frame] != "pixel" and not image_size:
        raise _BadRowError(f"coord {frame} needs image_size")
    if FRAMES[frame] == "pixel_resized" and not input_size:
        raise _BadRowError(f"coord {frame} needs input_size")
    guards = fields.get("guards")
    if guards is not None and not isinstance(guards, bool):
        raise _BadRowError(f"guards is {guards!r}; use true or false")
    _check_expectation(fields)
    request = RewardRequest(
        task=task,
        question=str(fields.get("question", "")),
        history=_history(fields),
        response=_text(fields, "response"),
        answer="" if task == FORMAT_TASK else _answer(fields),
        options=_options(fields),
        source=source,
        image_sizes=image_size,
        image_input_sizes=input_size,
        coord_mode=FRAMES[frame],
        answer_type=str(fields.get("answer_type", "")),
        truncated=fields.get("truncated") is True,
        metadata=_metadata(fields),
    )
    return ScoreRow(line=line, row_id=_identifier(fields), fields=fields, request=request, guards=guards)


def _history(fields: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    turns = fields.get("history", [])
    if not isinstance(turns, list) or not all(
        isinstance(turn, list) and len(turn) == 2 and all(isinstance(text, str) for text in turn) for turn in turns
    ):
        raise _BadRowError('history must be a list of [role, text], such as [["user", "Who?"], ["assistant", "He."]]')
    return tuple((role, text) for role, text in turns)


def _check_expectation(fields: Mapping[str, Any]) -> None:
    expected, relation = fields.get("expected"), fields.get("relation")
    bounds = expected if isinstance(expected, list) else [expected]
    if expected is not None and not (
        len(bounds) in (1, 2) and all(isinstance(bound, (int, float)) for bound in bounds)
    ):
        raise _BadRowError(f"expected is {expected!r}; use a number or [low, high]")
    if relation is not None and not (isinstance(relation, dict) and set(relation) <= set(RELATIONS)):
        raise _BadRowError(f"relation is {relation!r}; use {{{' | '.join(RELATIONS)}: id}}")


def _need(fields: Mapping[str, Any], name: str) -> Any:
    if fields.get(name) is None:
        raise _BadRowError(f"{name} is missing")
    return fields[name]


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = _need(fields, name)
    if not isinstance(value, str):
        raise _BadRowError(f"{name} must be text, not {_kind(value)}")
    return value


def _identifier(fields: Mapping[str, Any]) -> str:
    value = _need(fields, "id")
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise _BadRowError(f"id must be text or an integer, not {_kind(value)}")
    return str(value)


def _answer(fields: Mapping[str, Any]) -> str:
    """Return the reference as text; numbers and lists as JSON."""
    value = _need(fields, "answer")
    return value if isinstance(value, str) else json.dumps(value)


def _options(fields: Mapping[str, Any]) -> tuple[str, ...]:
    value = fields.get("options") or ()
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, (str, int, float, list)) for item in value):
        raise _BadRowError(f"options must be a list of texts, not {_kind(value)}")
    return tuple(json.dumps(item, ensure_ascii=False) if isinstance(item, list) else str(item) for item in value)


def _metadata(fields: Mapping[str, Any]) -> dict[str, str]:
    value = fields.get("metadata") or {}
    items = value if isinstance(value, list) else list(value.items()) if isinstance(value, dict) else None
    if items is None or not all(isinstance(item, (list, tuple)) and len(item) == 2 for item in items):
        raise _BadRowError(f"metadata must be an object of texts, not {_kind(value)}")
    return {str(key): text if isinstance(text, str) else json.dumps(text) for key, text in items}


def images_of(row: ScoreRow, folder: Path) -> tuple[bytes, ...]:
    """Return the image files of a row, read where a reward function takes them.

    Args:
        row: Its field `images` is a list of files, or of the bytes of files as a Parquet file holds them.
        folder: The folder from which names of files count.

    Raises:
        DataError: A file cannot be read.
    """
    found = []
    for image in row.fields.get("images") or ():
        held = image if not isinstance(image, dict) else image.get("bytes") or image.get("path")
        if isinstance(held, bytes):
            found.append(held)
            continue
        if not isinstance(held, str):
            raise DataError(f"row {row.row_id}, line {row.line}: images holds {_kind(held)}; name files")
        try:
            found.append((folder / held).read_bytes())
        except OSError as error:
            raise DataError(f"row {row.row_id}, line {row.line}: {folder / held}: {error.strerror}") from error
    return tuple(found)


def _size(fields: Mapping[str, Any], name: str) -> tuple[tuple[int, int], ...]:
    value = fields.get(name)
    if value is None:
        return ()
    is_pair = isinstance(value, (list, tuple)) and len(value) == 2
    if not is_pair or not all(isinstance(side, (int, float)) and 1 <= side <= 1e6 for side in value):
        raise _BadRowError(f"{name} is {value!r}; use [width, height] in pixels")
    return ((int(value[0]), int(value[1])),)


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")
