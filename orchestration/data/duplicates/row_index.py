"""The rows of a recipe on disk, as far as finding duplicates needs them: a scratch database of digests."""

import base64
import hashlib
import json
import re
import shutil
import sqlite3
import unicodedata
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestration.data.rows import Candidate, StoredImage

HASH_BYTES = 32
THUMBNAIL_BYTES = 16 * 16 * 3
SIGNATURE_BITS = 256
_WORD = re.compile(r"\w+")
_LETTERS = re.compile(r"[A-Z](?:\s*,\s*[A-Z])*")
BATCH_ROWS = 1000
CACHE_KIB = 8 * 1024

_SCHEMA = """
CREATE TABLE rows (place INTEGER PRIMARY KEY, role TEXT, source TEXT, source_id TEXT, is_open INTEGER,
    num_images INTEGER, first_image TEXT, exact BLOB, answer BLOB, question BLOB, family BLOB, profile BLOB,
    words BLOB);
CREATE TABLE images (place INTEGER, number INTEGER, sha256 TEXT, image_id TEXT, fingerprint BLOB,
    PRIMARY KEY (place, number)) WITHOUT ROWID;
CREATE TABLE fingerprints (id INTEGER PRIMARY KEY, key BLOB UNIQUE, hash BLOB, thumbnail BLOB);
CREATE TABLE word_sets (id INTEGER PRIMARY KEY, key BLOB UNIQUE, words TEXT, num_words INTEGER, signature BLOB);
CREATE TABLE decisions (place INTEGER PRIMARY KEY, reason TEXT, other INTEGER, note TEXT);
"""
# After a crash the index is built anew, so nothing has to be durable.
_PRAGMAS = f"""
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE; PRAGMA temp_store = FILE;
PRAGMA cache_size = -{CACHE_KIB};
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """Hash and thumbnail of an image; images with equal ones differ in bytes only."""

    key: bytes
    hash: bytes
    """256 bits."""
    thumbnail: bytes
    """16 x 16 x 3 means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowKeys:
    """Digests of a row: two rows are equal in what has equal digests."""

    exact: bytes
    """Bytes of the images, normalised question, options in any order; descriptions apart from other tasks."""
    answer: bytes
    """The answer without case; of a lettered one the texts of its options, so that their order does not matter."""
    question: bytes
    """Normalised question."""
    family: bytes
    """Task, answer and number of images: near-duplicates are of one family."""
    profile: bytes
    """Family, fingerprints of the images, words of the question: rows of one profile are near-duplicates."""
    words: tuple[str, ...]
    """Of the question, sorted, each once."""
    words_key: bytes
    fingerprints: tuple[Fingerprint, ...]
    """Of the images, in order."""


def normalised_question(text: str) -> str:
    """Return the form in which questions are compared: NFKC, case-folded, single spaces, no punctuation at the ends.

    Example:
        >>> normalised_question('  "How many  DOGS?" ')
        'how many dogs'
    """
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    start, end = 0, len(text)
    while start < end and not text[start].isalnum():
        start += 1
    while end > start and not text[end - 1].isalnum():
        end -= 1
    # A text of signs alone (a formula, emoji) is left unchanged: emptied, all such questions would be equal.
    return text[start:end] or text


def question_words(text: str) -> frozenset[str]:
    """Return the words of a question, for `jaccard`.

    Example:
        >>> sorted(question_words("Is the dog left of the cat?"))
        ['cat', 'dog', 'is', 'left', 'of', 'the']
    """
    return frozenset(_WORD.findall(normalised_question(text)))


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """Return the share of the words of either question that both have; 1 where neither has any.

    Example:
        >>> jaccard(frozenset(("a", "b", "c")), frozenset(("b", "c", "d")))
        0.5
    """
    union = len(left | right)
    return len(left & right) / union if union else 1.0


def row_keys(row: Candidate) -> RowKeys:
    """Return the keys of one row; of its question only `stem` counts, not the prompt template."""
    question = normalised_question(row.stem)
    words = tuple(sorted(question_words(row.stem)))
    options = sorted(map(_plain, row.options))
    answer = _answer(row)
    fingerprints = tuple(map(_fingerprint, row.images))
    family = _digest(row.task, answer, len(row.images))
    words_key = _digest(words)
    return RowKeys(
        exact=_digest([image.sha256 for image in row.images], question, options, row.task == "open"),
        answer=_digest(answer),
        question=_digest(question),
        family=family,
        profile=_digest(family.hex(), [image.key.hex() for image in fingerprints], words_key.hex()),
        words=words,
        words_key=words_key,
        fingerprints=fingerprints,
    )


