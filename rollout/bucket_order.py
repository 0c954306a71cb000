"""BucketOrder: which bucket, and which of its rows, every position of the stream takes.

Axes: B buckets.
"""

import bisect
import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollout.curriculum import Shares
from rollout.errors import RolloutError
from rollout.mixture import Buckets, apportion
from rollout.passes import Passes

# A step is reached by walking from the nearest mark before it.
MARK_EVERY = 64
CACHED_STEPS = 16


@dataclass(frozen=True, slots=True)
class _Mark:
    """What all earlier steps leave behind at the beginning of one."""

    step: int
    carry: NDArray[np.float64]
    """[B] prompts owed (above 0) or given in advance (below 0)."""
    taken: NDArray[np.int64]
    """[B] prompts that each bucket has given."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """The places of one step, in order of position."""

    buckets: NDArray[np.int64]
    indices: NDArray[np.int64]
    """Place in the passes over the bucket."""


class BucketOrder:
    """The order of a stream with a mixture or a curriculum.

    Step s gives each bucket a whole number of its positions; what rounding owes goes on to step s + 1. Where they lie
    within the step, and the order of every pass over a bucket, are seeded.

    A position of a step at hand costs O(1), the next step O(B + groups_per_step). A step far away costs O(steps * B)
    once, from 0 or from the furthest step met so far, and at most MARK_EVERY steps' worth ever after.
    """

    def __init__(self, buckets: Buckets, shares: Shares, *, seed: int, groups_per_step: int) -> None:
        num = len(buckets.names)
        self._buckets = buckets
        self._shares = shares
        self._seed = seed
        self._groups_per_step = groups_per_step
        self._passes = [
            Passes(len(rows), entropy=(seed, _number(name)))
            for name, rows in zip(buckets.names, buckets.rows, strict=True)
        ]
        self._marks = [_Mark(0, np.zeros(num), np.zeros(num, dtype=np.int64))]
        self._latest = self._marks[0]
        self._plans: OrderedDict[int, _Plan] = OrderedDict()

    def at(self, position: int) -> tuple[int, int]:
        """Give (pass over the row's bucket, row) of one position."""
        step, offset = divmod(position, self._groups_per_step)
        plan = self._plan(step)
        bucket = int(plan.buckets[offset])
        number, place = self._passes[bucket].at(int(plan.indices[offset]))
        return number, int(self._buckets.rows[bucket][place])

    def bucket_at(self, position: int) -> int:
        """Give the bucket that one position takes."""
        step, offset = divmod(position, self._groups_per_step)
        return int(self._plan(step).buckets[offset])

    def forget_before(self, step: int) -> None:
        """Hold on to `step` and what follows it alone."""
        self._marks = [self._mark(step)]
        self._plans = OrderedDict((held, plan) for held, plan in self._plans.items() if held >= step)

    def state_dict(self) -> dict[str, Any]:
        """Give the beginning of the earliest step held, as plain lists."""
        mark = self._marks[0]
        return {"step": mark.step, "carry": mark.carry.tolist(), "taken": mark.taken.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        self._marks = [_Mark(state["step"], np.array(state["carry"]), np.array(state["taken"], dtype=np.int64))]
        self._latest = self._marks[0]
        self._plans.clear()

    def _plan(self, step: int) -> _Plan:
        if step not in self._plans:
            mark = self._mark(step)
            counts = self._after(mark).taken - mark.taken
            # Places are given out in the order of positions, so a bucket's passes are met one after another.
            slots = np.random.default_rng([self._seed, _number("order of a step"), step]).permutation(
                np.repeat(np.arange(len(counts)), counts)
            )
            indices = np.empty_like(slots)
            by_bucket = np.argsort(slots, kind="stable")
            indices[by_bucket] = np.concatenate(
                [first + np.arange(count) for first, count in zip(mark.taken, counts, strict=True)]
            )
            self._plans[step] = _Plan(slots, indices)
            if len(self._plans) > CACHED_STEPS:
                self._plans.popitem(last=False)
        return self._plans[step]

    def _mark(self, step: int) -> _Mark:
        """Walk to the beginning of `step`."""
        before = bisect.bisect_right(self._marks, step, key=lambda mark: mark.step) - 1
        if before < 0:
            raise RolloutError(f"step {step} is past: this stream holds step {self._marks[0].step} and later ones")
        mark = self._marks[before]
        if mark.step < self._latest.step <= step:
            mark = self._latest
        while mark.step < step:
            mark = self._after(mark)
            if mark.step % MARK_EVERY == 0 and mark.step > self._marks[-1].step:
                self._marks.append(mark)
        self._latest = mark
        return mark

    def _after(self, mark: _Mark) -> _Mark:
        wish = self._groups_per_step * self._shares.at(mark.step)
        credit = mark.carry + wish
        counts = apportion(credit, wish, self._groups_per_step)
        return _Mark(mark.step + 1, credit - counts, mark.taken + counts)


def _number(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
