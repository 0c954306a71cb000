"""Draws: the prompt of each position, how its group is sampled, and the outcomes that the prompt stream learns of."""

import asyncio
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any

from orchestration.settings.experiment import ExperimentConfig
from orchestration.settings.seeds import derive_seed
from orchestration.workers.tickets import StepGroups
from rollout.dataset import SampleTable
from rollout.errors import RolloutError
from rollout.prompt_stream import PromptDraw, PromptStream
from rollout.records import Sample, SamplingSpec


class Draws:
    """The prompt stream of a run, by position.

    Its order follows from seed and position alone; with an adaptive curriculum, from the outcomes observed as well.
    Rows hold images, so they are read in a thread: `read` first, then `at` once for every position.
    """

    def __init__(self, table: SampleTable, config: ExperimentConfig) -> None:
        """Start at the first position."""
        self._table = table
        self._config = config
        self.go_to({})

    def go_to(self, state: Mapping[str, Any]) -> None:
        """Restore the stream from a checkpoint, or start at its beginning."""
        training = self._config.training
        self.stream = PromptStream(
            self._table,
            seed=derive_seed(self._config.seed, "prompts"),
            groups_per_step=training.groups_per_step,
            max_staleness=training.max_staleness,
            config=self._config.data.stream,
        )
        self._drawn: dict[int, PromptDraw | RolloutError] = {}
        if state:
            self.stream.load_state_dict(state)

    async def read(self, positions: Iterable[int]) -> None:
        """Read the rows of these positions, each once, without holding up the event loop."""
        stream, rows = self.stream, {}
        for position in positions:  # here and not in the thread: an adaptive order changes with what is observed
            try:
                rows[position] = stream.row_at(position)
            except RolloutError as error:
                self._drawn[position] = error
        found = await asyncio.to_thread(self._read_rows, rows)
        self._drawn.update(found)

    def _read_rows(self, rows: Mapping[int, tuple[int, int]]) -> dict[int, PromptDraw | RolloutError]:
        found: dict[int, PromptDraw | RolloutError] = {}
        for position, (epoch, row) in rows.items():
            try:
                found[position] = PromptDraw(position=position, epoch=epoch, sample=self._table[row])
            except RolloutError as error:
                found[position] = error
        return found

    def at(self, position: int) -> PromptDraw:
        """Return the prompt of a position that `read` has read; it is not kept after that.

        Raises:
            RolloutError: its row cannot be read or sampled.
        """
        draw = self._drawn.pop(position)
        if isinstance(draw, RolloutError):
            raise draw
        return draw

    def samples(self, positions: Iterable[int]) -> dict[int, Sample]:
        """Return the samples of those positions that were read and have one."""
        draws = {position: self._drawn[position] for position in positions}
        return {position: draw.sample for position, draw in draws.items() if isinstance(draw, PromptDraw)}

    def sampling_spec(self, draw: PromptDraw) -> SamplingSpec:
        """Return how the group of a draw is sampled; the seed names (run, epoch, sample), the engine adds the index."""
        seed = derive_seed(self._config.seed, "rollout", draw.epoch, draw.sample.sample_id)
        return self._config.rollout.sampling.spec(draw.sample.task, seed=seed)

    def urgency(self, position: int) -> int:
        """Return the urgency of a group; those of earlier steps go first."""
        return position // self._config.training.groups_per_step

    def is_recorded(self, position: int) -> bool:
        """Return whether the completions of this position go to samples.jsonl."""
        training = self._config.training
        return position % training.groups_per_step < training.recorded_groups_per_step

    def observe(self, groups: StepGroups) -> None:
        """Report a step's rewards to the stream; an adaptive curriculum follows them."""
        graded = [ticket for ticket in groups.tickets if ticket.summary.task_rewards]
        self.stream.observe(groups.step, [(ticket.position, fmean(ticket.summary.task_rewards)) for ticket in graded])