def signature(words: tuple[str, ...]) -> bytes:
    """Return 256 bits of which every word sets one: signatures differ in no more bits than the sets differ in words."""
    bits = 0
    for word in words:
        bits |= 1 << (zlib.crc32(word.encode("utf-8", "surrogatepass")) % SIGNATURE_BITS)
    return bits.to_bytes(SIGNATURE_BITS // 8, "little")


def _answer(row: Candidate) -> str | list[str]:
    if row.options and _LETTERS.fullmatch(row.answer.strip()):
        places = [ord(letter.strip()) - ord("A") for letter in row.answer.split(",")]
        if max(places) < len(row.options):
            return sorted(_plain(row.options[place]) for place in places)
    return _plain(row.answer)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _fingerprint(image: StoredImage) -> Fingerprint:
    hash_bytes, thumbnail = bytes.fromhex(image.dhash), base64.b64decode(image.thumbnail)
    assert len(hash_bytes) == HASH_BYTES, f"dhash of {image.sha256} has {len(hash_bytes)} bytes"
    assert len(thumbnail) == THUMBNAIL_BYTES, f"thumbnail of {image.sha256} has {len(thumbnail)} bytes"
    key = hashlib.blake2b(hash_bytes + thumbnail, digest_size=16).digest()
    return Fingerprint(key=key, hash=hash_bytes, thumbnail=thumbnail)


def _digest(*parts: object) -> bytes:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).digest()


class RowIndex:
    """Rows, images, distinct fingerprints and word sets, and decisions in SQLite; deletes its folder on close."""

    def __init__(self, scratch: Path) -> None:
        """Start an empty index in a folder of its own, whose content is deleted now and on close."""
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        self.folder = scratch
        self._database = sqlite3.connect(scratch / "rows.sqlite", isolation_level=None)
        self._database.executescript(_PRAGMAS)
        self._database.executescript(_SCHEMA)
        self._waiting: dict[str, list[tuple[Any, ...]]] = {
            "rows": [],
            "images": [],
            "fingerprints": [],
            "word_sets": [],
        }

    def add(self, row: Candidate, place: int, keys: RowKeys) -> None:
        """Add one row."""
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
        for number, (image, found) in enumerate(zip(row.images, keys.fingerprints, strict=True)):
            waiting["images"].append((place, number, image.sha256, image.image_id, found.key))
            waiting["fingerprints"].append((None, found.key, found.hash, found.thumbnail))
        if len(waiting["rows"]) >= BATCH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write the rows that were added since."""
        self._database.execute("BEGIN")
        for table, rows in self._waiting.items():
            if rows:
                # Fingerprints and word sets are stored once; a second row at one place is our own mistake and raises.
                once = "OR IGNORE " if table in ("fingerprints", "word_sets") else ""
                marks = ", ".join("?" * len(rows[0]))
                self._database.executemany(f"INSERT {once}INTO {table} VALUES ({marks})", rows)
                rows.clear()
        self._database.execute("COMMIT")

    def read(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """Stream the rows of a query."""
        return iter(self._database.execute(query, values))

    def count(self, table: str) -> int:
        """Return the number of rows of a table."""
        return int(next(self.read(f"SELECT COUNT(*) FROM {table}"))[0])

    def blocks(self, query: str, size: int) -> Iterator[tuple[slice, list[tuple[Any, ...]]]]:
        """Return the rows of a query in blocks, each with the range of its row numbers."""
        cursor, start = self._database.execute(query), 0
        while block := cursor.fetchmany(size):
            yield slice(start, start + len(block)), block
            start += len(block)

    def write(self, statement: str, *values: object) -> None:
        """Run one statement."""
        self._database.execute(statement, values)

    def write_many(self, statement: str, rows: Iterator[tuple[Any, ...]]) -> None:
        """Run one statement for many rows, as one transaction."""
        self._database.execute("BEGIN")
        self._database.executemany(statement, rows)
        self._database.execute("COMMIT")

    def close(self) -> None:
        """Close the database and delete the folder."""
        self._database.close()
        shutil.rmtree(self.folder, ignore_errors=True)
