"""What a run records: JSON lines in its folder, one readable table line a step, and the same for its trackers."""

import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from learner.records import StepReport
from orchestration.storage.files import append_json_line, read_json_lines, whole_file, writing
from orchestration.storage.run_folder import RunFolder
from orchestration.train.failures import failed_completions
from orchestration.train.held_out import Evaluation
from orchestration.train.metrics import step_metrics, step_timings
from orchestration.train.trackers import Outcome, Trackers
from orchestration.workers.tickets import GroupTicket, StepGroups
from orchestration.workers.weight_sync import SyncReport
from rollout.records import readable, readable_turns

HEADER_EVERY = 20


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the console table."""

    title: str
    metric: str
    form: str
    scale: float = 1.0

    def cell(self, metrics: dict[str, float]) -> str:
        """Format the metric, a dash where the step has none."""
        value = metrics.get(self.metric)
        width = max(len(self.title), 6)
        return f"{'-':>{width}}" if value is None else f"{value * self.scale:>{width}{self.form}}"

    @property
    def head(self) -> str:
        """The title, as wide as its cells."""
        return f"{self.title:>{max(len(self.title), 6)}}"


REWARD = Column("reward", "reward/mean", ".3f")
SHORT_TITLES = {"matching": "match", "grounding": "ground", "open_ended": "open"}
COLUMNS = (
    Column("format", "reward/format/mean", ".3f"),
    Column("length", "rollout/completion_tokens_mean", ".1f"),
    Column("kl", "policy/kl_behaviour", ".4f"),
    Column("clip%", "policy/clip_frac", ".2f", 100.0),
    Column("mismatch", "sync/mismatch", ".1e"),
    Column("tok/s", "rollout/tokens_per_s", ".0f"),
    Column("wait_s", "time/wait_rollout_s", ".2f"),
    Column("train_s", "time/train_s", ".2f"),
    Column("sync_s", "time/sync_s", ".2f"),
    Column("step_s", "time/step_s", ".2f"),
)


def reward_columns(metrics: Iterable[str], known: Sequence[Column] = ()) -> tuple[Column, ...]:
    """Return a column for every reward function that has a metric, those that are known already first.

    Example:
        >>> [column.title for column in reward_columns(["reward/mean", "reward/math/mean", "reward/format/mean"])]
        ['math']
    """
    parts = (name.split("/") for name in metrics)
    functions = [part[1] for part in parts if len(part) == 3 and part[0] == "reward" and part[2] == "mean"]
    found = (
        Column(SHORT_TITLES.get(name, name), f"reward/{name}/mean", ".3f") for name in functions if name != "format"
    )
    return tuple(dict.fromkeys((*known, *found)))


class RunRecord:
    """Writes every step to the files of the run folder, which are exact, to the console, and to the trackers."""

    def __init__(
        self,
        folder: RunFolder,
        *,
        first_step: int,
        num_steps: int,
        trackers: Trackers,
        say: Callable[[str], None],
    ) -> None:
        """Continue the files of `folder` at `first_step`: lines of later steps, never checkpointed, are removed."""
        self._folder = folder
        self._num_steps = num_steps
        self._step_s: deque[float] = deque(maxlen=HEADER_EVERY)
        self._functions: tuple[Column, ...] = ()
        self._trackers = trackers
        self._say = say
        self._num_lines = 0
        self._said_failures: set[tuple[str, str]] = set()
        self._open(first_step)

    def rewind(self, *, first_step: int) -> None:
        """Remove the lines of `first_step` and later; these steps are taken again."""
        self._close()
        self._open(first_step)
        self._trackers.rewind(first_step)

    def _open(self, first_step: int) -> None:
        self.next_step = first_step
        """The step whose line comes next."""
        paths = (self._folder.metrics, self._folder.timings, self._folder.samples, self._folder.ledger)
        self._files: list[TextIO] = []
        for path in paths:
            with writing(path):
                _keep_until(path, first_step)
                self._files.append(path.open("a"))
        with writing(self._folder.failures):
            _keep_until(self._folder.failures, first_step)
        with writing(self._folder.held_out):  # scores at a step are of the weights before it is taken
            _keep_until(self._folder.held_out, first_step + 1)
        self._metrics, self._timings, self._samples, self._ledger = self._files

    def _close(self) -> None:
        for file in self._files:
            file.close()

    def log_step(
        self,
        groups: StepGroups,
        report: StepReport,
        sync: SyncReport | None,
        mismatch: float | None,
        seconds: dict[str, float],
        *,
        counts: Mapping[str, float],
    ) -> None:
        """Record one step; one that the learner took and no publication followed has no `sync` and no times.

        Raises:
            InfrastructureError: a file of the run folder cannot be written.
        """
        step = groups.step
        metrics = step_metrics(groups, report, sync, mismatch)
        counts = {**counts, **self._trackers.counts()}
        timings = step_timings(groups, report, sync, seconds, counts=counts) if sync is not None else counts
        # In this order, so that a step that has metrics has all the rest.
        _append(self._timings, {"step": step, **timings})
        _append(self._ledger, ledger_line(groups))
        for ticket in groups.tickets:
            if ticket.summary.completions:
                _append(self._samples, _recorded(step, ticket))
        failed = failed_completions(groups)
        for one in failed:
            append_json_line(self._folder.failures, asdict(one))
        _append(self._metrics, {"step": step, **metrics})
        self.next_step = step + 1
        both = metrics | timings
        self._trackers.log_step(groups, both)
        self._say_step(step, both)
        for one in failed:
            if (one.function, one.reason) not in self._said_failures:
                self._said_failures.add((one.function, one.reason))
                cause = one.causes[0].partition("\n")[0]
                self._say(
                    f"{one.num_completions} completions have no reward ({one.reason}): {cause}; further ones are "
                    f"counted in {self._folder.failures.name}"
                )

    def _say_step(self, step: int, metrics: dict[str, float]) -> None:
        """Print the line of a step; above it the header, where it is due or a reward function is new."""
        functions = reward_columns(metrics, self._functions)
        columns = (REWARD, *functions, *COLUMNS)
        width = 2 * len(str(self._num_steps)) + 1
        if self._num_lines % HEADER_EVERY == 0 or functions != self._functions:
            self._say(f"{'step':>{width}} " + " ".join(column.head for column in columns) + "    left")
        self._functions = functions
        self._num_lines += 1
        if "time/step_s" in metrics:
            self._step_s.append(metrics["time/step_s"])
        left = "-"
        if self._step_s:
            seconds = (self._num_steps - step - 1) * sum(self._step_s) / len(self._step_s)
            left = _short(seconds)
        count = f"{step + 1}/{self._num_steps}"
        self._say(f"{count:>{width}} " + " ".join(column.cell(metrics) for column in columns) + f" {left:>7}")

    def log_held_out(self, evaluation: Evaluation) -> None:
        """Record held-out scores; those of the same step, if it was scored before, are replaced.

        Raises:
            InfrastructureError: a file of the run folder cannot be written.
        """
        step, metrics = evaluation.step, evaluation.metrics()
        with writing(self._folder.held_out):
            _keep_until(self._folder.held_out, step)
            with self._folder.held_out.open("a") as file:
                file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._trackers.log_held_out(step, metrics)

    def close(self, outcome: Outcome = "finished") -> None:
        """Close the files, and wait a bounded time for the trackers, which are told how the run ended."""
        self._close()
        self._trackers.close(outcome)


def _recorded(step: int, ticket: GroupTicket) -> dict[str, Any]:
    sample = ticket.summary.sample
    assert sample is not None, "completions are kept without what was asked"
    results = [completion.result for completion in ticket.summary.completions]
    more: dict[str, Any] = {}
    if sample.history:
        more["history"] = readable_turns(sample.history)
    if ticket.summary.parts:
        more["parts"] = [dict(result.breakdown) for result in results]
    if any(result.explanations for result in results):
        more["explanations"] = [dict(result.explanations) for result in results]
    if any(result.reason.is_of_own for result in results):
        more["failures"] = [result.failure for result in results]
    return {
        "step": step,
        "position": ticket.position,
        "sample_id": sample.sample_id,
        "task": sample.task,
        "question": readable(sample.question),
        "answer": sample.answer,
        "completions": [completion.text for completion in ticket.summary.completions],
        "rewards": list(ticket.summary.rewards),
        "reasons": list(ticket.summary.reasons),
        **more,
    }


def _short(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.1f}h"
    return f"{seconds / 60:.0f}m" if seconds >= 90 else f"{seconds:.0f}s"


def ledger_line(groups: StepGroups) -> dict[str, Any]:
    """Return what became of every position that a step used up; each is in the ledger once."""
    return {
        "step": groups.step,
        "trained": [[t.position, t.group_id, t.sample_id] for t in groups.tickets],
        "replaced": [[t.position, t.group_id, t.sample_id] for t in groups.replaced],
        "dropped": [[position, reason] for position, reason in groups.dropped.items()],
    }


def _append(file: Any, record: dict[str, Any]) -> None:
    with writing(Path(file.name)):
        file.write(json.dumps(record) + "\n")
        file.flush()


def _keep_until(path: Path, first_step: int) -> None:
    """Drop lines of `first_step` and later, and a last line that a kill cut short."""
    if not path.is_file():
        return
    kept = [json.dumps(record) for record in read_json_lines(path, "step") if record["step"] < first_step]
    with whole_file(path) as partial:
        partial.write_text("".join(f"{line}\n" for line in kept))


def read_held_out(folder: RunFolder) -> list[dict[str, float]]:
    """Return the held-out scores of a run in order; `step` counts the training steps that their weights have seen."""
    return list(read_json_lines(folder.held_out, "step"))


def read_metrics(folder: RunFolder) -> list[dict[str, float]]:
    """Return all recorded steps of a run, in order, each with its metrics and timings."""
    timings = {record["step"]: record for record in read_json_lines(folder.timings, "step")}
    return [timings.get(record["step"], {}) | record for record in read_json_lines(folder.metrics, "step")]
