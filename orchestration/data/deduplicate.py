"""Which rows are rejected because of another row: duplicates, contradictions, leaks, too many of one image."""

import hashlib
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from orchestration.data.bands import Keys, Places, band_keys, equal_pairs, joint_keys, num_pairs
from orchestration.data.row_index import (
    FEW,
    ImageFingerprints,
    Pairs,
    Questions,
    RowIndex,
    distances,
    first_matches,
)
from orchestration.data.sources.rows import RejectReason
from orchestration.settings.recipe import DeduplicateConfig

LEAK_SIMILARITY = 0.9
LEAK_WORDS = 4
"""Shorter questions are too common to prove a leak, unless they are equal."""

MIN_KEYED = 2048
"""Rows of one task and answer from which pairs are looked for by keys instead of compared all with all."""

_NOT_DECIDED = "r.place NOT IN (SELECT place FROM decisions)"
_EQUAL_IMAGE = f"""
INSERT INTO decisions SELECT r.place, ?, MIN(e.place), ? FROM rows r CROSS JOIN images i ON i.place = r.place
CROSS JOIN evaluation_images e ON e.{{column}} = i.{{column}}
WHERE r.role = 'train' AND {_NOT_DECIDED} AND i.{{column}} <> '' GROUP BY r.place
"""
_EQUAL_QUESTION = f"""
INSERT INTO decisions SELECT r.place, ?, MIN(e.place), ? FROM rows r CROSS JOIN rows e ON e.question = r.question
WHERE r.role = 'train' AND e.role <> 'train' AND r.num_images = 0 AND e.num_images = 0 AND {_NOT_DECIDED}
GROUP BY r.place
"""
_NEAR_IMAGE = f"""
INSERT INTO decisions SELECT r.place, ?, MIN(m.other), ? FROM rows r CROSS JOIN images i ON i.place = r.place
CROSS JOIN fingerprints l ON l.key = i.fingerprint CROSS JOIN leaked_fingerprints m ON m.member = l.id - 1
WHERE r.role = 'train' AND {_NOT_DECIDED} GROUP BY r.place
"""
_NEAR_QUESTION = f"""
INSERT INTO decisions SELECT r.place, ?, m.other, ? FROM rows r CROSS JOIN word_sets w ON w.key = r.words
CROSS JOIN leaked_words m ON m.member = w.id - 1 WHERE r.role = 'train' AND r.num_images = 0 AND {_NOT_DECIDED}
"""
_FINGERPRINTS = """
SELECT l.id - 1, MIN(r.place) FROM rows r CROSS JOIN images i ON i.place = r.place
CROSS JOIN fingerprints l ON l.key = i.fingerprint
WHERE {role} GROUP BY l.id ORDER BY 2
"""
_WORDS = f"""
SELECT w.id - 1, MIN(r.place) FROM rows r CROSS JOIN word_sets w ON w.key = r.words
WHERE {{role}} AND r.num_images = 0 AND w.num_words >= {LEAK_WORDS} GROUP BY w.id ORDER BY 2
"""
_TRAIN = f"r.role = 'train' AND {_NOT_DECIDED}"
_EVALUATION = "r.role <> 'train'"
_PROFILES = """
INSERT INTO profiles SELECT profile, family, words, num_images, MIN(place) FROM rows
WHERE role = 'train' AND place NOT IN (SELECT place FROM decisions) GROUP BY profile
"""
# CROSS JOIN, here and elsewhere, is a join in the written order: without statistics SQLite may choose a quadratic one.
_READ_PROFILES = """
SELECT p.first, p.num_images, DENSE_RANK() OVER (ORDER BY p.family), COALESCE(l.id, 0) - 1, w.id - 1
FROM profiles p CROSS JOIN word_sets w ON w.key = p.words
LEFT JOIN images i ON i.place = p.first AND i.number = 0 LEFT JOIN fingerprints l ON l.key = i.fingerprint
ORDER BY p.first
"""
_PROFILE = np.dtype([("first", "i8"), ("num_images", "i4"), ("family", "i4"), ("image", "i4"), ("words", "i4")])
_NEAR_ROWS = """
INSERT INTO decisions SELECT r.place, ?, COALESCE(n.other, p.first), 'nearly the same as'
FROM rows r CROSS JOIN profiles p ON p.profile = r.profile LEFT JOIN near n ON n.first = p.first
WHERE r.role = 'train' AND r.place NOT IN (SELECT place FROM decisions)
AND (n.other IS NOT NULL OR r.place <> p.first)
"""
# Rows of one key: `first`, and `other`, the first whose answer is not the first one's; null for descriptions, which
# may well differ.
_EQUAL_KEYS = """
CREATE TABLE equal_keys AS SELECT k.role, k.exact, k.first, CASE WHEN k.is_open THEN NULL ELSE (
    SELECT MIN(r.place) FROM rows f CROSS JOIN rows r ON f.place = k.first
    WHERE r.role = k.role AND r.exact = k.exact AND r.answer <> f.answer) END AS other
FROM (SELECT role, exact, is_open, MIN(place) AS first FROM rows
    WHERE role <> 'guard' AND place NOT IN (SELECT place FROM decisions)
    GROUP BY role, exact HAVING COUNT(*) > 1) k
"""
_CONFLICTS = """
INSERT INTO decisions SELECT r.place, ?, CASE WHEN r.answer = f.answer THEN k.other ELSE k.first END,
    'another answer than'
FROM equal_keys k CROSS JOIN rows f ON f.place = k.first CROSS JOIN rows r ON r.role = k.role AND r.exact = k.exact
WHERE k.other IS NOT NULL AND r.place NOT IN (SELECT place FROM decisions)
"""
_DUPLICATES = """
INSERT INTO decisions SELECT r.place, ?, k.first, 'same images and question as'
FROM equal_keys k CROSS JOIN rows r ON r.role = k.role AND r.exact = k.exact
WHERE k.other IS NULL AND r.place <> k.first AND r.place NOT IN (SELECT place FROM decisions)
"""
_TOO_MANY = """
INSERT INTO decisions SELECT place, ?, first, 'image of' FROM (
    SELECT place, ROW_NUMBER() OVER of_image AS number, MIN(place) OVER of_image AS first FROM rows
    WHERE role = 'train' AND num_images > 0 AND place NOT IN (SELECT place FROM decisions)
    WINDOW of_image AS (PARTITION BY first_image ORDER BY place))
WHERE number > ?
"""
_RESULT = """
SELECT d.place, d.reason, d.note, r.source, r.source_id FROM decisions d CROSS JOIN rows r ON r.place = d.other
ORDER BY d.place
"""
_LATER_OF_ID = """
SELECT place, source, source_id, sample_id FROM (
    SELECT place, source, source_id, sample_id, ROW_NUMBER() OVER of_id AS number FROM rows
    WHERE role <> 'guard' AND place NOT IN (SELECT place FROM decisions)
    WINDOW of_id AS (PARTITION BY source, source_id ORDER BY place))
WHERE number > 1 ORDER BY place
"""
_HAS_ID = "SELECT EXISTS (SELECT 1 FROM rows WHERE source = ? AND source_id = ?)"
_REASONS = {reason.value: reason for reason in RejectReason}


