"""The rows of a recipe on disk, as far as finding duplicates needs them: a scratch database."""

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from orchestration.data.duplicates.row_keys import RowKeys, signature
from orchestration.data.rows.records import Candidate

BATCH_ROWS = 1000
CACHE_KIB = 8 * 1024

_SCHEMA = """
CREATE TABLE rows (place INTEGER PRIMARY KEY, role TEXT, source TEXT, source_id TEXT, is_open INTEGER,
    num_images INTEGER, first_image TEXT, exact BLOB, answer BLOB, question BLOB, family BLOB, profile BLOB,
    words BLOB);
CREATE TABLE images (place INTEGER, number INTEGER, sha256 TEXT, image_id TEXT, look BLOB,
    PRIMARY KEY (place, number)) WITHOUT ROWID;
CREATE TABLE looks (id INTEGER PRIMARY KEY, key BLOB UNIQUE, hash BLOB, thumbnail BLOB);
CREATE TABLE word_sets (id INTEGER PRIMARY KEY, key BLOB UNIQUE, words TEXT, num_words INTEGER, signature BLOB);
CREATE TABLE decisions (place INTEGER PRIMARY KEY, reason TEXT, other INTEGER, note TEXT);
"""
# The scratch is rebuilt from scratch after a crash, so nothing has to survive one.
_PRAGMAS = f"""
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE; PRAGMA temp_store = FILE;
PRAGMA cache_size = -{CACHE_KIB};
"""


class RowIndex:
    """Rows, their images, the distinct looks and word sets, and what was decided; deletes its folder on close."""

    def __init__(self, scratch: Path) -> None:
        """Start an empty index.

        Args:
            scratch: Folder that is this index's own: what is in it is deleted, now and on close.
        """
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        self.folder = scratch
        self.database = sqlite3.connect(scratch / "rows.sqlite", isolation_level=None)
        self.database.executescript(_PRAGMAS)
        self.database.executescript(_SCHEMA)
        self._waiting: dict[str, list[tuple[Any, ...]]] = {"rows": [], "images": [], "looks": [], "word_sets": []}

    def __enter__(self) -> Self:
        """Open already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close and delete."""
        self.close()

    def add(self, row: Candidate, place: int, keys: RowKeys) -> None:
        """Take in one row."""
        waiting = self._waiting
        waiting["rows"].append(
            (
                place,
                row.role,
                row.source,
                row.source_id,
                row.task == "open",
                len(row.images),
                row.images[0].sha256 if row.images else "",
                keys.exact,
                keys.answer,
                keys.question,
                keys.family,
                keys.profile,
                keys.words_key,
            )
        )
        waiting["word_sets"].append(
            (None, keys.words_key, " ".join(keys.words), len(keys.words), signature(keys.words))
        )
        for number, (image, look) in enumerate(zip(row.images, keys.looks, strict=True)):
            waiting["images"].append((place, number, image.sha256, image.image_id, look.key))
            waiting["looks"].append((None, look.key, look.hash, look.thumbnail))
        if len(waiting["rows"]) >= BATCH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        self.database.execute("BEGIN")
        for table, rows in self._waiting.items():
            if rows:
                # Looks and word sets are stored once; a second row at one place is our own mistake and raises.
                once = "OR IGNORE " if table in ("looks", "word_sets") else ""
                marks = ", ".join("?" * len(rows[0]))
                self.database.executemany(f"INSERT {once}INTO {table} VALUES ({marks})", rows)
                rows.clear()
        self.database.execute("COMMIT")

    def read(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """Stream the rows of a query."""
        return iter(self.database.execute(query, values))

    def write(self, statement: str, *values: object) -> None:
        """Run one statement."""
        self.database.execute(statement, values)

    def write_many(self, statement: str, rows: Iterator[tuple[Any, ...]]) -> None:
        """Run one statement for many rows, as one transaction."""
        self.database.execute("BEGIN")
        self.database.executemany(statement, rows)
        self.database.execute("COMMIT")

    def close(self) -> None:
        """Close the database and delete the folder."""
        self.database.close()
        shutil.rmtree(self.folder, ignore_errors=True)
