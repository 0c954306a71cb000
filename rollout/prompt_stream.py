"""PromptStream: the order in which a run meets its prompts."""

from dataclasses import dataclass

import numpy as np

from rollout.dataset import SampleTable
from rollout.records import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptDraw:
    """One position of the prompt stream."""

    position: int
    """0, 1, 2, ... over the whole run; step s trains on positions [s * groups_per_step, (s + 1) * groups_per_step)."""
    epoch: int
    sample: Sample


class PromptStream:
    """The order in which a run meets its prompts: a pure function of (seed, position).

    Every epoch visits each row once, in an order of its own. Nothing is kept between calls, so a resumed run asks for
    the position it needs and meets the same prompt.
    """

    def __init__(self, table: SampleTable, *, seed: int) -> None:
        """Draw from `table` in an order that `seed` fixes."""
        self._table = table
        self._seed = seed
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def draw(self, position: int) -> PromptDraw:
        """Give the prompt of one position, counted from 0."""
        epoch, offset = divmod(position, len(self._table))
        if epoch != self._epoch:
            self._order = np.random.default_rng([self._seed, epoch]).permutation(len(self._table))
            self._epoch = epoch
        return PromptDraw(position=position, epoch=epoch, sample=self._table[int(self._order[offset])])