def decide(index: RowIndex, settings: DeduplicateConfig) -> Iterator[tuple[int, RejectReason, str]]:
    """Yield (place, reason, detail that names the other row) of each rejected row, in order of places.

    Four rules, each applied to the rows that the earlier ones keep: leaks, equal rows, near-duplicates, rows per image.
    The result depends on the rows and their places alone, not on the order in which they were added. Guard rows are
    never rejected; held_out rows only as duplicates of and conflicts with each other.

    Args:
        index: Contains all rows; an index can be used once.
        settings: Thresholds of near-duplicates.
    """
    index.flush()
    questions = Questions(index)
    images = None
    if settings.perceptual:
        images = ImageFingerprints(
            index, max_distance=settings.max_hash_distance, max_difference=settings.max_thumbnail_difference
        )
    _decide_leaks(index, images, questions)
    index.write("CREATE INDEX rows_exact ON rows (role, exact, place, answer)")
    index.write(_EQUAL_KEYS)
    index.write(_CONFLICTS, RejectReason.CONFLICTING_ANSWERS.value)
    index.write(_DUPLICATES, RejectReason.DUPLICATE.value)
    if images is not None:
        _decide_near_rows(index, images, questions, settings.min_question_similarity)
    if settings.max_rows_per_image is not None:
        index.write(_TOO_MANY, RejectReason.TOO_MANY_OF_IMAGE.value, settings.max_rows_per_image)
    _rename(index)
    for place, reason, note, source, source_id in index.read(_RESULT):
        yield place, _REASONS[reason], f"{note} {source} {source_id}"


