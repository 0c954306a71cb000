"""An index of rows on disk to find duplicates, and the comparison of images and questions.

Images and questions are compared in numpy blocks: all pairs, without approximation.
"""

import base64
import hashlib
import json
import re
import shutil
import sqlite3
import unicodedata
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from orchestration.data.bands import ROUNDING, Patterns, Places, rarest
from orchestration.data.sources.rows import Candidate

HASH_BYTES = 32
THUMBNAIL_BYTES = 16 * 16 * 3
SIGNATURE_BITS = 256
_WORD = re.compile(r"\w+")
_LETTERS = re.compile(r"[A-Z](?:\s*,\s*[A-Z])*")
BATCH_ROWS = 1000
CACHE_KIB = 8 * 1024
WORDS = 4
"""uint64 words of a pattern of 256 bits."""
BLOCK = 512
"""Rows and columns of a compared block: 262,144 pairs, some tens of MB if all pairs are near."""
FEW = 50
"""Comparing one pair alone costs as much as this many pairs of a block."""
READ_ROWS = 8192
THUMBNAIL_PAIRS = 1024
CACHED_SETS = 8192
SIDE = 16
QUARTER = SIDE // 2
NUM_SUMS = 2 * 2 * 3

Pairs = tuple[Places, Places]

# Digests of a row; rows that are equal in what a column describes have equal digests in it.
#   exact:   bytes of the images, normalised question, options in any order, whether the answer is a description
#   question and words count with the row's system text and history: after another history it is another question
#   answer:  without case; for letters the texts of those options, so that the order of options does not matter
#   family:  task, answer, number of images and what was said before, which near-duplicates have in common
#   profile: family, fingerprints of the images (hash and thumbnail), words of the question: near-duplicates if equal
_SCHEMA = """
CREATE TABLE rows (place INTEGER PRIMARY KEY, role TEXT, source TEXT, source_id TEXT, is_open INTEGER,
    num_images INTEGER, first_image TEXT, exact BLOB, answer BLOB, question BLOB, family BLOB, profile BLOB,
    words BLOB, sample_id TEXT);
CREATE TABLE images (place INTEGER, number INTEGER, sha256 TEXT, image_id TEXT, fingerprint BLOB,
    PRIMARY KEY (place, number)) WITHOUT ROWID;
CREATE TABLE fingerprints (id INTEGER PRIMARY KEY, key BLOB UNIQUE, hash BLOB, thumbnail BLOB);
CREATE TABLE word_sets (id INTEGER PRIMARY KEY, key BLOB UNIQUE, words TEXT, num_words INTEGER, signature BLOB);
CREATE TABLE decisions (place INTEGER PRIMARY KEY, reason TEXT, other INTEGER, note TEXT);
"""
# After a crash the index is built again, so nothing has to be durable.
_PRAGMAS = f"""
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE; PRAGMA temp_store = FILE;
PRAGMA cache_size = -{CACHE_KIB};
"""


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
    # A text without letters and digits (a formula, emoji) is unchanged: as empty texts all would be equal.
    return text[start:end] or text


def question_words(text: str) -> frozenset[str]:
    """Return the words of a question, for `jaccard`.

    Example:
        >>> sorted(question_words("Is the dog left of the cat?"))
        ['cat', 'dog', 'is', 'left', 'of', 'the']
    """
    return frozenset(_WORD.findall(normalised_question(text)))


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """Return the Jaccard similarity of two sets of words; 1 if both are empty.

    Example:
        >>> jaccard(frozenset(("a", "b", "c")), frozenset(("b", "c", "d")))
        0.5
    """
    union = len(left | right)
    return len(left & right) / union if union else 1.0


def signature(words: tuple[str, ...]) -> bytes:
    """Return 256 bits in which each word sets one: signatures differ in at most as many bits as the sets in words."""
    bits = 0
    for word in words:
        bits |= 1 << (_crc(word) % SIGNATURE_BITS)
    return bits.to_bytes(SIGNATURE_BITS // 8, "little")


def _answer(row: Candidate) -> str | list[str]:
    if row.options and _LETTERS.fullmatch(row.answer.strip()):
        places = [ord(letter.strip()) - ord("A") for letter in row.answer.split(",")]
        if max(places) < len(row.options):
            return sorted(_plain(row.options[place]) for place in places)
    return _plain(row.answer)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _digest(*parts: object) -> bytes:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).digest()


