"""Which tokens of a stream attend to which: stems first, then the branches that grow from them.

    stream   | stem 0 | stem 1 | stem 2 | branch of 0 | branch of 0 | branch of 2 |

A stem attends to itself, a branch to its whole stem and to itself, always backwards. A prompt with its completions is a
stem with branches; a sequence that shares nothing is a stem alone. There is no padding.

Axes: L tokens of the stream, N stems, S branches.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLayout:
    """Lengths of stems and branches, in the order of the stream."""

    stem_lengths: NDArray[np.int64]
    """[N] at least 1 each."""
    branch_lengths: NDArray[np.int64]
    """[S] may be 0."""
    stem_of: NDArray[np.int64]
    """[S] ascending: branches of one stem are adjacent."""

    def __post_init__(self) -> None:
        assert (np.diff(self.stem_of) >= 0).all(), "branches must stand in the order of their stems"

    @property
    def num_tokens(self) -> int:
        return int(self.stem_lengths.sum() + self.branch_lengths.sum())
