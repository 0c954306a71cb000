"""Calls of several engines at once, and the engines' end."""

import asyncio

import pytest

from orchestration.settings.errors import EngineLostError, InfrastructureError
from tests.unit.storage.fault_limits import fault_limits
from tests.unit.train.virtual_time import in_virtual_time
from tests.unit.workers.fake_actors import HANGS, SAMPLE, FakeEngines, engines


@in_virtual_time
async def test_death_under_a_call_of_all_engines_is_told_and_the_old_one_takes_no_new_one_with_it() -> None:
    async with engines(2, heartbeat_s=1.0, heartbeat_timeout_s=2.0) as fakes:
        hanging = fakes.now(0)
        hanging.answers |= {"pause": HANGS, "beat": HANGS}
        with pytest.raises(EngineLostError, match="engine 0"):
            await fakes.pool.on_each(fakes.pool.ready_engines(), "pause")
        await asyncio.sleep(50.0)
        assert [len(own) for own in fakes.made] == [2, 1]
        assert fakes.log.counts()["faults/engine"] == 1


@in_virtual_time
async def test_own_error_under_a_call_of_all_engines_travels() -> None:
    async with engines(2) as fakes:
        fakes.now(1).answers["pause"] = KeyError("bug")
        with pytest.raises(KeyError, match="bug"):
            await fakes.pool.on_each(fakes.pool.ready_engines(), "pause")
        assert len(fakes.pool.ready_engines()) == 2


@in_virtual_time
async def test_lost_engines_are_counted_also_where_they_are_being_built_again() -> None:
    async with engines(3) as fakes:
        fakes.answers["ready"] = HANGS
        everyone = fakes.pool.ready_engines()
        everyone[0].lose(everyone[0].handle, "gone")
        fakes.now(1).die()
        assert await fakes.pool.find_lost({engine: engine.handle for engine in everyone}) == 2
        assert [engine.index for engine in fakes.pool.ready_engines()] == [2]


@in_virtual_time
async def test_live_engines_are_probed_in_turn_and_a_lost_one_gives_nothing() -> None:
    async with engines(10) as fakes:
        for index in range(10):
            fakes.now(index).answers["score_completion"] = index
        assert await fakes.pool.completion_logprobs("payload", SAMPLE) == [0, 1, 2, 3, 4, 5, 6, 7]
        fakes.now(9).die_in("score_completion")
        assert await fakes.pool.completion_logprobs("payload", SAMPLE) == [8, 0, 1, 2, 3, 4, 5]
        fakes.now(0).answers["score_completion"] = KeyError("bug")
        with pytest.raises(KeyError, match="bug"):
            await fakes.pool.completion_logprobs("payload", SAMPLE)


@in_virtual_time
async def test_close_asks_engines_to_end_and_kills_one_that_does_not() -> None:
    fakes = FakeEngines(2, fault_limits(heartbeat_timeout_s=5.0))
    await fakes.pool.ready()
    fakes.now(0).answers["close"] = HANGS
    await fakes.pool.close()
    assert asyncio.get_running_loop().time() == 5.0
    assert all(fakes.now(index).is_dead and fakes.now(index).num("close") == 1 for index in range(2))


@in_virtual_time
async def test_first_start_that_fails_ends_the_run() -> None:
    fakes = FakeEngines(2, fault_limits(), ready=RuntimeError("no such model"))
    with pytest.raises(RuntimeError, match="no such model"):
        await fakes.pool.ready()
    assert not issubclass(RuntimeError, InfrastructureError)
