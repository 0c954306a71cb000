"""Workers: one function over many items, results in order; `orchestration.workers.row_tasks` implements it with Ray."""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers(Protocol):
    """Runs a function over items somewhere."""

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Give the results in the order of the items; at most a few items are taken ahead of the result asked for."""
        ...
