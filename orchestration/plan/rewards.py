"""Rows and their rewards: which function scores which rows, and references that no answer can earn."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestration.plan.records import Finding, warning
from rewards.base import RewardRequest
from rewards.config import RewardConfig
from rewards.proof import ReferenceFault, ReferenceProof
from rollout.dataset import SampleTable


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteCount:
    """Rows of one task that one function reads."""

    task: str
    function: str
    num_rows: int | None
    """None where the dataset is not there."""
    format_weight: float
    task_weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrouted:
    """Rows without a reward function; a run refuses a dataset that holds any."""

    task: str
    source: str
    num_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingPlan:
    """Which function scores which rows."""

    routes: tuple[RouteCount, ...]
    """Most rows first."""
    unrouted: tuple[Unrouted, ...]
    """Of training and held-out rows."""


def plan_routing(
    config: RewardConfig, drawn: Iterable[tuple[str, str]] | None, every: Iterable[tuple[str, str]]
) -> RoutingPlan:
    """Count rows by task and reward function.

    Args:
        config: routes, rules and weights.
        drawn: (task, source) of every row that the run draws from; None where there is no dataset yet.
        every: of every row of both datasets; a run refuses rows without a function.
    """
    if drawn is None:
        return RoutingPlan(routes=tuple(_route(config, task, "") for task in config.routes), unrouted=())
    grouped: Counter[RouteCount] = Counter()
    for (task, source), num_rows in Counter(drawn).items():
        if config.is_routed(task, source):
            grouped[_route(config, task, source)] += num_rows
    ordered = sorted(grouped.items(), key=lambda found: (-found[1], astuple(found[0])))
    missing = sorted(config.unrouted(every).items())
    return RoutingPlan(
        routes=tuple(replace(route, num_rows=num_rows) for route, num_rows in ordered),
        unrouted=tuple(Unrouted(task=task, source=source, num_rows=num) for (task, source), num in missing),
    )


def _route(config: RewardConfig, task: str, source: str) -> RouteCount:
    route = config.route(task, source)
    return RouteCount(
        task=task,
        function=route.function,
        num_rows=None,
        format_weight=route.format_weight,
        task_weight=route.task_weight,
    )


MAX_PROVED = 64
"""Of a source's rows, evenly over all of them: a plan takes seconds."""
COLUMNS = (
    *("task", "source", "question", "answer", "options", "answer_type"),
    *("images.list.element.width", "images.list.element.height"),
)
FAULTS = {
    "unusable": "cannot be graded against",
    "not_right": "do not score 1 as answers",
    "unearned": "are earned by no plain spelling",
}


def reference_findings(config: RewardConfig, table: SampleTable, drawn: NDArray[np.int32]) -> Iterator[Finding]:
    """Prove some references of every source of the drawn rows and yield a warning for each source with faults.

    Rows without a route are left out.
    """
    by_source: dict[tuple[str, str], list[int]] = defaultdict(list)
    pairs = table.tasks_and_sources()
    for index in drawn.tolist():
        if config.is_routed(*pairs[index]):
            by_source[pairs[index]].append(index)
    chosen = {pair: rows[:: -(-len(rows) // MAX_PROVED)] for pair, rows in by_source.items()}
    columns = table.arrow(*COLUMNS)
    with ReferenceProof(config) as proof:
        for (task, source), indices in sorted(chosen.items()):
            requests = map(_request, columns.take(pa.array(indices)).to_pylist())
            faults = [fault for fault in map(proof.fault, requests) if fault is not None]
            yield from _findings(f"source {source!r}, task {task}", faults, len(indices))


def _findings(where: str, faults: list[ReferenceFault], num_proved: int) -> Iterator[Finding]:
    for kind, text in FAULTS.items():
        own = [fault for fault in faults if fault.kind == kind]
        if own:
            yield warning(
                "data.train",
                f"{where}: {len(own)} of {num_proved} references tried {text}, such as {own[0].detail}; "
                "mend them, or route the source to another reward (reward.rules)",
            )


def _request(row: dict[str, Any]) -> RewardRequest:
    sizes = tuple((image["width"], image["height"]) for image in row["images"])
    return RewardRequest(
        task=row["task"],
        source=row["source"],
        question=row["question"],
        response="",
        answer=row["answer"],
        options=tuple(row["options"]),
        answer_type=row["answer_type"],
        image_sizes=sizes,
        image_input_sizes=sizes,
    )