def distinct_ids(index: RowIndex) -> Iterator[tuple[int, str, str]]:
    """Yield (place, source id, sample id) anew of each kept row whose source id an earlier row of its source has.

    Args:
        index: As `decide` leaves it once it has given a verdict, or ended.
    """
    yield from index.read("SELECT place, source_id, sample_id FROM renamed ORDER BY place")


def _rename(index: RowIndex) -> None:
    """Number rows that repeat the id of an earlier row of their source: the second row 7 becomes `7#2`.

    Adapters number repeated ids within one file; several files of a source, and sources of one label, meet here first.
    """
    index.write("CREATE TABLE renamed (place INTEGER PRIMARY KEY, source_id TEXT, sample_id TEXT)")
    index.write("CREATE INDEX rows_id ON rows (source, source_id)")
    last: dict[tuple[str, str], int] = {}
    renamed = []
    for place, source, source_id, sample_id in index.read(_LATER_OF_ID):
        number = last.get((source, source_id), 1) + 1
        while next(index.read(_HAS_ID, source, f"{source_id}#{number}"))[0]:
            number += 1
        last[source, source_id] = number
        own = hashlib.blake2b(f"{sample_id}#{number}".encode(), digest_size=20).hexdigest()
        renamed.append((place, f"{source_id}#{number}", own))
    index.write_many("INSERT INTO renamed VALUES (?, ?, ?)", iter(renamed))


def _decide_leaks(index: RowIndex, images: ImageFingerprints | None, questions: Questions) -> None:
    """Reject each train row with an image, or a question without image, of a held_out or guard row.

    Fingerprints are compared all with all, in blocks: about 4 ns a pair, 8 s for 200,000 in training against 10,000 in
    evaluation.

    Args:
        index: Contains all rows.
        images: Fingerprints of the index; None to compare images exactly only.
        questions: Word sets of the index.
    """
    index.write(
        "CREATE TABLE evaluation_images AS SELECT i.sha256, i.image_id, MIN(r.place) AS place FROM images i "
        "JOIN rows r ON r.place = i.place WHERE r.role <> 'train' GROUP BY 1, 2"
    )
    for column, note in (("sha256", "the same image as in"), ("image_id", "an image of the same name as in")):
        index.write(f"CREATE INDEX evaluation_{column} ON evaluation_images ({column})")
        index.write(_EQUAL_IMAGE.format(column=column), RejectReason.LEAKED_IMAGE.value, note)
    if images is not None:
        _match(index, "leaked_fingerprints", _FINGERPRINTS, partial(_like_images, images))
        index.write(_NEAR_IMAGE, RejectReason.LEAKED_IMAGE.value, "nearly the same image as in")
    index.write("CREATE INDEX rows_question ON rows (question) WHERE num_images = 0")
    index.write(_EQUAL_QUESTION, RejectReason.LEAKED_QUESTION.value, "the same question as")
    _match(index, "leaked_words", _WORDS, partial(_like_questions, questions))
    index.write(_NEAR_QUESTION, RejectReason.LEAKED_QUESTION.value, "nearly the same question as")


def _match(index: RowIndex, table: str, query: str, matches: Callable[[Places, Places], Pairs]) -> None:
    """Fill `table` with (training member, earliest place of an evaluation row that it matches)."""
    index.write(f"CREATE TABLE {table} (member INTEGER PRIMARY KEY, other INTEGER)")
    ours = np.fromiter((member for member, _ in index.read(query.format(role=_TRAIN))), dtype=np.int64)
    theirs = np.array(list(index.read(query.format(role=_EVALUATION))), dtype=np.int64).reshape(-1, 2)
    places = dict(zip(theirs[:, 0].tolist(), theirs[:, 1].tolist(), strict=True))
    # Sorted, because fingerprints and word sets are in mapped files in order of number.
    found = first_matches(np.sort(ours), np.ascontiguousarray(theirs[:, 0]), matches)
    index.write_many(f"INSERT INTO {table} VALUES (?, ?)", ((member, places[other]) for member, other in found))


def _like_images(images: ImageFingerprints, left: Places, right: Places) -> Pairs:
    rows, columns = images.near_hashes(left, right)
    keep = images.alike(left[rows], right[columns])
    return rows[keep], columns[keep]


def _like_questions(questions: Questions, left: Places, right: Places) -> Pairs:
    rows, columns = questions.near_signatures(left, right, LEAK_SIMILARITY)
    keep = questions.similar(left[rows], right[columns], LEAK_SIMILARITY)
    return rows[keep], columns[keep]


