"""Engines and learner on the same GPUs: never both at once, whoever is lost on the way."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestration.settings.errors import LearnerLostError, TransferBrokenError
from orchestration.workers.turns import SharedGpus
from orchestration.workers.weight_sync import WeightSync
from rollout.records import Activity
from tests.unit.storage.fault_limits import fault_limits
from tests.unit.train.virtual_time import in_virtual_time, settle
from tests.unit.workers.fake_actors import HANGS, ROLLOUT, FakeEngine, FakeEngines
from tests.unit.workers.test_weight_sync import LAYOUT, PRINTS, FakeLearner

IDLE = Activity(num_requests=3, num_unfinished=0)
ASLEEP, WEIGHTS, AWAKE = "asleep", "weights", "awake"


class TurnLearner(FakeLearner):
    """Is on the GPUs or not, and keeps everything in the order in which it happened."""

    def __init__(self, story: list[str]) -> None:
        super().__init__()
        self.story = story
        self.is_on_gpu = True
        self.faults |= {"onload": [], "offload": []}

    async def locate(self) -> None:
        self.story.append("locate")

    async def on_each(self, method: str) -> None:
        await getattr(self, method)()

    async def onload(self) -> None:
        assert not self.is_on_gpu
        self.story.append("onload")
        self._called("onload")
        self.is_on_gpu = True

    async def offload(self) -> int:
        assert self.is_on_gpu
        self.story.append("offload")
        self._called("offload")
        self.is_on_gpu = False
        return 1

    async def release_cache(self) -> None:
        assert self.is_on_gpu
        self.story.append("release")

    async def send_weights(self, version: int) -> int:
        assert self.is_on_gpu
        num_bytes = await super().send_weights(version)
        self.story.append(f"send {version}")
        return num_bytes

    def check_stopped(self, engine: Any) -> None:
        assert engine.memory == WEIGHTS

    async def stage(self, step: int) -> str:
        assert self.is_on_gpu
        self.story.append(f"stage {step}")
        return f"share {step}"

    async def completion_logprobs(self, payload: Any) -> Any:
        assert self.is_on_gpu
        return await super().completion_logprobs(payload)


class SleepyEngine(FakeEngine):
    """Knows which of its memory it has, and that its GPU is free when it is built."""

    def __init__(self, name: str, shared: "Shared", **answers: Any) -> None:
        assert not shared.learner.is_on_gpu, "built on a GPU that the learner has"
        super().__init__(name, **answers)
        self.memory = AWAKE
        self.shared = shared

    def call(self, method: str, *arguments: Any) -> Any:
        if method in ("sleep", "wake_weights", "wake_cache", "resume") and not self.is_dead:
            self.shared.story.append(f"{method} {self.name}")
        if method == "sleep":
            self.memory = ASLEEP
        elif method == "wake_weights":
            self.memory = WEIGHTS
        elif method == "wake_cache":
            assert not self.shared.learner.is_on_gpu, "a cache beside the learner"
            self.memory = AWAKE
        return super().call(method, *arguments)


class SleepyEngines(FakeEngines):
    def __init__(self, shared: "Shared", num_engines: int, **faults: Any) -> None:
        self.shared = shared
        answers = {"weight_layout": LAYOUT, "weight_fingerprints": PRINTS, "sleep": IDLE, "wake_cache": IDLE}
        super().__init__(num_engines, fault_limits(**faults), **answers)

    def start(self, index: int) -> FakeEngine:
        name = f"{index}{'abcdefghijkl'[len(self.made[index])]}"
        self.made[index].append(SleepyEngine(name, self.shared, **self.answers))
        return self.made[index][-1]


class Shared:
    """A run's two sides, before their first publication."""

    def __init__(self, record: Path, num_engines: int, **faults: Any) -> None:
        self.story: list[str] = []
        self.learner = TurnLearner(self.story)
        self.engines = SleepyEngines(self, num_engines, **faults)
        self.turns = SharedGpus(
            self.engines.pool,
            self.learner,  # type: ignore[arg-type]
            moves_memory=True,
            record=record,
        )
        self.sync = WeightSync(
            self.engines.pool,
            self.learner,  # type: ignore[arg-type]
            self.turns,
            config=ROLLOUT,
            log=self.engines.log,
            check_every=100,
            max_mismatch=0.1,
        )

    async def begin(self) -> None:
        await self.turns.settle_learner()
        await self.engines.pool.ready(self.sync.admit)
        await self.turns.to_learner()
        await self.sync.publish(0)
        self.story.clear()

    async def step(self, version: int) -> None:
        await self.turns.to_learner()
        assert self.learner.is_on_gpu
        await self.sync.publish(version)

    @property
    def versions(self) -> list[Any]:
        return [own[-1].answers.get("version") for own in self.engines.made]

    @property
    def live(self) -> list[int]:
        return [engine.index for engine in self.engines.pool.ready_engines() if engine.is_live]


