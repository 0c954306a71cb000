"""Groups reach an engine, whatever happens to the engines in between."""

import asyncio
from typing import Any

import pytest
from ray.exceptions import ObjectLostError, ObjectStoreFullError

from orchestration.settings.errors import LearnerLostError, PayloadLostError, TooManyFaultsError
from orchestration.workers.engine_pool import Engine
from rollout.admission import Admission
from rollout.errors import RolloutError
from tests.unit.train.virtual_time import in_virtual_time, settle
from tests.unit.workers.fake_actors import HANGS, SAMPLE, SPEC, FakeEngine, engines


@in_virtual_time
async def test_groups_go_where_there_is_room_and_the_rest_waits_by_urgency() -> None:
    async with engines(2) as fakes:
        tasks = {name: fakes.ask(name, urgency) for name, urgency in zip("abcdefg", (0, 0, 0, 0, 3, 2, 1), strict=True)}
        await settle()
        assert fakes.groups == [["a", "c"], ["b", "d"]]
        fakes.now(1).finish("b")
        await settle()
        assert fakes.groups == [["a", "c"], ["d", "g"]]
        assert await tasks["b"] == "b of 1a"
        fakes.now(0).finish("c")
        await settle()
        assert fakes.groups == [["a", "f"], ["d", "g"]]


@in_virtual_time
async def test_groups_of_an_engine_that_dies_go_elsewhere_and_it_is_built_again() -> None:
    async with engines(2) as fakes:
        tasks = [fakes.ask(name) for name in "abc"]
        await settle()
        fakes.now(0).die()
        await settle()
        assert [len(own) for own in fakes.made] == [2, 1]
        assert sorted([*fakes.now(0).groups, *fakes.now(1).groups]) == ["a", "b", "c"]
        assert fakes.pool.num_repeated == 2
        assert fakes.log.counts()["faults/engine"] == 1
        for fake in (fakes.now(0), fakes.now(1)):
            for name in list(fake.groups):
                fake.finish(name)
        assert {(await task).split()[0] for task in tasks} == {"a", "b", "c"}


@in_virtual_time
async def test_only_engine_dies_under_a_group_and_its_successor_samples_it() -> None:
    async with engines(1) as fakes:
        task = fakes.ask("a")
        await settle()
        fakes.now(0).die()
        await settle()
        fakes.now(0).finish("a")
        assert await task == "a of 0b"


@in_virtual_time
async def test_engine_at_one_step_is_alive_until_the_limit_of_steps() -> None:
    async with engines(2, heartbeat_s=2.0, heartbeat_timeout_s=5.0, step_timeout_s=60.0) as fakes:
        busy = fakes.now(0)
        busy.answers["beat"] = 59.0
        await asyncio.sleep(20.0)
        assert not busy.is_dead
        busy.answers["beat"] = 61.0
        await asyncio.sleep(2.1)
        assert busy.is_dead
        assert fakes.log.counts()["faults/engine"] == 1


@in_virtual_time
async def test_engine_that_does_not_answer_its_heartbeat_is_given_up_with_its_groups() -> None:
    async with engines(2, heartbeat_s=2.0, heartbeat_timeout_s=5.0) as fakes:
        task = fakes.ask("a")
        await settle()
        hanging = fakes.now(0)
        hanging.answers["beat"] = HANGS
        await asyncio.sleep(6.9)
        assert not hanging.is_dead
        await asyncio.sleep(0.2)
        assert hanging.is_dead
        await settle()
        assert fakes.now(1).groups + fakes.now(0).groups == ["a"]
        assert fakes.pool.num_repeated == 1
        assert [len(own) for own in fakes.made] == [2, 1]  # the late news of the old one harm no new one
        task.cancel()


@in_virtual_time
async def test_new_engine_takes_groups_only_when_it_has_the_current_weights() -> None:
    admitted: list[Engine] = []

    async def admit(engine: Engine) -> None:
        admitted.append(engine)

    async with engines(1, admit=admit) as fakes:
        tasks = [fakes.ask("a")]
        await settle()
        assert fakes.groups == [[]]
        fakes.pool.go_live(fakes.pool.ready_engines())
        await settle()
        assert (fakes.groups, admitted) == ([["a"]], [])
        fakes.now(0).die()
        tasks.append(fakes.ask("b"))
        await asyncio.sleep(100.0)
        assert [engine.handle for engine in admitted] == [fakes.now(0)]
        assert fakes.pool.ready_engines() == admitted
        assert fakes.groups == [[]]
        fakes.pool.go_live(admitted)
        fakes.pool.go_live(admitted)
        await settle()
        assert sorted(fakes.now(0).groups) == ["a", "b"]
        for task in tasks:
            task.cancel()


