"""The reward pool's decisions, with actors played by futures: who waits, who is repeated, who is to blame."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from ray.exceptions import ObjectReconstructionFailedError, RayActorError

from orchestration.settings.cluster import RewardPoolConfig
from orchestration.settings.errors import (
    InfrastructureError,
    PayloadLostError,
    RewardLostError,
    ScoringError,
    TooManyFaultsError,
)
from orchestration.storage.faults import FaultLog
from orchestration.workers.reward_pool import RewardPool
from tests.unit.storage.fault_limits import fault_limits
from tests.unit.train.virtual_time import run_in_virtual_time


class Method:
    """A method of an actor: `remote` calls it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.remote = function


class FakeActor:
    """Holds every call open until the test answers it, as a Ray actor answers: in order. Beats while it is alive."""

    def __init__(self, standing: bool) -> None:
        self.calls: list[tuple[Any, asyncio.Future[str]]] = []
        self.is_alive = True
        self.is_hanging = False
        self.num_beats = 0
        self._waiting: list[asyncio.Future[Any]] = []
        self._standing = asyncio.get_running_loop().create_future()
        if standing:
            self.come_up()
        self.score, self.beat, self.ready = Method(self._score), Method(self._beat), Method(self._ready)

    def _score(self, group: Any, keep_texts: bool) -> tuple[str, "asyncio.Future[str]"]:
        future = self._future()
        self.calls.append((group, future))
        return f"payload of {group}", future

    def _beat(self) -> "asyncio.Future[Any]":
        future = self._future()
        if self.is_alive and not self.is_hanging:
            self.num_beats += 1
            future.set_result(None)
        return future

    def _ready(self) -> "asyncio.Future[int]":
        return self._standing

    def _future(self) -> "asyncio.Future[Any]":
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if not self.is_alive:
            future.set_exception(RayActorError())
        self._waiting.append(future)
        return future

    def come_up(self) -> None:
        self._standing.set_result(7)

    def answer(self) -> None:
        group, future = self.calls.pop(0)
        future.set_result(f"summary of {group}")

    def die(self) -> None:
        self.is_alive = False
        for future in [*self._waiting, self._standing]:
            if not future.done():  # a call that was waited for too long is cancelled
                future.set_exception(RayActorError())
        self.calls.clear()


class Cluster:
    """The actors of a pool, dead ones included."""

    def __init__(self, *, has_room: bool = True, **settings: Any) -> None:
        self.alive: dict[int, FakeActor] = {}
        self.stopped: list[FakeActor] = []
        self.has_room = has_room
        names = RewardPoolConfig.__dataclass_fields__
        limits = fault_limits(**{name: value for name, value in settings.items() if name not in names})
        config = RewardPoolConfig(**{name: value for name, value in settings.items() if name in names})
        self.log = FaultLog(limits, clock=asyncio.get_running_loop().time)
        self.pool = RewardPool(self.start, config, limits, self.log, stop=self.stop)  # type: ignore[arg-type]

    @property
    def num_faults(self) -> float:
        return self.log.counts()["faults/reward"]

    def start(self, index: int) -> FakeActor:
        self.alive[index] = FakeActor(self.has_room)
        return self.alive[index]

    def stop(self, actor: FakeActor) -> None:
        self.stopped.append(actor)
        actor.die()

    def score(self, group: str) -> "asyncio.Task[Any]":
        return asyncio.ensure_future(self.pool.score(group, keep_texts=False))  # type: ignore[arg-type]


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


