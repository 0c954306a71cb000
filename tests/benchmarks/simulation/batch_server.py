"""BatchServer: continuous batching told by its events, exact to the decoding step.

An engine works in steps. At the boundary between two of them finished sequences leave, a pause takes hold, and waiting
sequences are admitted while there are seats. A step of n sequences takes step_s + n * step_s_per_sequence, and longer
by the prefill of the groups that it admits, or of everything that runs if it is the first one after a pause; every
running sequence gets one token in it. Between two boundaries at which the batch changes all steps are alike, so that
only these boundaries are computed.
"""

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from tests.benchmarks.simulation.settings import EngineCosts

ROUNDING = 1e-9
"""Share of a step by which a time may miss a boundary and still be it."""


@dataclass(slots=True, eq=False)
class GroupRequest:
    """A group in an engine: one prompt, several completions."""

    lengths: Sequence[int]
    prompt_tokens: int
    num_unfinished: int = 0
    is_admitted: bool = False
    version_start: int = -1
    """Weight version under which its first sequence was admitted."""


class BatchServer:
    """The state of one engine between events; the caller brings the clock.

    Call `advance` at the time that `next_event` gives, after everything else that happens at that time.
    """

    def __init__(self, costs: EngineCosts) -> None:
        self.version = -1
        """Live weights."""
        self.tokens = 0
        self._costs = costs
        self._busy_s = 0.0
        self._sequence_s = 0.0
        self._waiting: deque[tuple[int, GroupRequest]] = deque()
        self._running: list[tuple[int, int, int, GroupRequest]] = []  # ends at step, tie-break, began at step, group
        self._num_admitted = 0
        self._step = 0  # steps done at the segment's start
        self._start = 0.0  # of the segment: a run of equal steps
        self._prefill_s = 0.0  # at the segment's start
        self._step_s = 0.0
        self._num_steps: int | None = None  # until the boundary that is awaited; None while nothing runs
        self._is_paused = False
        self._has_lost_cache = False

    def submit(self, now: float, group: GroupRequest) -> None:
        """Take a group into the queue."""
        group.num_unfinished = len(group.lengths)
        self._waiting.extend((length, group) for length in group.lengths)
        self._look_at_next_boundary(now)

    def pause(self, now: float) -> float:
        """Stop at the next boundary; gives its time."""
        self._is_paused = True
        self._look_at_next_boundary(now)
        return now if self._num_steps is None else max(now, self._time_of(self._steps_until(now)))

    def resume(self, now: float) -> None:
        """Go on."""
        self._is_paused = False
        self._has_lost_cache = self._num_steps is None and not self._costs.keeps_cache
        self._look_at_next_boundary(now)

    def next_event(self) -> float | None:
        """Time at which the batch changes next; None while the engine has nothing to do."""
        return None if self._num_steps is None else self._time_of(self._num_steps)

    def advance(self, now: float) -> list[GroupRequest]:
        """Pass the boundary at `now`; gives the groups whose last completion ended."""
        assert self._num_steps is not None
        self._account(self._time_of(self._num_steps) - self._start, self._num_steps)
        self._step += self._num_steps
        self._start = now
        ended = []
        while self._running and self._running[0][0] <= self._step:
            group = heapq.heappop(self._running)[-1]
            group.num_unfinished -= 1
            if not group.num_unfinished:
                ended.append(group)
        self._begin()
        return ended

    def busy(self, now: float) -> tuple[float, float]:
        """(seconds with anything running, seconds summed over running sequences) until `now`."""
        partial = 0.0 if self._num_steps is None else max(0.0, now - self._start)
        return self._busy_s + partial, self._sequence_s + partial * len(self._running)

    def _account(self, seconds: float, steps: int) -> None:
        self._busy_s += seconds
        self._sequence_s += seconds * len(self._running)
        self.tokens += steps * len(self._running)

    def _begin(self) -> None:
        """Begin a run of equal steps at the segment's start, if anything may run."""
        self._prefill_s = 0.0
        if not self._is_paused:
            if self._has_lost_cache:
                self._compute_again()
            while self._waiting and len(self._running) < self._costs.max_num_seqs:
                self._admit(*self._waiting.popleft())
        if self._is_paused or not self._running:
            self._num_steps = None
            return
        self._step_s = self._costs.step_s + self._costs.step_s_per_sequence * len(self._running)
        self._num_steps = self._running[0][0] - self._step

    def _admit(self, length: int, group: GroupRequest) -> None:
        self._num_admitted += 1
        heapq.heappush(self._running, (self._step + length, self._num_admitted, self._step, group))
        if not group.is_admitted:
            group.is_admitted = True
            group.version_start = self.version
            self._prefill_s += self._costs.prefill_s_per_token * group.prompt_tokens

    def _compute_again(self) -> None:
        """Let everything that runs begin with a prefill of its prompt and its tokens so far."""
        prompts = {id(group): group.prompt_tokens for *_, group in self._running}
        num_tokens = sum(prompts.values()) + sum(self._step - began for _, _, began, _ in self._running)
        self._prefill_s += self._costs.prefill_s_per_token * num_tokens
        self._has_lost_cache = False

    def _look_at_next_boundary(self, now: float) -> None:
        """See to it that the next boundary is an event, if something will change there."""
        if self._num_steps is not None:
            has_seat = self._waiting and len(self._running) < self._costs.max_num_seqs
            if has_seat or self._is_paused:
                self._num_steps = min(self._num_steps, self._steps_until(now))
        elif not self._is_paused and (self._waiting or self._running):
            # Nothing runs: a step of no length, so that all that comes at this time is admitted together.
            self._start, self._prefill_s, self._step_s, self._num_steps = now, 0.0, 0.0, 0

    def _steps_until(self, now: float) -> int:
        """Steps from the segment's start to the first boundary at `now` or later."""
        if self._step_s == 0.0 or self._num_steps == 0:
            return 0
        return max(1, math.ceil((now - self._start - self._prefill_s) / self._step_s - ROUNDING))

    def _time_of(self, num_steps: int) -> float:
        return self._start + (self._prefill_s + num_steps * self._step_s if num_steps else 0.0)