@in_virtual_time
async def test_engine_that_dies_while_it_waits_for_its_weights_is_built_again() -> None:
    waiting: list[asyncio.Future[None]] = []

    async def admit(engine: Engine) -> None:
        waiting.append(asyncio.get_running_loop().create_future())
        await waiting[-1]

    async with engines(1, admit=admit) as fakes:
        for _ in range(3):
            fakes.now(0).die()
            await asyncio.sleep(100.0)
        assert (len(fakes.made[0]), len(waiting)) == (4, 3)
        assert [engine.index for engine in fakes.pool.ready_engines()] == [0]
    assert all(future.cancelled() for future in waiting)


@in_virtual_time
async def test_groups_wait_while_no_engine_lives_and_go_on_with_the_first_that_does() -> None:
    async with engines(2) as fakes:
        tasks = [fakes.ask(name) for name in "ab"]
        await settle()
        fakes.answers["ready"] = HANGS
        fakes.now(0).die()
        fakes.now(1).die()
        await settle()
        tasks.append(fakes.ask("c"))
        standing = asyncio.create_task(fakes.pool.some_ready())
        await asyncio.sleep(100.0)
        assert not standing.done()
        fakes.now(1).open.pop()[1].set_result(8)
        await settle()
        assert [engine.index for engine in await standing] == [1]
        assert len(fakes.now(1).groups) == 2
        for task in tasks:
            task.cancel()


@in_virtual_time
async def test_too_many_losses_reach_everyone_who_waits() -> None:
    async with engines(1, max_engine_faults=2) as fakes:
        fakes.answers["ready"] = HANGS
        begun, idle = fakes.ask("a"), fakes.ask("b")
        await settle()
        fakes.now(0).die()
        await settle()
        standing = asyncio.create_task(fakes.pool.some_ready())
        await settle()
        for _ in range(2):
            fakes.now(0).open.pop()[1].set_exception(RuntimeError("no memory"))
            await settle()
        assert len(fakes.made[0]) == 3  # the first, and two that did not start
        for waiting in (begun, idle, standing, fakes.ask("c"), asyncio.create_task(fakes.pool.some_ready())):
            with pytest.raises(TooManyFaultsError, match=r"max_engine_faults=2.*it did not start: no memory"):
                await waiting


@in_virtual_time
async def test_engine_that_does_not_stand_in_time_is_given_up_only_where_no_other_works() -> None:
    async with engines(2, start_timeout_s=50.0) as fakes:
        fakes.answers["ready"] = HANGS
        fakes.now(0).die()
        await asyncio.sleep(500.0)
        assert [len(own) for own in fakes.made] == [2, 1]
        fakes.now(1).die()
        await asyncio.sleep(70.0)
        assert len(fakes.made[0]) > 2


@in_virtual_time
async def test_own_error_of_a_group_travels_and_costs_no_engine() -> None:
    async with engines(1) as fakes:
        fakes.now(0).answers["generate_group"] = RolloutError("too long")
        with pytest.raises(RolloutError, match="too long"):
            await fakes.ask("a")
        assert len(fakes.made[0]) == 1
        assert fakes.pool.num_repeated == 0


@in_virtual_time
async def test_bug_in_admitting_an_engine_reaches_those_who_wait() -> None:
    async def admit(engine: Engine) -> None:
        raise KeyError("bug")

    async with engines(1, admit=admit) as fakes:
        task = fakes.ask("a")
        await settle()
        fakes.now(0).die()
        with pytest.raises(KeyError, match="bug"):
            await task


