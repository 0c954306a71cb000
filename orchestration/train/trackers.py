"""Trackers: tools that show a run while it goes on, beside the files of its folder, and the threads that feed them.

A tracker is told of everything in order, by one thread of its own. What it raises is counted and never reaches the run.
"""

import io
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from conf.own_code import is_own, load_own
from conf.pictures import in_rgb
from orchestration.settings.strict import is_secret_name
from orchestration.settings.tracking import TrackingConfig
from orchestration.workers.tickets import StepGroups
from rollout.records import readable

MAX_TEXT = 4000
"""Characters of a question or a completion in a table of samples."""
MAX_SIDE = 512
"""Pixels of the longer side of a sample's image, which is made smaller where it has more."""
MAX_IMAGES = 4
"""Images of a sample that are shown."""
Outcome = Literal["finished", "failed", "stopped"]
"""How a run ended: all steps are done; with an error; on request, saved, so that the same command continues it."""
SHORTEST_SECRET = 6
"""Shorter values of variables such as `..._TOKEN` are words that may stand in a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """What a tracker is told when it begins."""

    folder: Path
    """run_dir; a tracker may keep files of its own there."""
    name: str
    """tracking.name, or the name of run_dir."""
    id: str
    """The same each time that this run is started, and of no other run: letters and digits."""
    first_step: int
    """The step that comes next, from 0; steps from it on that were logged before are taken again."""
    settings: Mapping[str, Any]
    """All settings of the run, nested as in config.json; they hold no secret."""
    tracking: TrackingConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownSample:
    """One completion in the table of a step."""

    position: int
    """Of its group in the prompt stream."""
    sample_id: str
    task: str
    question: str
    answer: str
    """The reference."""
    completion: str
    """As it was sampled; text that may contain markup, to be shown as text."""
    reward: float | None
    """Weighted total; None where it is masked."""
    parts: Mapping[str, float]
    """Unweighted value by reward function."""
    reason: str
    images: tuple[Image.Image, ...]
    """RGB, at most MAX_SIDE pixels wide and high; none where the row cannot be read."""


class Tracker:
    """A tool that shows runs; derive from it, and define the methods that the tool has a use for.

    It is made with `RunInfo` and its own options, in the thread that makes all further calls.

    Example:
        >>> class Printing(Tracker):
        ...     def log_metrics(self, step, metrics):
        ...         print(self.run.name, step, metrics["reward/mean"])
    """

    place = ""
    """Address or folder where the run is shown; the console names it."""

    def __init__(self, run: RunInfo) -> None:
        """Keep what is known of the run; a tracker with options, or with a start of its own, defines this anew."""
        self.run = run

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show the metrics and timings of a step, counted from 0; a step that is taken again comes again."""

    def log_held_out(self, step: int, scores: Mapping[str, float]) -> None:
        """Show held-out scores of the weights that have seen `step` steps."""

    def log_samples(self, step: int, samples: Sequence[ShownSample]) -> None:
        """Show completions of a step."""

    def rewind(self, first_step: int) -> None:
        """Expect `first_step` next: the run went back to a checkpoint, and takes the steps from there again."""

    def log_outcome(self, outcome: Outcome) -> None:
        """Show how the run ended; `close` follows. Nothing comes where the process was killed."""

    def close(self) -> None:
        """Hand over what still waits, and end."""