def playing(**settings: Any) -> Callable[[Callable[[Cluster], Coroutine[Any, Any, None]]], Callable[[], None]]:
    """Play a scenario with a pool that stands, in virtual time, and close the pool."""

    def decorate(scenario: Callable[[Cluster], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        async def play() -> None:
            cluster = Cluster(**settings)
            await cluster.pool.ready()
            await scenario(cluster)
            cluster.pool.close()

        def test() -> None:
            run_in_virtual_time(play())

        return test

    return decorate


@playing(num_actors=2, calls_per_actor=2)
async def test_calls_go_to_the_least_busy_actor_and_the_rest_waits_outside(cluster: Cluster) -> None:
    tasks = [cluster.score(f"g{i}") for i in range(7)]
    await settle()
    assert [[group for group, _ in cluster.alive[i].calls] for i in (0, 1)] == [["g0", "g2"], ["g1", "g3"]]
    cluster.alive[1].answer()
    await settle()
    assert [group for group, _ in cluster.alive[1].calls] == ["g3", "g4"]
    while not all(task.done() for task in tasks):
        for actor in cluster.alive.values():
            if actor.calls:
                actor.answer()
        await settle()
    assert [task.result() for task in tasks] == [(f"payload of g{i}", f"summary of g{i}") for i in range(7)]
    assert cluster.num_faults == 0


@playing(num_actors=1, calls_per_actor=3)
async def test_a_call_whose_actor_died_is_repeated_once_and_those_behind_it_are_not_blamed(cluster: Cluster) -> None:
    tasks = {name: cluster.score(name) for name in ("a", "b", "c")}
    await settle()
    cluster.alive[0].die()
    await settle()
    assert sorted(group for group, _ in cluster.alive[0].calls) == ["a", "b", "c"]
    assert cluster.num_faults == 1
    while cluster.alive[0].calls[0][0] != "b":
        cluster.alive[0].answer()
    await settle()
    cluster.alive[0].die()
    await settle()
    while cluster.alive[0].calls:
        cluster.alive[0].answer()
    assert await asyncio.gather(*tasks.values()) == [(f"payload of {name}", f"summary of {name}") for name in tasks]
    assert cluster.num_faults == 2


@playing(num_actors=1, calls_per_actor=1)
async def test_a_group_that_takes_two_actors_with_it_is_given_up_alone(cluster: Cluster) -> None:
    poison, honest = cluster.score("poison"), cluster.score("honest")
    for _ in range(2):
        await settle()
        cluster.alive[0].die()
    with pytest.raises(ScoringError, match="lost by 2 reward actors"):
        await poison
    await settle()
    cluster.alive[0].answer()
    assert (await honest)[1] == "summary of honest"


@playing(num_actors=1, calls_per_actor=2, timeout_s=120.0)
async def test_an_actor_that_hangs_over_a_group_is_stopped_and_replaced(cluster: Cluster) -> None:
    slow, behind = cluster.score("slow"), cluster.score("behind")
    hanging = cluster.alive[0]
    await asyncio.sleep(119.0)
    assert cluster.stopped == []
    await asyncio.sleep(2.0)
    assert cluster.stopped == [hanging]
    for _ in range(2):
        cluster.alive[0].answer()
    assert {(await slow)[1], (await behind)[1]} == {"summary of slow", "summary of behind"}


@playing(num_actors=1, calls_per_actor=1)
async def test_a_group_that_vanished_costs_no_actor_and_is_reported_as_lost(cluster: Cluster) -> None:
    task = cluster.score("a")
    await settle()
    cluster.alive[0].calls[0][1].set_exception(ObjectReconstructionFailedError("ab" * 28))
    with pytest.raises(PayloadLostError, match="abab"):
        await task
    assert (cluster.num_faults, cluster.stopped) == (0, [])


@playing(num_actors=1, calls_per_actor=1)
async def test_an_error_of_the_reward_itself_travels(cluster: Cluster) -> None:
    for error in (KeyError("bug"), TimeoutError("of a grader")):
        task = cluster.score("a")
        await settle()
        cluster.alive[0].calls.pop()[1].set_exception(error)
        with pytest.raises(type(error)):
            await task
    assert cluster.num_faults == 0


@playing(num_actors=2, calls_per_actor=1, heartbeat_s=2.0)
async def test_an_actor_that_dies_idle_is_replaced_within_a_heartbeat(cluster: Cluster) -> None:
    dead = cluster.alive[1]
    dead.die()
    await asyncio.sleep(2.5)
    assert cluster.stopped == [dead]
    assert cluster.num_faults == 1
    tasks = [cluster.score("a"), cluster.score("b")]
    await settle()
    cluster.alive[0].answer()
    cluster.alive[1].answer()
    assert len(await asyncio.gather(*tasks)) == 2


@playing(num_actors=1, calls_per_actor=1, heartbeat_s=2.0, heartbeat_timeout_s=30.0)
async def test_an_actor_without_heartbeat_is_replaced_after_the_limit(cluster: Cluster) -> None:
    hanging = cluster.alive[0]
    await asyncio.sleep(100.0)
    assert hanging.num_beats >= 49
    hanging.is_hanging = True
    await asyncio.sleep(30.0)
    assert cluster.stopped == []
    await asyncio.sleep(3.0)
    assert cluster.stopped == [hanging]
    await asyncio.sleep(100.0)
    assert cluster.num_faults == 1


@playing(num_actors=1, calls_per_actor=1, heartbeat_s=10.0)
async def test_one_death_seen_by_a_call_and_by_a_heartbeat_is_one_fault(cluster: Cluster) -> None:
    task = cluster.score("a")
    await settle()
    cluster.alive[0].die()
    await settle()
    cluster.alive[0].answer()
    await task
    await asyncio.sleep(60.0)
    assert cluster.num_faults == 1
    assert cluster.alive[0].num_beats >= 5


@playing(num_actors=2, calls_per_actor=1, heartbeat_s=2.0)
async def test_while_there_is_no_room_for_an_actor_the_others_score(cluster: Cluster) -> None:
    cluster.has_room = False
    cluster.alive[1].die()
    await asyncio.sleep(3_600.0)
    tasks = [cluster.score("a"), cluster.score("b")]
    await settle()
    assert [group for group, _ in cluster.alive[0].calls] == ["a", "b"]
    for _ in range(2):
        cluster.alive[0].answer()
    await asyncio.gather(*tasks)
    cluster.alive[1].come_up()
    await settle()
    tasks = [cluster.score("c"), cluster.score("d")]
    await settle()
    assert len(cluster.alive[1].calls) == 1
    cluster.alive[0].answer()
    cluster.alive[1].answer()
    await asyncio.gather(*tasks)
    assert cluster.num_faults == 1


@playing(num_actors=1, calls_per_actor=1, heartbeat_s=2.0, start_timeout_s=180.0)
async def test_a_pool_in_which_nobody_stands_waits_so_long_and_no_longer(cluster: Cluster) -> None:
    cluster.has_room = False
    cluster.alive[0].die()
    await asyncio.sleep(3.0)
    first = cluster.score("a")
    await asyncio.sleep(100.0)
    cluster.alive[0].come_up()
    await settle()
    cluster.alive[0].answer()
    assert (await first)[1] == "summary of a"
    cluster.alive[0].die()
    await asyncio.sleep(3.0)
    with pytest.raises(InfrastructureError, match=r"reward actors \[0\] have not started .*start_timeout_s=180"):
        await cluster.score("b")


@playing(num_actors=1, calls_per_actor=1, max_reward_faults=3)
async def test_actors_that_die_over_every_group_end_the_run(cluster: Cluster) -> None:
    tasks = [cluster.score(f"g{i}") for i in range(3)]
    for _ in range(4):
        await settle()
        cluster.alive[0].die()
    await settle()
    with pytest.raises(ScoringError):
        await tasks[0]
    with pytest.raises(TooManyFaultsError, match="max_reward_faults=3"):
        await tasks[1]
    tasks[2].cancel()


@playing(num_actors=1, calls_per_actor=1, heartbeat_s=2.0, max_reward_faults=2)
async def test_actors_that_die_idle_again_and_again_end_the_run_at_its_next_group(cluster: Cluster) -> None:
    for _ in range(3):
        cluster.alive[0].die()
        await asyncio.sleep(3.0)
    with pytest.raises(TooManyFaultsError, match="max_reward_faults=2"):
        await cluster.score("a")


@playing(num_actors=1, calls_per_actor=1, heartbeat_s=2.0, max_reward_faults=2)
async def test_a_group_that_waits_hears_that_actors_die_on_their_way_up(cluster: Cluster) -> None:
    cluster.has_room = False
    cluster.alive[0].die()
    await asyncio.sleep(3.0)
    waiting = cluster.score("a")
    for _ in range(2):
        await settle()
        cluster.alive[0].die()
    await settle()
    assert waiting.done()
    with pytest.raises(TooManyFaultsError, match="max_reward_faults=2"):
        await waiting


def test_a_pool_that_does_not_come_up_says_which_actors_are_missing() -> None:
    async def scenario() -> None:
        cluster = Cluster(num_actors=3, has_room=False)
        cluster.alive[1].come_up()
        with pytest.raises(InfrastructureError, match=r"reward actors \[0, 2\] have not started"):
            await cluster.pool.ready()

    assert run_in_virtual_time(scenario()) == pytest.approx(180.0)


def test_an_actor_that_dies_on_its_way_up_ends_the_start_at_once() -> None:
    async def scenario() -> None:
        cluster = Cluster(num_actors=2, has_room=False)
        asyncio.get_running_loop().call_later(5.0, cluster.alive[1].die)
        with pytest.raises(RewardLostError, match="reward 1 died"):
            await cluster.pool.ready()

    assert run_in_virtual_time(scenario()) == pytest.approx(5.0)