@in_virtual_time
async def test_cancelled_group_keeps_its_place_until_the_engine_is_done_with_it() -> None:
    async with engines(1) as fakes:
        tasks = [fakes.ask(name) for name in "abcd"]
        await settle()
        tasks[0].cancel()
        tasks[2].cancel()
        await settle()
        assert fakes.groups == [["a", "b"]]
        fakes.now(0).finish("a")
        await settle()
        assert fakes.groups == [["b", "d"]]


@in_virtual_time
async def test_place_of_a_group_that_is_cancelled_as_it_gets_it_goes_to_the_next() -> None:
    async with engines(1) as fakes:
        tasks = [fakes.ask(name) for name in "abcd"]
        await settle()
        fakes.now(0).finish("a")
        await asyncio.sleep(0)  # the place is given to c, which does not know it yet
        tasks[2].cancel()
        await settle()
        assert fakes.groups == [["b", "d"]]


@in_virtual_time
async def test_group_whose_engine_is_lost_before_it_begins_goes_elsewhere() -> None:
    async with engines(2) as fakes:
        fakes.answers["ready"] = HANGS
        lost = fakes.pool.ready_engines()[0]
        tasks = [fakes.ask(name) for name in "abcde"]
        await settle()
        fakes.now(0).finish("a")
        await asyncio.sleep(0)  # the place is given to e, which does not know it yet
        lost.lose(lost.handle, "gone")
        await settle()
        assert fakes.made[0][0].groups == ["c"]
        fakes.now(1).finish("b")
        fakes.now(1).finish("d")
        await settle()
        assert sorted(fakes.now(1).groups) == ["c", "e"]
        for task in tasks:
            task.cancel()


@in_virtual_time
async def test_seat_is_taken_beyond_the_capacity_and_lost_with_its_engine() -> None:
    async with engines(2) as fakes:
        seats = fakes.pool.assign_batch("1", dict.fromkeys(range(6), SAMPLE))
        tasks = [
            asyncio.create_task(fakes.pool.generate_group(str(p), SAMPLE, SPEC, slot=slot)) for p, slot in seats.items()
        ]
        await settle()
        assert fakes.groups == [["0", "2", "4"], ["1", "3", "5"]]
        fakes.answers["ready"] = HANGS
        fakes.now(0).die()
        await settle()
        assert fakes.groups == [[], ["1", "3", "5"]]
        for name in ("1", "3"):
            fakes.now(1).finish(name)
        await settle()
        assert fakes.groups == [[], ["5", "0"]]
        for task in tasks:
            task.cancel()


@in_virtual_time
async def test_engine_is_told_of_a_seat_whose_group_was_lost_on_its_way() -> None:
    async with engines(2) as fakes:
        seats = fakes.pool.assign_batch("1", dict.fromkeys(range(4), SAMPLE))
        given_up: list[Admission] = []
        fakes.now(0).answers["give_up_slot"] = given_up.append
        fakes.now(0).answers["generate_group"] = ObjectLostError("ab" * 28, None, "")
        with pytest.raises(PayloadLostError):
            await fakes.pool.generate_group("0", SAMPLE, SPEC, slot=seats[0])
        assert given_up == [Admission(batch="1", index=0, size=2)]
        assert fakes.now(1).num("give_up_slot") == 0


@in_virtual_time
async def test_group_whose_images_find_no_room_before_they_leave_the_driver_takes_no_place() -> None:
    async with engines(1) as fakes:
        seats = fakes.pool.assign_batch("1", dict.fromkeys(range(2), SAMPLE))
        given_up: list[Admission] = []

        def full(*_: Any) -> None:
            raise ObjectStoreFullError("full")

        fakes.now(0).answers["give_up_slot"] = given_up.append
        fakes.now(0).answers["generate_group"] = full
        for slot in seats.values():
            with pytest.raises(PayloadLostError, match="no room in the object store"):
                await fakes.pool.generate_group("0", SAMPLE, SPEC, slot=slot)
        assert [admission.index for admission in given_up] == [0, 1]
        fakes.now(0).answers["generate_group"] = HANGS
        tasks = [fakes.ask(name) for name in "ab"]
        await settle()
        assert fakes.groups == [["a", "b"]]
        for task in tasks:
            task.cancel()


def arrive(engine: FakeEngine) -> None:
    """Let an engine that waits for room stand."""
    engine.open.pop()[1].set_result(9)


