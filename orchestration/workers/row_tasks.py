"""Ray tasks of the data engine: one function over many items, a bounded number at a time, results in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import ray

Item = TypeVar("Item")
Result = TypeVar("Result")

QUEUED_PER_WORKER = 2
"""One task at work and one behind it, so that no worker waits for the driver."""


def _call(function: Callable[[Any], Any], item: Any) -> Any:
    return function(item)


_TASK = ray.remote(num_cpus=1, max_retries=2)(_call)


class RayWorkers:
    """Tasks on whatever cluster the session has joined; a task whose worker dies is run again, twice at most."""

    def __init__(self, num_workers: int | None) -> None:
        """Run at most `num_workers` tasks at once; None takes every core of the cluster."""
        cores = int(ray.cluster_resources().get("CPU", 1))
        self._window = QUEUED_PER_WORKER * (num_workers or cores)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Return results in order. The function must be importable, item and result small: rows stay in files."""
        waiting: deque[Any] = deque()
        for item in items:
            waiting.append(_TASK.remote(function, item))
            if len(waiting) >= self._window:
                yield ray.get(waiting.popleft())
        while waiting:
            yield ray.get(waiting.popleft())
