"""Near-duplicates among the rows that are left: nearly the same images and question, same task and answer."""

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from orchestration.data.duplicates.looks import Looks
from orchestration.data.duplicates.near_pairs import Pairs, Places, buckets, first_matches
from orchestration.data.duplicates.questions import Questions
from orchestration.data.duplicates.row_index import RowIndex
from orchestration.data.rows.reasons import RejectReason
from orchestration.settings.recipe import DeduplicateConfig

LARGE_BUCKET = 4096
"""Members up to which all pairs are compared at once (8 million, about 40 ms); larger buckets are split first."""
REMEMBERED_BUCKET = 64
"""Members from which a bucket that another band gave already is known again and skipped."""

_PROFILES = """
INSERT INTO profiles SELECT profile, family, words, num_images, MIN(place) FROM rows
WHERE role = 'train' AND place NOT IN (SELECT place FROM decisions) GROUP BY profile
"""
# CROSS JOIN, here and elsewhere, is a join in the written order: without statistics SQLite may choose a quadratic one.
_READ_PROFILES = """
SELECT p.first, p.num_images, DENSE_RANK() OVER (ORDER BY p.family), COALESCE(l.id, 0) - 1, w.id - 1
FROM profiles p CROSS JOIN word_sets w ON w.key = p.words
LEFT JOIN images i ON i.place = p.first AND i.number = 0 LEFT JOIN looks l ON l.key = i.look ORDER BY p.first
"""
_PROFILE = np.dtype([("first", "i8"), ("num_images", "i4"), ("family", "i4"), ("look", "i4"), ("words", "i4")])
_DECIDE = """
INSERT INTO decisions SELECT r.place, ?, COALESCE(n.other, p.first), 'nearly the same as'
FROM rows r CROSS JOIN profiles p ON p.profile = r.profile LEFT JOIN near n ON n.first = p.first
WHERE r.role = 'train' AND r.place NOT IN (SELECT place FROM decisions)
AND (n.other IS NOT NULL OR r.place <> p.first)
"""


def decide_near_rows(index: RowIndex, looks: Looks, questions: Questions, settings: DeduplicateConfig) -> None:
    """Decide on every train row that an earlier one nearly equals.

    Any earlier row counts that was not decided on before this stage, also one that goes as a near-duplicate itself:
    chains are not resolved, and the verdict on a row depends on no other verdict. The earliest such row is named.
    """
    index.write(
        "CREATE TABLE profiles (profile BLOB PRIMARY KEY, family BLOB, words BLOB, num_images INTEGER, first INTEGER) "
        "WITHOUT ROWID"
    )
    index.write(_PROFILES)
    near = _NearProfiles(index, looks, questions, settings.min_question_similarity).earliest()
    index.write("CREATE TABLE near (first INTEGER PRIMARY KEY, other INTEGER)")
    index.write_many("INSERT INTO near VALUES (?, ?)", near)
    index.write(_DECIDE, RejectReason.NEAR_DUPLICATE.value)


class _NearProfiles:
    """Profiles (rows that only bytes tell apart count as one) as a table in row order, 24 bytes each."""

    def __init__(self, index: RowIndex, looks: Looks, questions: Questions, similarity: float) -> None:
        self._index, self._looks, self._questions, self._similarity = index, looks, questions, similarity
        table = np.fromiter(index.read(_READ_PROFILES), dtype=_PROFILE)
        self._first, self._num_images = table["first"], table["num_images"]
        self._family, self._look, self._words = table["family"], table["look"], table["words"]

    def earliest(self) -> Iterator[tuple[int, int]]:
        """Give (first row of a profile, earliest row that it nearly equals)."""
        none = len(self._first)
        best = np.full(none, none, dtype=np.int64)
        for bucket in self._unseen(self._buckets()):
            for member, other in first_matches(bucket, bucket, self._matches):
                best[member] = min(best[member], other)
        for member in np.flatnonzero(best < none).tolist():
            yield int(self._first[member]), int(self._first[best[member]])

    def _buckets(self) -> Iterator[Places]:
        """Give sets of profiles such that two which nearly equal each other are together in at least one."""
        everyone = np.arange(len(self._first))
        is_large = np.bincount(self._family)[self._family] > LARGE_BUCKET
        yield from buckets(self._family[~is_large].astype(np.uint64), everyone[~is_large])
        with_images, without = (everyone[is_large & (self._look >= 0)], everyone[is_large & (self._look < 0)])
        if len(with_images):
            for band in range(self._looks.num_bands):
                keys = self._looks.band_keys(self._look[with_images], band)
                # Families that share a key by chance share a bucket, and _matches keeps them apart.
                yield from self._split(
                    keys + self._family[with_images].astype(np.uint64) * 0x9E3779B97F4A7C15, with_images
                )
        if len(without):
            yield from self._split(self._family[without].astype(np.uint64), without)

    def _split(self, keys: NDArray[np.uint64], members: Places) -> Iterator[Places]:
        """Give the buckets of equal keys; large ones in parts by rare words of the questions."""
        for bucket in buckets(keys, members):
            if len(bucket) <= LARGE_BUCKET or self._similarity <= 0:
                yield bucket
                continue
            pairs = self._questions.prefix_keys(self._words[bucket], self._similarity)
            table = np.fromiter(pairs, dtype=np.dtype((np.int64, 2)))
            table = table[np.argsort(table[:, 0], kind="stable")]
            yield from buckets(table[:, 1].astype(np.uint64), bucket[table[:, 0]])

    def _unseen(self, found: Iterator[Places]) -> Iterator[Places]:
        seen: set[bytes] = set()
        for bucket in found:
            if len(bucket) >= REMEMBERED_BUCKET:
                key = hashlib.blake2b(bucket.tobytes(), digest_size=16).digest()
                if key in seen:
                    continue
                seen.add(key)
            yield bucket

    def _matches(self, left: Places, right: Places) -> Pairs:
        if right[0] >= left[-1]:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        if self._look[left[0]] >= 0:
            rows, columns = self._looks.near_hashes(self._look[left], self._look[right])
        else:
            rows, columns = self._questions.near_signatures(self._words[left], self._words[right], self._similarity)
        for check in (self._earlier_of_family, self._similar_questions, self._alike):
            keep = check(left[rows], right[columns])
            rows, columns = rows[keep], columns[keep]
        return rows, columns

    def _earlier_of_family(self, later: Places, earlier: Places) -> NDArray[np.bool_]:
        keep: NDArray[np.bool_] = (earlier < later) & (self._family[earlier] == self._family[later])
        return keep

    def _similar_questions(self, later: Places, earlier: Places) -> NDArray[np.bool_]:
        return self._questions.similar(self._words[later], self._words[earlier], self._similarity)

    def _alike(self, later: Places, earlier: Places) -> NDArray[np.bool_]:
        like = np.ones(len(later), dtype=np.bool_)
        for number in range(int(self._num_images[later].max(initial=0))):
            places = np.flatnonzero(like & (self._num_images[later] > number))
            like[places] = self._looks.alike(
                self._look_of(later[places], number), self._look_of(earlier[places], number)
            )
        return like

    def _look_of(self, members: Places, number: int) -> Places:
        if number == 0:
            return self._look[members]
        unique, places = np.unique(members, return_inverse=True)
        query = "SELECT l.id - 1 FROM images i JOIN looks l ON l.key = i.look WHERE i.place = ? AND i.number = ?"
        found = [next(self._index.read(query, place, number))[0] for place in self._first[unique].tolist()]
        return np.array(found, dtype=np.int64)[places]
