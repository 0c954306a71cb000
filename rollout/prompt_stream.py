"""PromptStream: the order in which a run meets its prompts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rollout.bucket_order import BucketOrder
from rollout.config import StreamConfig
from rollout.curriculum import AdaptiveShares, StaticShares
from rollout.dataset import SampleTable
from rollout.errors import RolloutError
from rollout.mixture import find_buckets
from rollout.passes import Passes
from rollout.records import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptDraw:
    """One position of the prompt stream."""

    position: int
    """0, 1, 2, ... over the whole run; step s trains on positions [s * groups_per_step, (s + 1) * groups_per_step)."""
    epoch: int
    """How often this very row came before; (epoch, sample_id) never repeats within a run."""
    sample: Sample


class PromptStream:
    """The order in which a run meets its prompts.

    Plain: every epoch visits each row once, in an order of its own. With a mixture or a curriculum, every bucket (task
    or source, and stratum) has epochs of its own, and the shares of a step say how many prompts each one gives.

    The order is a pure function of (seed, position), and of what was observed where the curriculum is adaptive. A
    resumed run asks for the position it needs and meets the same prompt; an adaptive one first loads its state.
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
            table: The dataset; columns task or source, and stratum, are read where `config` speaks of them.
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
        """Tell how the groups of a trained step did; only an adaptive stream listens.

        Call it once for every step, in order, before the weights of the step free slots for later positions.

        Args:
            step: The step that was trained.
            outcomes: (position, mean task reward of its completions in [0, 1]) of the groups that were scored; none
                for a group that was dropped.

        Raises:
            RolloutError: a step is left out or told twice, a position is of another step, or a reward leaves [0, 1].
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
        """Give what a run at the beginning of `step` needs to continue exactly; JSON can hold it.

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
        """Continue from what `state_dict` gave.

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