def _decide_near_rows(index: RowIndex, images: ImageFingerprints, questions: Questions, similarity: float) -> None:
    """Reject each train row with an earlier near-duplicate: similar images and question, same task and answer.

    Any earlier row counts that an earlier rule kept, even if it is rejected as a near-duplicate itself: chains are not
    resolved, so the verdict on a row depends on no other verdict. The earliest such row is named.
    """
    index.write(
        "CREATE TABLE profiles (profile BLOB PRIMARY KEY, family BLOB, words BLOB, num_images INTEGER, first INTEGER) "
        "WITHOUT ROWID"
    )
    index.write(_PROFILES)
    near = _NearProfiles(index, images, questions, similarity).earliest()
    index.write("CREATE TABLE near (first INTEGER PRIMARY KEY, other INTEGER)")
    index.write_many("INSERT INTO near VALUES (?, ?)", near)
    index.write(_NEAR_ROWS, RejectReason.NEAR_DUPLICATE.value)


class _NearProfiles:
    """Profiles (rows that differ only in bytes share one) as a table in row order, 24 bytes each."""

    def __init__(self, index: RowIndex, images: ImageFingerprints, questions: Questions, similarity: float) -> None:
        self._index, self._images, self._questions, self._similarity = index, images, questions, similarity
        table = np.fromiter(index.read(_READ_PROFILES), dtype=_PROFILE)
        self._first, self._num_images = table["first"], table["num_images"]
        self._family, self._image, self._words = table["family"], table["image"], table["words"]

    def earliest(self) -> Iterator[tuple[int, int]]:
        """Yield (first row of a profile, its earliest near-duplicate)."""
        order = np.argsort(self._family, kind="stable")
        starts = np.flatnonzero(np.diff(self._family[order], prepend=-1))
        for family in np.split(order, starts[1:]):
            if len(family) > 1:
                for member, other in self._by_keys(family) or first_matches(family, family, self._matches):
                    yield int(self._first[member]), int(self._first[other])

    def _by_keys(self, family: Places) -> Iterator[tuple[int, int]] | None:
        """Return (member, first member that it matches) of a large family, found by keys; None if keys do not help."""
        if len(family) < MIN_KEYED or not self._similarity:
            return None
        rows, words = self._questions.rarest(self._words[family], self._similarity)
        limit = self._images.max_distance
        hashes = self._images.hashes(self._image[family]) if self._image[family[0]] >= 0 else None

        def keys() -> Iterator[Keys]:
            return iter([words]) if hashes is None else joint_keys(band_keys(hashes, limit), rows, words)

        if num_pairs(keys()) * FEW > len(family) * (len(family) - 1) // 2:
            return None
        none = len(family)
        earliest = np.full(none, none)
        for later, earlier in equal_pairs(keys()):
            left, right = rows[later], rows[earlier]
            near = left != right
            if hashes is not None:
                near &= distances(hashes[left], hashes[right]) <= limit
            left, right = left[near], right[near]
            like = self._alike(family[left], family[right])
            np.minimum.at(earliest, left[like], right[like])
        found = np.flatnonzero(earliest < none)
        return zip(family[found].tolist(), family[earliest[found]].tolist(), strict=True)

    def _matches(self, left: Places, right: Places) -> Pairs:
        if right[0] >= left[-1]:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        if self._image[left[0]] >= 0:
            rows, columns = self._images.near_hashes(self._image[left], self._image[right])
        else:
            rows, columns = self._questions.near_signatures(self._words[left], self._words[right], self._similarity)
        keep = right[columns] < left[rows]
        rows, columns = rows[keep], columns[keep]
        like = self._alike(left[rows], right[columns])
        return rows[like], columns[like]

    def _alike(self, later: Places, earlier: Places) -> NDArray[np.bool_]:
        """Return for each pair of members of a family whether questions and all images are similar."""
        like = self._questions.similar(self._words[later], self._words[earlier], self._similarity)
        for number in range(int(self._num_images[later].max(initial=0))):
            places = np.flatnonzero(like & (self._num_images[later] > number))
            like[places] = self._images.alike(
                self._image_of(later[places], number), self._image_of(earlier[places], number)
            )
        return like

    def _image_of(self, members: Places, number: int) -> Places:
        if number == 0:
            return self._image[members]
        unique, places = np.unique(members, return_inverse=True)
        query = (
            "SELECT l.id - 1 FROM images i JOIN fingerprints l ON l.key = i.fingerprint "
            "WHERE i.place = ? AND i.number = ?"
        )
        found = [next(self._index.read(query, place, number))[0] for place in self._first[unique].tolist()]
        return np.array(found, dtype=np.int64)[places]
