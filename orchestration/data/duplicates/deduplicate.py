"""Which rows of a recipe go because of another row: duplicates, contradictions, leaks, too many of one image."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from orchestration.data.duplicates.near_rows import decide_leaks, decide_near_rows
from orchestration.data.duplicates.row_index import RowIndex, row_keys
from orchestration.data.duplicates.similarity import ImageFingerprints, Questions
from orchestration.data.rows import Candidate, RejectReason
from orchestration.settings.recipe import DeduplicateConfig

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
_REASONS = {reason.value: reason for reason in RejectReason}


class Deduplicator:
    """Takes all rows of a recipe, then decides which of them go; the rows lie on disk, not in memory.

    Four rules, each on the rows that the ones before it left: leaks, equal rows, near-duplicates, rows per image. The
    result depends on the rows and their order alone, not on the order in which they are added. Guard rows are never
    decided on; held_out rows go only as duplicates and conflicts among themselves.

    Example:
        >>> with Deduplicator(DeduplicateConfig(), folder / "deduplicate") as rows:  # doctest: +SKIP
        ...     for order, candidate in enumerate(candidates):
        ...         rows.add(candidate, order)
        ...     for order, reason, detail in rows.decide():
        ...         print(order, reason.value, detail)
    """

    def __init__(self, settings: DeduplicateConfig, scratch: Path) -> None:
        """Start without rows.

        Args:
            settings: What counts as nearly the same.
            scratch: Folder for this alone; its content is deleted now and on close. About 2 KB per row with one image.
        """
        self._settings = settings
        self._index = RowIndex(scratch)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._index.close()

    def add(self, candidate: Candidate, order: int) -> None:
        """Add one row.

        Args:
            candidate: The row; its image bytes are not needed.
            order: The row's place in the recipe, unique, from 0: of two equal rows, the one with the lower one stays.
        """
        self._index.add(candidate, order, row_keys(candidate))

    def decide(self) -> Iterator[tuple[int, RejectReason, str]]:
        """Return (order, reason, detail that names the other row) of every row that goes, in order; call it once."""
        index, settings = self._index, self._settings
        index.flush()
        questions = Questions(index)
        images = None
        if settings.perceptual:
            images = ImageFingerprints(
                index, max_distance=settings.max_hash_distance, max_difference=settings.max_thumbnail_difference
            )
        decide_leaks(index, images, questions)
        self._decide_equal_rows()
        if images is not None:
            decide_near_rows(index, images, questions, settings.min_question_similarity)
        if settings.max_rows_per_image is not None:
            index.write(_TOO_MANY, RejectReason.TOO_MANY_OF_IMAGE.value, settings.max_rows_per_image)
        for order, reason, note, source, source_id in index.read(_RESULT):
            yield order, _REASONS[reason], f"{note} {source} {source_id}"

    def _decide_equal_rows(self) -> None:
        index = self._index
        index.write("CREATE INDEX rows_exact ON rows (role, exact, place, answer)")
        index.write(_EQUAL_KEYS)
        index.write(_CONFLICTS, RejectReason.CONFLICTING_ANSWERS.value)
        index.write(_DUPLICATES, RejectReason.DUPLICATE.value)
