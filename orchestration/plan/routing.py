"""Which reward function reads which rows, and how many there are of each."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from rewards.config import RewardConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteCount:
    """Rows of one task that one function reads.

    Example:
        >>> RouteCount(task="chart", function="chart", num_rows=12, format_weight=0.1, task_weight=0.9).num_rows
        12
    """

    task: str
    function: str
    num_rows: int | None
    """None where the dataset is not there."""
    format_weight: float
    task_weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrouted:
    """Rows that nothing scores; a run refuses a dataset that holds any."""

    task: str
    source: str
    num_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingPlan:
    """How rows are scored."""

    routes: tuple[RouteCount, ...]
    """Most rows first."""
    unrouted: tuple[Unrouted, ...]
    """Of training and held-out rows."""


def plan_routing(
    config: RewardConfig, drawn: Iterable[tuple[str, str]] | None, every: Iterable[tuple[str, str]]
) -> RoutingPlan:
    """Route every row.

    Args:
        config: routes, rules and weights.
        drawn: (task, source) of every row that the run draws from; None where there is no dataset yet.
        every: of every row of both datasets, of which a run bears none without a function.
    """
    if drawn is None:
        return RoutingPlan(routes=_routes_without_rows(config), unrouted=())
    counts = Counter(drawn)
    grouped: Counter[tuple[str, str, float, float]] = Counter()
    for (task, source), num_rows in counts.items():
        if config.is_routed(task, source):
            route = config.route(task, source)
            grouped[task, route.function, route.format_weight, route.task_weight] += num_rows
    missing = config.unrouted(every)
    return RoutingPlan(
        routes=tuple(
            RouteCount(
                task=task,
                function=function,
                num_rows=num_rows,
                format_weight=format_weight,
                task_weight=task_weight,
            )
            for (task, function, format_weight, task_weight), num_rows in sorted(
                grouped.items(), key=lambda item: (-item[1], item[0])
            )
        ),
        unrouted=tuple(
            Unrouted(task=task, source=source, num_rows=num_rows)
            for (task, source), num_rows in sorted(missing.items())
        ),
    )


def _routes_without_rows(config: RewardConfig) -> tuple[RouteCount, ...]:
    return tuple(
        RouteCount(
            task=task,
            function=route.function,
            num_rows=None,
            format_weight=route.format_weight,
            task_weight=route.task_weight,
        )
        for task, route in ((task, config.route(task)) for task in config.routes)
    )
