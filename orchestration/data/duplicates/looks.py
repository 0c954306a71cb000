"""The distinct looks of a recipe's images: difference hashes in a mapped file, thumbnails in the index."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from orchestration.data.duplicates.near_pairs import (
    BITS,
    WORDS,
    Pairs,
    Patterns,
    Places,
    band_keys,
    distances,
    mixed_bit_order,
    pairs_within,
    reorder_bits,
)
from orchestration.data.duplicates.row_index import RowIndex
from orchestration.data.duplicates.row_keys import HASH_BYTES

SIDE = 16
QUARTER = SIDE // 2
NUM_SUMS = 2 * 2 * 3
READ_ROWS = 8192
THUMBNAIL_PAIRS = 1024


class Looks:
    """Compares looks by number, which is their id in the index less one.

    Two looks are alike where their hashes differ in few bits and no value of their thumbnails differs by much.
    """

    def __init__(self, index: RowIndex, *, max_distance: int, max_difference: int) -> None:
        """Write the hashes of all looks of the index into a file beside it.

        Args:
            index: With all rows in it.
            max_distance: Bits of 256 in which the hashes of like images may differ.
            max_difference: Of 255, in any mean of the thumbnails.
        """
        self._index = index
        self._max_distance = max_distance
        self._max_difference = max_difference
        # Where every distance is near enough, bands tell nothing: one that all looks share.
        self.num_bands = max_distance + 1 if max_distance < BITS else 1
        num_looks = next(index.read("SELECT COUNT(*) FROM looks"))[0]
        order = mixed_bit_order(self._set_counts(), num_looks, self.num_bands)
        rows = max(num_looks, 1)
        self._hashes = np.memmap(index.folder / "hashes", np.uint64, "w+", shape=(rows, WORDS))
        self._quarters = np.memmap(index.folder / "quarters", np.uint16, "w+", shape=(rows, NUM_SUMS))
        done = 0
        for hashes, thumbnails in self._blocks():
            end = done + len(hashes)
            self._hashes[done:end] = reorder_bits(hashes, order)
            self._quarters[done:end] = _quarter_sums(thumbnails)
            done = end
        assert done == num_looks, f"{num_looks} looks, of which {done} were read"

    def band_keys(self, looks: Places, band: int) -> NDArray[np.uint64]:
        """Give one number per look that like ones share in at least one of num_bands bands."""
        if self._max_distance >= BITS:
            return np.zeros(len(looks), dtype=np.uint64)
        keys = np.empty(len(looks), dtype=np.uint64)
        for start in range(0, len(looks), READ_ROWS):
            part = slice(start, start + READ_ROWS)
            keys[part] = band_keys(self._patterns(looks[part]), band, self.num_bands)
        return keys

    def near_hashes(self, left: Places, right: Places) -> Pairs:
        """Give all (i, j) whose hashes are near; their thumbnails are still to be compared."""
        return pairs_within(self._patterns(left), self._patterns(right), self._max_distance)

    def alike(self, left: Places, right: Places) -> NDArray[np.bool_]:
        """Say for each pair (left[i], right[i]) whether hash and thumbnail are near."""
        like = distances(self._patterns(left), self._patterns(right)) <= self._max_distance
        # The mean of a quarter cannot differ by more than its worst pixel: most pairs end here, without a read.
        places = np.flatnonzero(like)
        sums = self._quarters[left[places]].astype(np.int32) - self._quarters[right[places]]
        apart = np.abs(sums).max(axis=1, initial=0)
        like[places[apart > self._max_difference * QUARTER * QUARTER]] = False
        places = np.flatnonzero(like & (left != right))
        for start in range(0, len(places), THUMBNAIL_PAIRS):
            part = places[start : start + THUMBNAIL_PAIRS]
            difference = np.abs(self._thumbnails(left[part]) - self._thumbnails(right[part])).max(axis=1)
            like[part] = difference <= self._max_difference
        return like

    def _patterns(self, looks: Places) -> Patterns:
        return np.asarray(self._hashes[looks])

    def _thumbnails(self, looks: Places) -> NDArray[np.int16]:
        unique, places = np.unique(looks, return_inverse=True)
        data = b"".join(
            next(self._index.read("SELECT thumbnail FROM looks WHERE id = ?", look + 1))[0] for look in unique.tolist()
        )
        return np.frombuffer(data, np.uint8).reshape(len(unique), -1).astype(np.int16)[places]

    def _set_counts(self) -> NDArray[np.int64]:
        counts = np.zeros(BITS, dtype=np.int64)
        for hashes, _ in self._blocks():
            counts += np.unpackbits(hashes, axis=1).sum(axis=0, dtype=np.int64)
        return counts

    def _blocks(self) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        cursor = self._index.database.execute("SELECT hash, thumbnail FROM looks ORDER BY id")
        while rows := cursor.fetchmany(READ_ROWS):
            hashes = np.frombuffer(b"".join(row[0] for row in rows), np.uint8).reshape(-1, HASH_BYTES)
            yield hashes, np.frombuffer(b"".join(row[1] for row in rows), np.uint8).reshape(len(rows), -1)


def _quarter_sums(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint16]:
    quarters = thumbnails.reshape(-1, 2, QUARTER, 2, QUARTER, 3)
    sums: NDArray[np.uint16] = quarters.sum(axis=(2, 4), dtype=np.uint16)
    return sums.reshape(-1, NUM_SUMS)