class RowIndex:
    """SQLite database of rows, images, fingerprints, word sets and decisions; deletes its folder on close."""

    def __init__(self, scratch: Path) -> None:
        """Create an empty index in `scratch`, whose content is deleted now and on close."""
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        self.folder = scratch
        self._database = sqlite3.connect(scratch / "rows.sqlite", isolation_level=None)
        self._database.executescript(_PRAGMAS)
        self._database.executescript(_SCHEMA)
        tables = ("rows", "images", "fingerprints", "word_sets")
        self._waiting: dict[str, list[tuple[Any, ...]]] = {table: [] for table in tables}

    def add(self, row: Candidate, place: int) -> None:
        """Add one row.

        Args:
            row: Compared by the digests of its images and by `stem`, the question without the prompt template.
            place: Unique number in the recipe, from 0: of two equal rows the one with the lower place stays.
        """
        waiting = self._waiting
        told = [_plain(row.system), *((turn.role, _plain(turn.text)) for turn in row.history)]
        tag = f"{_digest(told).hex()}/" if row.system or row.history else ""
        question = tag + normalised_question(row.stem)
        words = tuple(sorted(tag + word for word in question_words(row.stem)))
        answer, words_key, fingerprints = _answer(row), _digest(words), []
        for number, image in enumerate(row.images):
            hash_bytes, thumbnail = bytes.fromhex(image.dhash), base64.b64decode(image.thumbnail)
            assert len(hash_bytes) == HASH_BYTES, f"dhash of {image.sha256} has {len(hash_bytes)} bytes"
            assert len(thumbnail) == THUMBNAIL_BYTES, f"thumbnail of {image.sha256} has {len(thumbnail)} bytes"
            key = hashlib.blake2b(hash_bytes + thumbnail, digest_size=16).digest()
            fingerprints.append(key.hex())
            waiting["images"].append((place, number, image.sha256, image.image_id, key))
            waiting["fingerprints"].append((None, key, hash_bytes, thumbnail))
        options = sorted(map(_plain, row.options))
        exact = _digest([image.sha256 for image in row.images], question, options, row.task == "open")
        family = _digest(row.task, answer, len(row.images), tag)
        profile = _digest(family.hex(), fingerprints, words_key.hex())
        waiting["word_sets"].append((None, words_key, " ".join(words), len(words), signature(words)))
        waiting["rows"].append(
            (
                place,
                row.role,
                row.source,
                row.source_id,
                row.task == "open",
                len(row.images),
                row.images[0].sha256 if row.images else "",
                exact,
                _digest(answer),
                _digest(question),
                family,
                profile,
                words_key,
                row.sample_id,
            )
        )
        if len(waiting["rows"]) >= BATCH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write the rows added since the last call."""
        self._database.execute("BEGIN")
        for table, rows in self._waiting.items():
            if rows:
                # Fingerprints and word sets are stored once; two rows at one place are a bug and raise.
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
        """Yield the rows of a query in blocks, each with the range of its row numbers."""
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._database.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class ImageFingerprints:
    """Compares images by number, which is the id of their fingerprint in the index minus 1.

    Two are alike if their hashes differ in few bits and no value of their thumbnails differs by much.
    """

    def __init__(self, index: RowIndex, *, max_distance: int, max_difference: int) -> None:
        """Write the fingerprints of the index into mapped files in its folder.

        Args:
            index: Contains all rows.
            max_distance: Bits of 256 in which the hashes of similar images may differ.
            max_difference: Largest difference, of 255, of any value of their thumbnails.
        """
        self.max_distance, self._max_difference = max_distance, max_difference
        rows = max(index.count("fingerprints"), 1)
        self._hashes = np.memmap(index.folder / "hashes", np.uint64, "w+", shape=(rows, WORDS))
        self._thumbnails = np.memmap(index.folder / "thumbnails", np.uint8, "w+", shape=(rows, THUMBNAIL_BYTES))
        self._quarters = np.memmap(index.folder / "quarters", np.uint16, "w+", shape=(rows, NUM_SUMS))
        for part, block in index.blocks("SELECT hash, thumbnail FROM fingerprints ORDER BY id", READ_ROWS):
            hashes = np.frombuffer(b"".join(row[0] for row in block), np.uint8).reshape(-1, HASH_BYTES)
            thumbnails = np.frombuffer(b"".join(row[1] for row in block), np.uint8).reshape(-1, THUMBNAIL_BYTES)
            self._hashes[part] = np.ascontiguousarray(hashes).view(np.uint64)
            self._thumbnails[part] = thumbnails
            sums = thumbnails.reshape(-1, 2, QUARTER, 2, QUARTER, 3).sum(axis=(2, 4), dtype=np.uint16)
            self._quarters[part] = sums.reshape(-1, NUM_SUMS)

    def hashes(self, members: Places) -> Patterns:
        """Return the hashes of images."""
        return np.asarray(self._hashes[members])

    def near_hashes(self, left: Places, right: Places) -> Pairs:
        """Return all (i, j) whose hashes are close; their thumbnails are not compared yet."""
        return pairs_within(self._hashes[left], self._hashes[right], self.max_distance)

    def alike(self, left: Places, right: Places) -> NDArray[np.bool_]:
        """Return for each pair (left[i], right[i]) whether hash and thumbnail are close."""
        like = distances(self._hashes[left], self._hashes[right]) <= self.max_distance
        # The mean of a quarter cannot differ by more than its worst cell, so these sums decide most pairs.
        places = np.flatnonzero(like)
        sums = self._quarters[left[places]].astype(np.int32) - self._quarters[right[places]]
        apart = np.abs(sums).max(axis=1, initial=0)
        like[places[apart > self._max_difference * QUARTER * QUARTER]] = False
        places = np.flatnonzero(like & (left != right))
        for start in range(0, len(places), THUMBNAIL_PAIRS):
            part = places[start : start + THUMBNAIL_PAIRS]
            difference = self._thumbnails[left[part]].astype(np.int16) - self._thumbnails[right[part]]
            like[part] = np.abs(difference).max(axis=1) <= self._max_difference
        return like


class Questions:
    """Compares questions by number, which is the id of their word set in the index minus 1."""

    def __init__(self, index: RowIndex) -> None:
        """Write the signatures of all word sets of the index into mapped files in its folder."""
        self._index = index
        rows = max(index.count("word_sets"), 1)
        self._signatures = np.memmap(index.folder / "signatures", np.uint64, "w+", shape=(rows, WORDS))
        self._num_words = np.memmap(index.folder / "num_words", np.int64, "w+", shape=(rows,))
        for part, block in index.blocks("SELECT signature, num_words FROM word_sets ORDER BY id", READ_ROWS):
            self._signatures[part] = np.frombuffer(b"".join(row[0] for row in block), np.uint64).reshape(-1, WORDS)
            self._num_words[part] = [row[1] for row in block]
        self._words = lru_cache(maxsize=CACHED_SETS)(self._read_words)
        self._rarest: tuple[Places, NDArray[np.uint32]] | None = None

    def rarest(self, members: Places, similarity: float) -> tuple[Places, NDArray[np.uint64]]:
        """Return the rarest words of questions, such that similar ones have one in common: (index in members, word)."""
        if self._rarest is None:
            self._rarest = self._find_rarest(similarity)
        starts, words = self._rarest
        first, counts = starts[members], starts[members + 1] - starts[members]
        rows = np.repeat(np.arange(len(members)), counts)
        offsets = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        return rows, words[np.repeat(first, counts) + offsets].astype(np.uint64)

    def _find_rarest(self, similarity: float) -> tuple[Places, NDArray[np.uint32]]:
        """Return the first place of each word set, and one behind the last, and at these places its rarest words."""
        frequency: Counter[str] = Counter()
        for (words,) in self._index.read("SELECT words FROM word_sets"):
            frequency.update(words.split(" "))
        starts, found = array("q", [0]), array("I")
        for (words,) in self._index.read("SELECT words FROM word_sets ORDER BY id"):
            split = words.split(" ")
            found.extend(map(_crc, rarest(split, [frequency[word] for word in split], similarity)))
            starts.append(len(found))
        return np.array(starts), np.array(found, np.uint32)

    def near_signatures(self, left: Places, right: Places, similarity: float) -> Pairs:
        """Return all (i, j) whose similarity may be large enough; it is not computed yet."""
        most = int(self._num_words[left].max() + self._num_words[right].max())
        limit = int(_most_unequal(most, similarity))
        return pairs_within(self._signatures[left], self._signatures[right], limit)

    def similar(self, left: Places, right: Places, similarity: float) -> NDArray[np.bool_]:
        """Return for each pair (left[i], right[i]) whether the Jaccard similarity is at least `similarity`."""
        unequal = distances(self._signatures[left], self._signatures[right])
        like = unequal <= _most_unequal(self._num_words[left] + self._num_words[right], similarity)
        places = np.flatnonzero(like)
        # The same pair of word sets often recurs and is compared once.
        num_sets = len(self._num_words)
        pairs, of_pair = np.unique(left[places].astype(np.int64) * num_sets + right[places], return_inverse=True)
        numbers = (divmod(pair, num_sets) for pair in pairs.tolist())
        verdicts = [jaccard(self._words(a), self._words(b)) >= similarity for a, b in numbers]
        like[places] = np.array(verdicts, dtype=np.bool_)[of_pair]
        return like

    def _read_words(self, number: int) -> frozenset[str]:
        words: str = next(self._index.read("SELECT words FROM word_sets WHERE id = ?", number + 1))[0]
        return frozenset(words.split(" ")) if words else frozenset()


def _crc(word: str) -> int:
    return zlib.crc32(word.encode("utf-8", "surrogatepass"))


def _most_unequal(num_words: NDArray[np.int64] | int, similarity: float) -> NDArray[np.int64]:
    """Return how many words two sets of together `num_words` may not share: (1 - s) / (1 + s) of them.

    Follows from |A & B| >= s |A | B|.
    """
    return np.floor(np.asarray(num_words) * ((1 - similarity) / (1 + similarity)) + ROUNDING).astype(np.int64)


def pairs_within(left: Patterns, right: Patterns, limit: int) -> Pairs:
    """Return all (i, j) with at most `limit` unequal bits between left[i] and right[j], sorted.

    The first of the four words decides most pairs of photographs; similar images need all four.
    """
    unequal = np.bitwise_count(left[:, None, 0] ^ right[None, :, 0]).astype(np.uint16)
    for word in range(1, WORDS):
        if np.count_nonzero(unequal <= limit) * FEW < unequal.size:
            rows, columns = np.nonzero(unequal <= limit)
            near = distances(left[rows], right[columns]) <= limit
            return rows[near], columns[near]
        unequal += np.bitwise_count(left[:, None, word] ^ right[None, :, word])
    rows, columns = np.nonzero(unequal <= limit)
    return rows, columns


def distances(left: Patterns, right: Patterns) -> NDArray[np.int64]:
    """Return the number of unequal bits of left[i] and right[i]."""
    unequal: NDArray[np.int64] = np.bitwise_count(np.asarray(left) ^ right).sum(axis=-1, dtype=np.int64)
    return unequal


def first_matches(left: Places, right: Places, matches: Callable[[Places, Places], Pairs]) -> Iterator[tuple[int, int]]:
    """Yield (member of left, first member of right that it matches), for those that match any.

    Blocks of `right` are compared in order, and a member with a match is not compared further, so many duplicates cost
    little.

    Args:
        left: Members to find a match for.
        right: Members to be found, best first.
        matches: Confirmed pairs (i, j) of a block of each, sorted by i and then j.
    """
    for start in range(0, len(left), BLOCK):
        open_ = left[start : start + BLOCK]
        for other in range(0, len(right), BLOCK):
            block = right[other : other + BLOCK]
            rows, columns = matches(open_, block)
            found, firsts = np.unique(rows, return_index=True)
            yield from zip(open_[found].tolist(), block[columns[firsts]].tolist(), strict=True)
            open_ = np.delete(open_, found)
            if not len(open_):
                break