class Trackers:
    """All trackers of a run.

    Consumes: what the run records. Never waits for a tracker before `close`, and raises nothing of theirs.
    """

    def __init__(
        self,
        made: Mapping[str, Callable[[], Tracker]],
        config: TrackingConfig,
        *,
        say: Callable[[str], None],
        images_of: Callable[[int], Callable[[], Sequence[bytes]]] = lambda position: tuple,
    ) -> None:
        """Start a thread for each tracker, which makes it first.

        Args:
            made: name of a tracker -> what makes it.
            config: how much may wait, and how long.
            say: prints a line; called from all threads.
            images_of: position of a group -> what reads the encoded images of its row, called in a thread.
        """
        self._config = config
        self._images_of = images_of
        self._say = say
        self._threads = [
            TrackerThread(name, make, max_waiting=config.max_waiting, say=say) for name, make in made.items()
        ]

    def log_step(self, groups: StepGroups, metrics: Mapping[str, float]) -> None:
        """Pass on the metrics of a step, and the table of its recorded completions."""
        self._each(lambda tracker: tracker.log_metrics(groups.step, dict(metrics)))  # it may change what it is given
        recorded = [ticket for ticket in groups.tickets if ticket.summary.completions]
        if self._threads and recorded and self._config.samples_per_step:
            read = {ticket.position: self._images_of(ticket.position) for ticket in recorded}
            # The first thread that comes to it makes the table for all.
            table = lru_cache(maxsize=1)(partial(shown_samples, groups, read, limit=self._config.samples_per_step))
            self._each(lambda tracker: tracker.log_samples(groups.step, table()))

    def log_held_out(self, step: int, scores: Mapping[str, float]) -> None:
        """Pass on held-out scores."""
        self._each(lambda tracker: tracker.log_held_out(step, dict(scores)))

    def rewind(self, first_step: int) -> None:
        """Pass on that the run went back."""
        self._each(lambda tracker: tracker.rewind(first_step))

    def counts(self) -> dict[str, float]:
        """Return how much failed and was dropped since the process started, as metrics; none of what is 0."""
        found = {
            "trackers/num_failed": float(sum(thread.num_failed for thread in self._threads)),
            "trackers/num_dropped": float(sum(thread.num_dropped for thread in self._threads)),
        }
        return {name: value for name, value in found.items() if value}

    def close(self, outcome: Outcome) -> None:
        """Tell all trackers how the run ended, close them, and wait for it, tracking.close_timeout_s at most."""
        ends_at = time.monotonic() + self._config.close_timeout_s
        for thread in self._threads:
            thread.finish(outcome)
        for thread in self._threads:
            thread.join(max(0.0, ends_at - time.monotonic()))
            if thread.is_alive():
                waiting = thread.num_waiting - 1  # the last is the call to close
                self._say(
                    f"tracker {thread.name} did not end within {self._config.close_timeout_s:g} s "
                    f"(tracking.close_timeout_s); {waiting} records wait, and may be lost there"
                )
            if thread.num_failed or thread.num_dropped:
                self._say(
                    f"tracker {thread.name}: {thread.num_failed} calls failed, {thread.num_dropped} records were "
                    "dropped; the files of the run folder have everything"
                )

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for thread in self._threads:
            thread.put(call)


class TrackerThread(threading.Thread):
    """The thread of one tracker: makes it, then calls it in order.

    Consumes: calls from one other thread. Ends when `finish` has been called and all calls are made.
    """

    def __init__(self, name: str, make: Callable[[], Tracker], *, max_waiting: int, say: Callable[[str], None]) -> None:
        """Start at once; a daemon, so that a tracker that hangs does not keep the process."""
        super().__init__(name=name.rpartition("/")[2], daemon=True)  # of own code FILE.py:NAME
        self._make = make
        self._say = say
        self._max_waiting = max_waiting
        self._calls: queue.SimpleQueue[Callable[[Tracker], None] | None] = queue.SimpleQueue()
        self._has_begun: bool | None = None
        self._outcome: Outcome = "finished"
        self.num_failed = 0
        """Calls that raised, its making among them."""
        self.num_dropped = 0
        """Calls that were not queued, because too many waited."""
        self.start()

    @property
    def num_waiting(self) -> int:
        """Calls that are queued."""
        return self._calls.qsize()

    def put(self, call: Callable[[Tracker], None]) -> None:
        """Queue a call, or drop it where too many wait; does nothing for a tracker that could not be made."""
        if self._has_begun is False:
            return
        if self._calls.qsize() < self._max_waiting:
            self._calls.put(call)
            return
        self.num_dropped += 1
        if self.num_dropped == 1:
            self._say(
                f"tracker {self.name} is {self._max_waiting} records behind (tracking.max_waiting): more are dropped, "
                "and counted"
            )

    def finish(self, outcome: Outcome) -> None:
        """Queue the end: after all calls before it the tracker is told of the outcome, and closed."""
        self._outcome = outcome
        self._calls.put(None)

    def run(self) -> None:
        """Make the tracker and work off the calls."""
        found: list[Tracker] = []
        self._has_begun = self._attempt(lambda: found.append(self._make()), "the run goes on without it")
        if not self._has_begun:
            return
        (tracker,) = found
        self._attempt(lambda: self._say_place(tracker), "the run goes on, and further failures are counted")
        while (call := self._calls.get()) is not None:
            self._attempt(partial(call, tracker), "the run goes on, and further failures are counted")
        self._attempt(lambda: tracker.log_outcome(self._outcome), "the run is not affected")
        self._attempt(lambda: tracker.close(), "the run is not affected")

    def _say_place(self, tracker: Tracker) -> None:
        if tracker.place:
            self._say(f"tracker {self.name}: {_without_secrets(str(tracker.place))}")

    def _attempt(self, call: Callable[[], None], consequence: str) -> bool:
        """Make a call and return whether it returned; the first that does not is named."""
        try:
            call()
        except BaseException as error:  # of code that is not ours; asyncio's and Rust's are no Exception
            self.num_failed += 1
            if self.num_failed == 1:
                cause = _without_secrets(" ".join(str(error).split()))
                self._say(f"tracker {self.name} failed: {type(error).__name__}: {cause}; {consequence}")
            return False
        return True


