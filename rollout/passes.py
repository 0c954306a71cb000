"""Endless passes over a set of rows, each in an order of its own."""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Draws straddle the border of two passes while rollout runs ahead of training.
CACHED_PASSES = 2


class Passes:
    """An endless sequence over `num_rows` rows: every pass meets each row once before any is met again.

    A pure function of (entropy, index). An index costs O(1) in the latest two passes, O(num_rows) in another.

    Example:
        >>> sorted(Passes(3, entropy=(0,)).at(index)[1] for index in range(3))
        [0, 1, 2]
    """

    def __init__(self, num_rows: int, *, entropy: Sequence[int]) -> None:
        """Order pass k by a generator that is seeded with `[*entropy, k]`."""
        self._num_rows = num_rows
        self._entropy = entropy
        self._orders: OrderedDict[int, NDArray[np.int32]] = OrderedDict()

    def at(self, index: int) -> tuple[int, int]:
        """Give (number of the pass, row) of one place of the sequence, both counted from 0."""
        number, offset = divmod(index, self._num_rows)
        if number not in self._orders:
            order = np.random.default_rng([*self._entropy, number]).permutation(self._num_rows)
            self._orders[number] = order.astype(np.int32)
            if len(self._orders) > CACHED_PASSES:
                self._orders.popitem(last=False)
        return number, int(self._orders[number][offset])
