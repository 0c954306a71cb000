"""PromptStream: the order in which a run draws its prompts, and the passes over its rows.

Axes: B buckets.
"""

import bisect
import hashlib
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollout.config import StreamConfig
from rollout.dataset import SampleTable
from rollout.errors import RolloutError
from rollout.mixture import AdaptiveShares, Buckets, StaticShares, apportion, find_buckets
from rollout.records import Sample

# While rollout runs ahead of training, draws come from two passes at once.
CACHED_PASSES = 2


class Passes:
    """An endless sequence over `num_rows` rows: every pass has each row once before any comes again.

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
        """Return (number of the pass, row) of one place of the sequence, both counted from 0."""
        number, offset = divmod(index, self._num_rows)
        if number not in self._orders:
            order = np.random.default_rng([*self._entropy, number]).permutation(self._num_rows)
            self._orders[number] = order.astype(np.int32)
            if len(self._orders) > CACHED_PASSES:
                self._orders.popitem(last=False)
        return number, int(self._orders[number][offset])


# A step is reached by walking from the nearest mark before it.
MARK_EVERY = 64
CACHED_STEPS = 16


@dataclass(frozen=True, slots=True)
class _Mark:
    """State at the start of a step."""

    step: int
    carry: NDArray[np.float64]
    """[B] prompts that a bucket is behind (above 0) or ahead (below 0) of its share."""
    taken: NDArray[np.int64]
    """[B] prompts taken from each bucket."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """The places of one step, in order of position."""

    buckets: NDArray[np.int64]
    indices: NDArray[np.int64]
    """Place in the passes over the bucket."""


class BucketOrder:
    """The order of a stream with a mixture or a curriculum.

    In step s each bucket has a whole number of positions; rounding is carried over to step s + 1. Their places within
    the step, and the order of every pass over a bucket, are seeded.

    A position in one of the latest steps costs O(1), the next step O(B + groups_per_step). A step far away costs
    O(steps * B) once, from 0 or from the furthest step so far, and at most MARK_EVERY steps later.
    """

    def __init__(
        self, buckets: Buckets, shares: StaticShares | AdaptiveShares, *, seed: int, groups_per_step: int
    ) -> None:
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
        """Return (pass over the row's bucket, row) of one position."""
        step, offset = divmod(position, self._groups_per_step)
        plan = self._plan(step)
        bucket = int(plan.buckets[offset])
        number, place = self._passes[bucket].at(int(plan.indices[offset]))
        return number, int(self._buckets.rows[bucket][place])

    def bucket_at(self, position: int) -> int:
        """Return the bucket that one position takes."""
        step, offset = divmod(position, self._groups_per_step)
        return int(self._plan(step).buckets[offset])

    def forget_before(self, step: int) -> None:
        """Keep only `step` and later ones."""
        self._marks = [self._mark(step)]
        self._plans = OrderedDict((held, plan) for held, plan in self._plans.items() if held >= step)

    def state_dict(self) -> dict[str, Any]:
        """Return the state at the start of the earliest step held, as plain lists."""
        mark = self._marks[0]
        return {"step": mark.step, "carry": mark.carry.tolist(), "taken": mark.taken.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._marks = [_Mark(state["step"], np.array(state["carry"]), np.array(state["taken"], dtype=np.int64))]
        self._latest = self._marks[0]
        self._plans.clear()

    def _plan(self, step: int) -> _Plan:
        if step not in self._plans:
            mark = self._mark(step)
            counts = self._after(mark).taken - mark.taken
            # Places are assigned in the order of positions, so a bucket's passes follow one another.
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
        """Return the state at the start of `step`, computed forward from the nearest earlier mark."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptDraw:
    """One position of the prompt stream."""

    position: int
    """0, 1, 2, ... over the whole run; step s trains on positions [s * groups_per_step, (s + 1) * groups_per_step)."""
    epoch: int
    """Number of earlier draws of this row; (epoch, sample_id) never repeats within a run."""
    sample: Sample


class PromptStream:
    """The order in which a run draws its prompts.

    Plain: every epoch visits each row once, in an order of its own. With a mixture or a curriculum, every bucket (task
    or source, and stratum) has epochs of its own, and the shares of a step decide how many prompts each one provides.

    The order is a pure function of (seed, position), and of what was observed where the curriculum is adaptive. A
    resumed run asks for the position it needs and draws the same prompt; an adaptive one first loads its state.
    """

    def __init__(
        self,
        table: SampleTable,
        *,
        seed: int,
        groups_per_step: int,
        max_staleness: int,
        config: StreamConfig | None = None,
    ) -> None:
        """Draw from `table` in an order that `seed` fixes.

        Args:
            table: The dataset; columns task or source, and stratum, are read where `config` uses them.
            seed: Of every order.
            groups_per_step: Positions of one training step.
            max_staleness: Steps that rollout may run ahead of training, and adaptive shares therefore lag behind.
            config: Mixture and curriculum; None is plain.

        Raises:
            RolloutError: `config` does not fit the dataset.
        """
        config = config or StreamConfig()
        self._table = table
        self._seed = seed
        self._groups_per_step = groups_per_step
        self._max_staleness = max_staleness
        self._order: Passes | BucketOrder
        self._adaptive: tuple[BucketOrder, AdaptiveShares] | None = None
        if config.is_plain:
            self._order = Passes(len(table), entropy=(seed,))
            return
        self._buckets = find_buckets(table, config)
        if config.curriculum.kind == "adaptive":
            shares = AdaptiveShares(self._buckets, config.curriculum, max_staleness=max_staleness)
            self._order = BucketOrder(self._buckets, shares, seed=seed, groups_per_step=groups_per_step)
            self._adaptive = self._order, shares
        else:
            static = StaticShares(self._buckets, config.curriculum)
            self._order = BucketOrder(self._buckets, static, seed=seed, groups_per_step=groups_per_step)

    def row_at(self, position: int) -> tuple[int, int]:
        """Return (epoch, row of the dataset) of one position, both counted from 0; nothing is read.

        Raises:
            RolloutError: the stream is adaptive, and the position's step lies before the last one observed or more
                than `max_staleness` steps after the next one.
        """
        return self._order.at(position)

    def draw(self, position: int) -> PromptDraw:
        """Return the prompt of one position, read now.

        Raises:
            RolloutError: as `row_at`, or the row cannot be read.
        """
        epoch, row = self.row_at(position)
        return PromptDraw(position=position, epoch=epoch, sample=self._table[row])

    def observe(self, step: int, outcomes: Sequence[tuple[int, float]]) -> None:
        """Take in the rewards of a trained step; only an adaptive stream uses them.

        Call it once for every step, in order, before the weights of the step free slots for later positions.

        Args:
            step: The step that was trained.
            outcomes: (position, mean task reward of its completions in [0, 1]) of the groups that were scored; none
                for a group that was dropped.

        Raises:
            RolloutError: a step is left out or given twice, a position is of another step, or a reward leaves [0, 1].
        """
        if self._adaptive is None:
            return
        order, shares = self._adaptive
        for position, reward in outcomes:
            if position // self._groups_per_step != step:
                raise RolloutError(f"observe(step={step}) got position {position}, which belongs to another step")
            if not (math.isfinite(reward) and 0.0 <= reward <= 1.0):
                raise RolloutError(f"observe(step={step}) got reward {reward} at position {position}; use 0 to 1")
        shares.observe(step, [(order.bucket_at(position), reward) for position, reward in outcomes])
        order.forget_before(step)
        shares.forget_before(step)

    def state_dict(self, step: int) -> dict[str, Any]:
        """Return the state from which a run at the beginning of `step` continues exactly, as JSON values.

        Empty unless the stream is adaptive: nothing else has a history.

        Raises:
            RolloutError: `step` is not the one after the last observed.
        """
        if self._adaptive is None:
            return {}
        order, shares = self._adaptive
        if step != shares.num_observed:
            raise RolloutError(f"state_dict(step={step}) after {shares.num_observed} observed steps; observe first")
        return {"made_for": self._made_for(), "order": order.state_dict(), "shares": shares.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned.

        Raises:
            RolloutError: the state is of another dataset or other settings.
        """
        found = state.get("made_for", {})
        expected = {} if self._adaptive is None else self._made_for()
        differing = sorted(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))
        if differing:
            raise RolloutError(
                f"the checkpoint's prompt stream does not fit this run, which differs in {', '.join(differing)}; "
                "continue with the dataset and the settings that the run began with, or use another run_dir"
            )
        if self._adaptive is not None:
            order, shares = self._adaptive
            order.load_state_dict(state["order"])
            shares.load_state_dict(state["shares"])

    def _made_for(self) -> dict[str, Any]:
        sizes = [len(rows) for rows in self._buckets.rows]
        return {
            "seed": self._seed,
            "groups_per_step": self._groups_per_step,
            "max_staleness": self._max_staleness,
            "buckets": dict(zip(self._buckets.names, sizes, strict=True)),
        }