def own_tracker(name: str, info: RunInfo) -> Tracker:
    """Return the tracker of a setting `FILE.py:NAME`, made with its options.

    Raises:
        OwnCodeError: it cannot be loaded.
        Exception: whatever it raises itself.
    """
    assert is_own(name)
    made: Tracker = load_own("trackers", name)(info, **info.tracking.options.get(name.rpartition(":")[2], {}))
    return made


def shown_samples(
    groups: StepGroups, read: Mapping[int, Callable[[], Sequence[bytes]]], *, limit: int
) -> tuple[ShownSample, ...]:
    """Return the recorded completions of a step, `limit` at most, the groups in turn.

    Args:
        groups: of the step.
        read: position of a group -> what reads its encoded images.
        limit: completions in all.
    """
    recorded = [ticket for ticket in groups.tickets if ticket.summary.completions]
    most = max((len(ticket.summary.completions) for ticket in recorded), default=0)
    order = [(i, ticket) for i in range(most) for ticket in recorded if i < len(ticket.summary.completions)][:limit]
    images = {ticket.position: _images(read[ticket.position]) for _, ticket in order}
    samples = []
    for i, ticket in sorted(order, key=lambda pair: (pair[1].position, pair[0])):
        completion, sample = ticket.summary.completions[i], ticket.summary.sample
        assert sample is not None, "completions are kept without what was asked"
        samples.append(
            ShownSample(
                position=ticket.position,
                sample_id=ticket.sample_id,
                task=sample.task,
                question=_cut(readable(sample.question)),
                answer=_cut(sample.answer),
                completion=_cut(completion.text),
                reward=completion.result.reward,
                parts=dict(completion.result.breakdown),
                reason=str(completion.result.reason),
                images=images[ticket.position],
            )
        )
    return tuple(samples)


def _images(read: Callable[[], Sequence[bytes]]) -> tuple[Image.Image, ...]:
    """Decode the images of a row; none where it or one of them cannot be read, which the run itself reports."""
    try:
        found = []
        for data in read()[:MAX_IMAGES]:
            with Image.open(io.BytesIO(data)) as image:
                shown = in_rgb(image)
            shown.thumbnail((MAX_SIDE, MAX_SIDE))
            found.append(shown)
        return tuple(found)
    except (OSError, ValueError, LookupError, Image.DecompressionBombError):
        return ()


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} ... ({len(text)} characters)"


def _without_secrets(text: str) -> str:
    """Return a message without the values of environment variables that hold secrets."""
    for name, value in os.environ.items():
        if is_secret_name(name) and len(value) >= SHORTEST_SECRET:
            text = text.replace(value, f"${name}")
    return text
