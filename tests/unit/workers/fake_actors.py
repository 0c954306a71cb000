"""Engines and learner ranks as a pool meets them: calls that are answered, left open, or die with their process."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from ray.exceptions import RayActorError

from orchestration.settings.cluster import FaultsConfig
from orchestration.storage.faults import FaultLog
from orchestration.workers.engine_pool import EnginePool
from rollout.config import EngineConfig, RolloutConfig, SamplingConfig, WeightChannelConfig
from rollout.records import Sample, SamplingSpec
from tests.unit.storage.fault_limits import fault_limits

HANGS = object()
"""An answer that never comes."""

SAMPLE = Sample(sample_id="s", source="plots", task="chart", question="?", answer="4")
SPEC = SamplingSpec(group_size=2, temperature=1.0, max_completion_tokens=8)

ROLLOUT = RolloutConfig(
    engines=2,
    sampling=SamplingConfig(group_size=2, temperature=1.0, max_completion_tokens=8),
    engine=EngineConfig(device="cpu", dtype="float32", max_model_len=64, max_num_seqs=2),
    weight_channel=WeightChannelConfig(backend="gloo"),
)
"""An engine holds 2 groups."""


class Remote:
    """A method as Ray gives it."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.remote = call


class FakeActor:
    """Answers every method from `answers`: a value, an error to raise, HANGS, or a function of the arguments."""

    def __init__(self, name: str, **answers: Any) -> None:
        self.name = name
        self.answers: dict[str, Any] = answers
        self.calls: list[str] = []
        self.is_dead = False
        self.open: list[tuple[str, asyncio.Future[Any]]] = []

    def __getattr__(self, method: str) -> Remote:
        return Remote(lambda *arguments: self.call(method, *arguments))

    def call(self, method: str, *arguments: Any) -> "asyncio.Future[Any]":
        self.calls.append(method)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        answer = None if self.is_dead else self.answers.get(method)
        if callable(answer):
            answer = answer(*arguments)
        if self.is_dead:
            future.set_exception(RayActorError())
        elif answer is HANGS:
            self.open.append((method, future))
        elif isinstance(answer, BaseException):
            future.set_exception(answer)
        else:
            future.set_result(answer)
        return future

    def die(self) -> None:
        self.is_dead = True
        for _, future in self.open:
            if not future.done():
                future.set_exception(RayActorError())
        self.open.clear()

    def die_in(self, method: str) -> None:
        """End the process when `method` is called next."""

        def last(*_: Any) -> RayActorError:
            self.die()
            return RayActorError()

        self.answers[method] = last

    def num(self, method: str) -> int:
        return self.calls.count(method)


class FakeEngine(FakeActor):
    """Holds groups until the test lets them go; a name as its weights."""

    def __init__(self, name: str, **answers: Any) -> None:
        super().__init__(name, **{"ready": 7, "beat": 0.0, "generate_group": HANGS, **answers})
        self.groups: list[str] = []

    def call(self, method: str, *arguments: Any) -> Any:
        future = super().call(method, *arguments)
        if method != "generate_group":
            return future
        self.groups.append(arguments[0])
        return f"{arguments[0]} of {self.name}", future

    def finish(self, group_id: str) -> None:
        """Answer one group."""
        calls = [future for method, future in self.open if method == "generate_group"]
        calls[self.groups.index(group_id)].set_result(0.5)
        self.open = [(method, future) for method, future in self.open if not future.done()]
        self.groups.remove(group_id)


class FakeEngines:
    """A pool over fake engines, dead ones included: `made[i]` are the actors of place i, one after the other."""

    def __init__(self, num_engines: int, faults: FaultsConfig, max_engines: int | None = None, **answers: Any) -> None:
        self.answers = answers
        self.made: list[list[FakeEngine]] = [[] for _ in range(max_engines or num_engines)]
        self.log = FaultLog(faults)
        config = replace(ROLLOUT, engines=num_engines, max_engines=max_engines)
        self.pool = EnginePool(self.start, stop=self.stop, config=config, faults=faults, log=self.log)

    def start(self, index: int) -> FakeEngine:
        self.made[index].append(FakeEngine(f"{index}{'abcdefghijkl'[len(self.made[index])]}", **self.answers))
        return self.made[index][-1]

    def stop(self, engine: FakeEngine) -> None:
        engine.die()

    def now(self, index: int) -> FakeEngine:
        """The actor of a place."""
        return self.made[index][-1]

    @property
    def groups(self) -> list[Sequence[str]]:
        return [own[-1].groups for own in self.made]

    def ask(self, group_id: str, urgency: int = 0) -> "asyncio.Task[Any]":
        return asyncio.create_task(self.pool.generate_group(group_id, SAMPLE, SPEC, urgency=urgency))


@asynccontextmanager
async def engines(
    num_engines: int, *, max_engines: int | None = None, admit: Any = None, **faults: Any
) -> AsyncIterator[FakeEngines]:
    fakes = FakeEngines(num_engines, fault_limits(**faults), max_engines)
    assert await fakes.pool.ready(admit) == [7] * num_engines
    try:
        yield fakes
    finally:
        await fakes.pool.close()
