"""The reward pool's decisions, with actors played by futures: who waits, who is repeated, who is to blame."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from ray.exceptions import RayActorError

from orchestration.config import RewardPoolConfig
from orchestration.errors import InfrastructureError, ScoringError
from orchestration.pools.rewards import LOSSES_IN_A_ROW, RewardPool


class FakeActor:
    """Holds every call open until the test answers it, as a Ray actor answers: in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, asyncio.Future[str]]] = []
        self.score = self

    def remote(self, group: Any, keep_texts: bool) -> tuple[str, "asyncio.Future[str]"]:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.calls.append((group, future))
        return f"payload of {group}", future

    def answer(self) -> None:
        group, future = self.calls.pop(0)
        future.set_result(f"summary of {group}")

    def die(self) -> None:
        for _, future in self.calls:
            if not future.done():  # a call that was waited for too long is cancelled
                future.set_exception(RayActorError())
        self.calls.clear()


class Cluster:
    """The actors of a pool, dead ones included."""

    def __init__(self, **settings: Any) -> None:
        self.alive: dict[int, FakeActor] = {}
        self.stopped: list[FakeActor] = []
        self.pool = RewardPool(self.start, RewardPoolConfig(**settings), stop=self.stop)  # type: ignore[arg-type]

    def start(self, index: int) -> FakeActor:
        self.alive[index] = FakeActor()
        return self.alive[index]

    def stop(self, actor: FakeActor) -> None:
        self.stopped.append(actor)
        actor.die()

    def score(self, group: str) -> "asyncio.Task[Any]":
        return asyncio.ensure_future(self.pool.score(group, keep_texts=False))  # type: ignore[arg-type]


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def test_calls_go_to_the_least_busy_actor_and_the_rest_waits_outside() -> None:
    async def scenario() -> None:
        cluster = Cluster(num_actors=2, calls_per_actor=2)
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
        assert cluster.pool.num_restarts == 0

    run(scenario)


def test_a_call_whose_actor_died_is_repeated_once_and_those_behind_it_are_not_blamed() -> None:
    async def scenario() -> None:
        cluster = Cluster(num_actors=1, calls_per_actor=3)
        first, second, third = (cluster.score(name) for name in ("a", "b", "c"))
        await settle()
        cluster.alive[0].die()
        await settle()
        assert sorted(group for group, _ in cluster.alive[0].calls) == ["a", "b", "c"]
        assert cluster.pool.num_restarts == 1
        cluster.alive[0].answer()
        await settle()
        cluster.alive[0].die()
        await settle()
        for _ in range(2):
            cluster.alive[0].answer()
        await asyncio.gather(first, second, third)
        assert cluster.pool.num_restarts == 2

    run(scenario)


def test_a_group_that_takes_two_actors_with_it_is_given_up_alone() -> None:
    async def scenario() -> None:
        cluster = Cluster(num_actors=1, calls_per_actor=1)
        poison, honest = cluster.score("poison"), cluster.score("honest")
        for _ in range(2):
            await settle()
            cluster.alive[0].die()
        with pytest.raises(ScoringError, match="lost by 2 reward actors"):
            await poison
        await settle()
        cluster.alive[0].answer()
        assert (await honest)[1] == "summary of honest"

    run(scenario)


def test_a_hanging_actor_is_stopped_and_replaced() -> None:
    async def scenario() -> None:
        cluster = Cluster(num_actors=1, calls_per_actor=2, timeout_s=0.05)
        slow, behind = cluster.score("slow"), cluster.score("behind")
        await settle()
        hanging = cluster.alive[0]
        while cluster.alive[0] is hanging or len(cluster.alive[0].calls) < 2:
            await asyncio.sleep(0)
        assert cluster.stopped == [hanging]
        for _ in range(2):
            cluster.alive[0].answer()
        assert {(await slow)[1], (await behind)[1]} == {"summary of slow", "summary of behind"}

    run(scenario)


def test_actors_that_lose_every_call_end_the_run() -> None:
    async def scenario() -> None:
        cluster = Cluster(num_actors=1, calls_per_actor=1)
        tasks = [cluster.score(f"g{i}") for i in range(LOSSES_IN_A_ROW)]
        for _ in range(LOSSES_IN_A_ROW):
            await settle()
            cluster.alive[0].die()
        await settle()
        errors = [task.exception() for task in tasks if task.done()]
        assert isinstance(errors[-1], InfrastructureError)
        assert all(isinstance(error, ScoringError) for error in errors[:-1])
        assert cluster.pool.num_restarts == LOSSES_IN_A_ROW
        for task in tasks:
            task.cancel()

    run(scenario)


def test_an_error_of_the_reward_itself_travels() -> None:
    async def scenario() -> None:
        cluster = Cluster(num_actors=1, calls_per_actor=1)
        task = cluster.score("a")
        await settle()
        cluster.alive[0].calls[0][1].set_exception(KeyError("bug"))
        with pytest.raises(KeyError, match="bug"):
            await task
        assert cluster.pool.num_restarts == 0

    run(scenario)
