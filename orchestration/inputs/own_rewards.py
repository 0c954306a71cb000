"""Reward functions of the user's, tried on a few references before a run reserves anything."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

from rewards.core.base import RewardError, RewardRequest
from rewards.core.config import FormatConfig, RewardConfig
from rewards.core.envelope import write_response
from rewards.core.parts import OwnFunctionConfig
from rewards.functions.own import OwnReward
from rollout.dataset import SampleTable
from rollout.errors import RolloutError
from rollout.records import Sample, readable, readable_turns

MAX_TRIED = 4
"""References tried per task and source, evenly spaced: a call may cost money, and one may take as long as its limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnTrial:
    """What functions of the user's made of references of one task and source, given as answers."""

    task: str
    source: str
    function: str
    num_tried: int
    failures: tuple[str, ...]
    """Of the references without a value: what happened, and the traceback where there is one."""

    @property
    def is_refused(self) -> bool:
        """Whether there was no value at all."""
        return len(self.failures) == self.num_tried

    def __str__(self) -> str:
        return (
            f"{self.function} has no value for {len(self.failures)} of {self.num_tried} references tried of task "
            f"{self.task}, source {self.source!r}, such as: {self.failures[0]}"
        )


def try_own_functions(config: RewardConfig, table: SampleTable, rows: Sequence[int]) -> Iterator[OwnTrial]:
    """Score some references as answers, and yield the trial of each task and source where one has no value.

    Args:
        config: Routes and functions of the run.
        table: Rows of a dataset.
        rows: Numbers of those that may be tried.

    Raises:
        RewardError: A function cannot be loaded or called.
    """
    if not config.functions:
        return
    by_source: dict[tuple[str, str], list[int]] = defaultdict(list)
    pairs = table.tasks_and_sources()
    for row in rows:
        by_source[pairs[row]].append(row)
    loaded: dict[str, OwnReward] = {}
    with ExitStack() as stack:
        for (task, source), numbers in sorted(by_source.items()):
            parts = config.route(task, source).parts if config.is_routed(task, source) else ()
            own = [part for part in parts if isinstance(part.parameters, OwnFunctionConfig)]
            samples = _readable(table, numbers[:: -(-len(numbers) // MAX_TRIED)]) if own else []
            for part in own if samples else ():
                key = f"{part.function} {part.parameters}"
                if key not in loaded:
                    loaded[key] = OwnReward(part.function, part.parameters)
                    stack.callback(loaded[key].close)
                failures = _failures(loaded[key], samples, config.format)
                if failures:
                    yield OwnTrial(
                        task=task,
                        source=source,
                        function=part.function,
                        num_tried=len(samples),
                        failures=failures,
                    )


def load_own_functions(config: RewardConfig) -> None:
    """Load each function of the user's once.

    Raises:
        RewardError: One cannot be loaded or called.
    """
    for name in config.functions:
        section = config.parameters(name)
        assert isinstance(section, OwnFunctionConfig)
        with closing(OwnReward(name, section)) as function:
            function.start()


def check_own_functions(config: RewardConfig, *tables: SampleTable) -> None:
    """Check that functions of the user's can be called and give a value for some reference of each task and source.

    Raises:
        RewardError: One cannot, or gives none.
    """
    for table in tables:
        for trial in try_own_functions(config, table, range(len(table))):
            if trial.is_refused:
                raise RewardError(f"{trial}\ncorrect the function, or leave these rows out")


def _readable(table: SampleTable, rows: Sequence[int]) -> list[Sample]:
    """Read rows; those that cannot be read are for others to report."""
    samples = []
    for row in rows:
        try:
            samples.append(table[row])
        except RolloutError:
            continue
    return samples


def _failures(function: OwnReward, samples: Sequence[Sample], format: FormatConfig) -> tuple[str, ...]:
    """Return what happened to each reference that got no value."""
    function.start()
    requests = [_request(sample, format, with_images=function.takes_images) for sample in samples]
    grades = [function.grade_completions([request], [request.answer])[0] for request in requests]
    return tuple(grade.failure for grade in grades if grade.failure is not None)


def _request(sample: Sample, format: FormatConfig, *, with_images: bool) -> RewardRequest:
    sizes = tuple(image.size for image in sample.images)
    return RewardRequest(
        task=sample.task,
        source=sample.source,
        question=readable(sample.question),
        history=readable_turns(sample.history),
        response=write_response(sample.answer, format),
        answer=sample.answer,
        options=sample.options,
        answer_type=sample.answer_type,
        image_sizes=sizes,
        image_input_sizes=sizes,
        metadata=sample.metadata,
        images=tuple(image.data for image in sample.images) if with_images else (),
    )
