"""Every row is read once for every draw, in a thread, and one that cannot be read is a reason."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from orchestration.train.draws import Draws
from rollout.config import StreamConfig
from rollout.errors import RolloutError
from rollout.records import Sample
from tests.unit.rollout.prompt_tables import MemoryTable
from tests.unit.train.run_records import training


class Table(MemoryTable):
    """Notes who reads which row; a row can be read once."""

    def __init__(self) -> None:
        super().__init__({("chart", "plots", ""): 8})
        self.read: list[str] = []
        self.threads: set[int] = set()
        self.broken: set[str] = set()

    def __getitem__(self, index: int) -> Sample:
        self.threads.add(threading.get_ident())
        if str(index) in self.broken:
            raise RolloutError(f"row {index} cannot be read")
        self.read.append(str(index))
        self.broken.add(str(index))
        return super().__getitem__(index)


def draws_of(table: Table) -> Draws:
    config: Any = SimpleNamespace(
        seed=3, training=training(groups_per_step=4), data=SimpleNamespace(stream=StreamConfig())
    )
    return Draws(table, config)  # type: ignore[arg-type]


def test_a_row_is_read_once_beside_the_event_loop_and_travels_with_its_seat() -> None:
    table = Table()
    draws = draws_of(table)
    asyncio.run(draws.read(range(4)))
    seated = draws.samples(range(4))
    assert [draws.at(position).sample for position in range(4)] == list(seated.values())
    assert sorted(table.read) == sorted(sample.sample_id for sample in seated.values())
    assert threading.get_ident() not in table.threads


def test_a_row_that_cannot_be_read_has_no_seat_and_its_reason_is_raised() -> None:
    table = Table()
    draws = draws_of(table)
    asyncio.run(draws.read(range(8)))
    broken = draws.at(3).sample.sample_id
    for position in (*range(3), *range(4, 8)):
        draws.at(position)
    table.broken = {broken}
    asyncio.run(draws.read(range(8, 16)))
    seated = draws.samples(range(8, 16))
    (missing,) = set(range(8, 16)) - set(seated)
    with pytest.raises(RolloutError, match=f"row {broken} cannot be read"):
        draws.at(missing)


def test_what_was_read_before_a_run_went_back_is_forgotten() -> None:
    table = Table()
    draws = draws_of(table)
    asyncio.run(draws.read([0]))
    table.broken.clear()
    draws.go_to({})
    asyncio.run(draws.read([0]))
    assert len(table.read) == 2
    draws.at(0)
    with pytest.raises(KeyError):
        draws.at(0)
