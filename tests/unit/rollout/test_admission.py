"""Batches of groups that are let in as one."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from rollout.admission import Admission, BatchAdmission
from rollout.errors import EngineDiedError, RolloutError


class Engine:
    """Notes what is submitted, and whether it stood still then."""

    def __init__(self, *, hold_error: Exception | None = None) -> None:
        self.submitted: list[tuple[Any, bool]] = []
        self.num_holds = 0
        self._is_held = False
        self._hold_error = hold_error

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        if self._hold_error:
            raise self._hold_error
        self.num_holds += 1
        self._is_held = True
        yield
        self._is_held = False

    def submit(self, name: Any, error: Exception | None = None) -> Callable[[], Coroutine[Any, Any, Any]]:
        async def submit() -> Any:
            await asyncio.sleep(0)
            self.submitted.append((name, self._is_held))
            if error:
                raise error
            return name

        return submit


def slot(index: int, *, batch: str = "0-0", size: int = 3) -> Admission:
    return Admission(batch=batch, index=index, size=size)


def test_a_batch_enters_in_order_of_its_seats_while_the_engine_is_held() -> None:
    async def run() -> None:
        engine = Engine()
        batches = BatchAdmission(engine.hold)
        late = [asyncio.ensure_future(batches.enter(slot(index), engine.submit(index))) for index in (2, 0)]
        other = asyncio.ensure_future(batches.enter(slot(0, batch="0-1", size=1), engine.submit("other")))
        assert await other == "other"
        assert engine.submitted == [("other", True)]
        assert await batches.enter(slot(1), engine.submit(1)) == 1
        assert [await job for job in late] == [2, 0]
        assert engine.submitted[1:] == [(0, True), (1, True), (2, True)]
        assert engine.num_holds == 2

    asyncio.run(run())


def test_a_group_that_is_refused_takes_no_other_with_it() -> None:
    async def run() -> None:
        engine = Engine()
        batches = BatchAdmission(engine.hold)
        submissions = [engine.submit(0), engine.submit(1, RolloutError("broken image")), engine.submit(2)]
        jobs = [batches.enter(slot(index), submit) for index, submit in enumerate(submissions)]
        first, refused, last = await asyncio.gather(*jobs, return_exceptions=True)
        assert (first, last) == (0, 2)
        assert isinstance(refused, RolloutError)

    asyncio.run(run())


def test_an_engine_that_cannot_be_held_fails_every_group_of_the_batch() -> None:
    async def run() -> None:
        engine = Engine(hold_error=EngineDiedError("gone"))
        batches = BatchAdmission(engine.hold)
        jobs = [batches.enter(slot(index), engine.submit(index)) for index in range(3)]
        found = await asyncio.gather(*jobs, return_exceptions=True)
        assert [type(error) for error in found] == [EngineDiedError] * 3
        assert not engine.submitted

    asyncio.run(run())


def test_a_batch_can_be_asked_for_again_after_its_callers_gave_up() -> None:
    async def run() -> None:
        engine = Engine()
        batches = BatchAdmission(engine.hold)
        given_up = [asyncio.ensure_future(batches.enter(slot(index), engine.submit("old"))) for index in (0, 1)]
        await asyncio.sleep(0)
        for job in given_up:
            job.cancel()
        await asyncio.gather(*given_up, return_exceptions=True)
        jobs = [batches.enter(slot(index), engine.submit(index)) for index in range(3)]
        assert await asyncio.gather(*jobs) == [0, 1, 2]
        assert [name for name, _ in engine.submitted] == [0, 1, 2]

    asyncio.run(run())


@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_a_batch_does_not_wait_for_a_slot_that_was_given_up(when: str) -> None:
    async def run() -> None:
        engine = Engine()
        batches = BatchAdmission(engine.hold)
        jobs = []
        for index, moment in ((0, "before"), (2, "between")):
            if when == moment:
                batches.give_up(slot(1))
            jobs.append(asyncio.ensure_future(batches.enter(slot(index), engine.submit(index))))
            await asyncio.sleep(0)
        if when == "after":
            assert engine.submitted == []
            batches.give_up(slot(1))
        assert await asyncio.gather(*jobs) == [0, 2]
        assert engine.submitted == [(0, True), (2, True)]
        assert engine.num_holds == 1

    asyncio.run(run())


def test_giving_up_a_slot_that_has_come_or_a_whole_batch_changes_nothing_else() -> None:
    async def run() -> None:
        engine = Engine()
        batches = BatchAdmission(engine.hold)
        come = asyncio.ensure_future(batches.enter(slot(0), engine.submit(0)))
        await asyncio.sleep(0)
        batches.give_up(slot(0))
        batches.give_up(slot(1))
        batches.give_up(slot(2))
        assert await come == 0
        for index in range(3):
            batches.give_up(slot(index, batch="0-1"))
        assert await batches.enter(slot(0, batch="0-2", size=1), engine.submit("next")) == "next"

    asyncio.run(run())


def test_two_groups_on_one_slot_are_refused() -> None:
    async def run() -> None:
        engine = Engine()
        batches = BatchAdmission(engine.hold)
        first = asyncio.ensure_future(batches.enter(slot(0), engine.submit(0)))
        await asyncio.sleep(0)
        with pytest.raises(RolloutError, match="batch 0-0 has two groups at index 0"):
            await batches.enter(slot(0), engine.submit(0))
        first.cancel()

    asyncio.run(run())


def test_a_slot_outside_its_batch_is_refused() -> None:
    with pytest.raises(RolloutError, match=r"Admission.index is 3 in a batch of 3; use 0 to 2"):
        slot(3)