@asynccontextmanager
async def shared(record: Path, num_engines: int = 2, **faults: Any) -> AsyncIterator[Shared]:
    made = Shared(record, num_engines, **faults)
    await made.begin()
    try:
        yield made
    finally:
        await made.engines.pool.close()


@in_virtual_time
async def test_a_step_hands_the_gpus_over_and_back_in_order(tmp_path: Path) -> None:
    async with shared(tmp_path / "turns", 1) as run:
        await run.step(1)
        assert run.story == [
            "sleep 0a", "onload", "release", "wake_weights 0a", "send 1", "offload", "wake_cache 0a", "resume 0a"
        ]  # fmt: skip
        assert (run.versions, run.live) == ([1], [0])
        lines = [json.loads(line) for line in (tmp_path / "turns").read_text().splitlines()]
        assert [line["turn"] for line in lines] == ["learner", "engines"] * 2
        assert lines[2]["engines"] == [{"num_requests": 3, "num_unfinished": 0}]


@in_virtual_time
async def test_asking_twice_for_the_turn_is_asking_once(tmp_path: Path) -> None:
    async with shared(tmp_path / "turns", 1) as run:
        await run.turns.to_learner()
        await run.turns.to_learner()
        assert run.story == ["sleep 0a", "onload"]
        assert run.turns.is_learners
        await run.sync.publish(1)
        assert not run.turns.is_learners


@in_virtual_time
async def test_engine_that_dies_asleep_is_built_when_the_learner_has_left(tmp_path: Path) -> None:
    async with shared(tmp_path / "turns") as run:
        await run.turns.to_learner()
        run.engines.now(1).die()
        await asyncio.sleep(100.0)
        assert len(run.engines.made[1]) == 1  # SleepyEngine would refuse to be built here
        await run.sync.publish(1)
        assert run.live == [0]
        await asyncio.sleep(100.0)
        assert len(run.engines.made[1]) == 2
        assert run.live == [0]  # it waits for the weights of the next step
        await run.step(2)
        assert (run.versions, run.live) == ([2, 2], [0, 1])


@pytest.mark.parametrize("method", ["sleep", "wake_weights", "wake_cache", "resume"])
@in_virtual_time
async def test_engine_that_dies_at_any_turn_leaves_the_others_going(method: str, tmp_path: Path) -> None:
    async with shared(tmp_path / "turns") as run:
        run.engines.now(0).die_in(method)
        await run.step(1)
        assert run.versions[1] == 1
        assert run.live == [1]
        await asyncio.sleep(100.0)
        await run.step(2)
        assert (run.versions, run.live) == ([2, 2], [0, 1])


@in_virtual_time
async def test_only_engine_dies_asleep_and_the_learner_makes_way_for_its_successor(tmp_path: Path) -> None:
    async with shared(tmp_path / "turns", 1) as run:
        await run.turns.to_learner()
        run.engines.now(0).die()
        await asyncio.sleep(10.0)
        await run.sync.publish(1)
        await settle()
        assert run.story == [
            "sleep 0a", "onload", "offload", "sleep 0b", "onload", "release", "wake_weights 0b", "send 1", "offload",
            "wake_cache 0b", "resume 0b",
        ]  # fmt: skip
        assert (run.versions, run.live) == ([1], [0])