@in_virtual_time
async def test_elastic_engine_joins_when_there_is_room_and_nobody_waits_for_it() -> None:
    async with engines(1, max_engines=2, start_timeout_s=50.0) as fakes:
        fakes.now(1).answers["ready"] = HANGS
        tasks = [fakes.ask(name) for name in "abcd"]
        await asyncio.sleep(500.0)
        assert fakes.groups == [["a", "b"], []]
        arrive(fakes.now(1))
        await settle()
        assert fakes.groups == [["a", "b"], ["c", "d"]]
        assert [len(own) for own in fakes.made] == [1, 1]
        for task in tasks:
            task.cancel()


@in_virtual_time
async def test_elastic_engine_takes_groups_only_when_it_has_the_current_weights() -> None:
    admitted: list[Engine] = []

    async def admit(engine: Engine) -> None:
        admitted.append(engine)

    async with engines(1, max_engines=2, admit=admit) as fakes:
        fakes.now(1).answers["ready"] = HANGS
        fakes.pool.go_live(fakes.pool.ready_engines())
        tasks = [fakes.ask(name) for name in "abc"]
        await settle()
        arrive(fakes.now(1))
        await settle()
        assert [engine.index for engine in admitted] == [1]
        assert fakes.groups == [["a", "b"], []]
        fakes.pool.go_live(admitted)
        await settle()
        assert fakes.groups == [["a", "b"], ["c"]]
        for task in tasks:
            task.cancel()


@in_virtual_time
async def test_losses_of_an_elastic_engine_count_against_no_limit_and_it_waits_for_room_again() -> None:
    async with engines(1, max_engines=2, max_engine_faults=0) as fakes:
        task = fakes.ask("a")
        for lost in range(1, 6):
            await settle()
            fakes.now(1).die()
            await asyncio.sleep(10.0)
            assert len(fakes.made[1]) == lost + 1
        fakes.now(1).answers["ready"] = HANGS
        assert fakes.log.counts()["faults/elastic_engine"] == 5
        assert fakes.log.counts()["faults/engine"] == 0
        fakes.now(0).finish("a")
        assert await task == "a of 0a"


@in_virtual_time
async def test_elastic_engine_that_cannot_start_counts_as_any_other() -> None:
    async with engines(1, max_engines=2, max_engine_faults=2) as fakes:
        fakes.answers["ready"] = RuntimeError("no such kernel")
        fakes.now(1).die()
        await asyncio.sleep(10.0)
        with pytest.raises(TooManyFaultsError, match=r"max_engine_faults=2.*it did not start: no such kernel"):
            await fakes.ask("a")


@in_virtual_time
async def test_groups_of_an_elastic_engine_that_leaves_are_sampled_by_the_others() -> None:
    async with engines(1, max_engines=2) as fakes:
        await settle()
        tasks = [fakes.ask(name) for name in "ab"]
        await settle()
        assert fakes.groups == [["a"], ["b"]]
        fakes.answers["ready"] = HANGS
        fakes.now(1).die()
        await settle()
        assert fakes.groups == [["a", "b"], []]
        assert fakes.pool.num_repeated == 1
        for task in tasks:
            task.cancel()


@in_virtual_time
async def test_closing_ends_an_elastic_engine_that_still_waits_for_room() -> None:
    async with engines(1, max_engines=2) as fakes:
        waiting = fakes.now(1)
        waiting.answers["ready"] = HANGS
        await settle()
    assert waiting.is_dead


@in_virtual_time
async def test_an_error_for_waiting_groups_is_not_kept_for_later_ones() -> None:
    async with engines(1) as fakes:
        begun = [fakes.ask("a"), fakes.ask("b")]
        waiting = fakes.ask("c")
        await asyncio.sleep(1.0)
        fakes.pool.fail_waiting(LearnerLostError("gone"))
        with pytest.raises(LearnerLostError, match="gone"):
            await waiting
        assert await fakes.pool.some_ready() == fakes.pool.ready_engines()
        later = fakes.ask("d")
        for group in ("a", "b", "d"):
            await asyncio.sleep(1.0)
            fakes.now(0).finish(group)
        assert [await group for group in (*begun, later)] == ["a of 0a", "b of 0a", "d of 0a"]