@in_virtual_time
async def test_only_engine_dies_in_its_own_turn_and_its_successor_gets_the_weights_at_once(tmp_path: Path) -> None:
    async with shared(tmp_path / "turns", 1) as run:
        await run.step(3)
        run.engines.now(0).die()
        await asyncio.sleep(100.0)
        assert (run.versions, run.live, run.learner.is_on_gpu) == ([3], [0], False)
        await run.step(4)
        assert run.versions == [4]


@in_virtual_time
async def test_step_that_begins_while_a_newcomer_is_given_weights_waits_for_it(tmp_path: Path) -> None:
    async with shared(tmp_path / "turns", 1) as run:
        run.engines.now(0).die()
        while len(run.engines.made[0]) == 1:
            await asyncio.sleep(0.1)
        await settle()
        await run.step(1)
        await settle()
        assert [word for word in run.story if word.startswith("send")] == ["send 0", "send 1"]
        assert (run.versions, run.live) == ([1], [0])


@in_virtual_time
async def test_learner_waits_for_an_engine_that_is_being_built_but_not_for_ever(tmp_path: Path) -> None:
    async with shared(tmp_path / "turns", start_timeout_s=50.0) as run:
        run.engines.answers["ready"] = HANGS
        run.engines.now(1).die()
        await asyncio.sleep(3.0)  # until the next heartbeat
        assert len(run.engines.made[1]) == 2
        started = asyncio.get_running_loop().time()
        await run.turns.to_learner()
        assert 0 < asyncio.get_running_loop().time() - started <= 50.0
        assert run.engines.now(1).is_dead
        run.engines.answers["ready"] = 7
        await run.sync.publish(1)
        await asyncio.sleep(100.0)
        await run.step(2)
        assert run.versions == [2, 2]


@in_virtual_time
async def test_transfer_that_breaks_is_repeated_within_the_turn(tmp_path: Path) -> None:
    async with shared(tmp_path / "turns") as run:

        def broken() -> None:
            raise TransferBrokenError("send_weights: refused")

        run.learner.faults["send_weights"].append(broken)
        await run.step(1)
        assert run.story.count("onload") == run.story.count("offload") == 1
        assert run.versions == [1, 1]


@pytest.mark.parametrize("fault", ["onload", "send_weights", "offload"])
@in_virtual_time
async def test_learner_lost_in_its_turn_is_built_again_while_the_engines_sleep(fault: str, tmp_path: Path) -> None:
    async with shared(tmp_path / "turns") as run:

        def lost() -> None:
            raise LearnerLostError("rank 0")

        run.learner.faults[fault].append(lost)
        with pytest.raises(LearnerLostError):
            await run.step(1)
        await run.turns.make_room()
        run.learner.rebuild()
        run.learner.is_on_gpu = True  # where it is built
        await run.turns.settle_learner()
        assert run.learner.is_on_gpu
        await run.sync.publish(0)
        assert (run.versions, run.live, run.learner.is_on_gpu) == ([0, 0], [0, 1], False)
        await run.step(1)
        assert run.versions == [1, 1]


@in_virtual_time
async def test_learner_lost_while_engines_work_is_built_again_when_they_sleep(tmp_path: Path) -> None:
    async with shared(tmp_path / "turns") as run:
        await run.turns.make_room()
        assert run.story == ["sleep 0a", "sleep 1a"]
        run.learner.rebuild()
        run.learner.is_on_gpu = True
        await run.turns.settle_learner()
        await run.sync.publish(0)
        assert (run.versions, run.live) == ([0, 0], [0, 1])


@in_virtual_time
async def test_learner_found_lost_when_no_engine_is_left_ends_the_waiting_for_groups(tmp_path: Path) -> None:
    async with shared(tmp_path / "turns", 1) as run:

        def lost() -> None:
            raise LearnerLostError("rank 0")

        run.learner.faults["send_weights"].append(lost)
        run.engines.now(0).die()
        with pytest.raises(LearnerLostError):
            await run.engines.ask("a")


@in_virtual_time
async def test_checkpoint_on_the_way_out_is_staged_in_the_learners_turn(tmp_path: Path) -> None:
    async with shared(tmp_path / "turns", 1) as run:
        assert await run.turns.stage(5) == "share 5"
        assert run.story == ["sleep 0a", "onload", "stage 5"]
