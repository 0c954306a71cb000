"""New weights reach every engine that lives, and no engine takes groups without them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from orchestration.settings.errors import LearnerLostError, TooManyFaultsError, TransferBrokenError
from orchestration.workers.turns import Turns
from orchestration.workers.weight_sync import (
    SyncReport,
    WeightSync,
    compare_fingerprints,
    join_fingerprints,
    sample_evenly,
)
from rollout.errors import WeightSyncError
from tests.unit.storage.fault_limits import fault_limits
from tests.unit.train.run_records import ticket
from tests.unit.train.virtual_time import in_virtual_time, settle
from tests.unit.workers.fake_actors import HANGS, ROLLOUT, SAMPLE, SPEC, FakeEngine, FakeEngines

PRINTS = {"qkv": (6, 15, 2 + 1 + 4 * 5), "norm": (3, 30, 3)}
SENT = {"q": (4, 10, 2), "kv": (2, 5, 1), "norm": (3, 30, 3)}
LAYOUT = {"q": "qkv", "kv": "qkv", "norm": "norm"}


class FakeLearner:
    """Gives the engines to which it is connected a version; fails as it is told."""

    def __init__(self) -> None:
        self.handles: list[object] = [object()]
        self.calls: list[str] = []
        self.version = 0
        """Of the weights that it holds."""
        self.connected: Sequence[FakeEngine] | None = None
        self.faults: dict[str, list[Callable[[], None]]] = {
            "connect": [],
            "send_weights": [],
            "weight_fingerprints": [],
        }

    def rebuild(self) -> None:
        self.handles, self.connected = [object()], None

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if self.faults.get(name):
            self.faults[name].pop(0)()

    async def connect(self, engines: Sequence[FakeEngine], config: Any) -> None:
        self._called("connect")
        self.connected = list(engines)

    async def send_weights(self, version: int) -> int:
        await asyncio.sleep(1.0)
        self._called("send_weights")
        assert self.connected is not None, "never connected"
        for engine in self.connected:
            if engine.is_dead:
                raise TransferBrokenError(f"send_weights: {engine.name} is gone")
            self.check_stopped(engine)
        for engine in self.connected:
            engine.answers["version"] = version
        return 8

    def check_stopped(self, engine: FakeEngine) -> None:
        assert [call for call in engine.calls if call in ("pause", "resume")][-1] == "pause"

    async def weight_version(self) -> int:
        return self.version

    async def weight_names(self) -> list[str]:
        return list(SENT)

    async def weight_fingerprints(self, names: list[str]) -> dict[str, Any]:
        await asyncio.sleep(1.0)
        self._called("weight_fingerprints")
        return {name: SENT[name] for name in names}

    async def completion_logprobs(self, payload: Any) -> Any:
        return np.array([-1.0, -2.0], np.float32)


class Parts:
    def __init__(self, num_engines: int, **faults: Any) -> None:
        self.engines = FakeEngines(
            num_engines, fault_limits(**faults), weight_layout=LAYOUT, weight_fingerprints=PRINTS
        )
        self.learner = FakeLearner()
        self.sync = WeightSync(
            self.engines.pool,
            self.learner,
            Turns(self.engines.pool, self.learner),  # type: ignore[arg-type]
            config=ROLLOUT,
            log=self.engines.log,
            check_every=3,
            max_mismatch=0.1,
        )  # type: ignore[arg-type]

    @property
    def versions(self) -> list[Any]:
        return [own[-1].answers.get("version") for own in self.engines.made]

    @property
    def live(self) -> list[int]:
        return [engine.index for engine in self.engines.pool.ready_engines() if engine.is_live]

    def counts(self, *roles: str) -> list[float]:
        return [self.engines.log.counts()[f"faults/{role}"] for role in roles]


@asynccontextmanager
async def parts(num_engines: int, **faults: Any) -> AsyncIterator[Parts]:
    made = Parts(num_engines, **faults)
    await made.engines.pool.ready(made.sync.admit)
    try:
        yield made
    finally:
        await made.engines.pool.close()


@in_virtual_time
async def test_publication_pauses_sends_compares_and_lets_every_engine_go_on() -> None:
    async with parts(2) as run:
        assert run.live == []
        report = await run.sync.publish(5)
        assert report == SyncReport(version=5, transfer_s=2.0, num_compared=2, num_bytes=8)
        assert (run.versions, run.live) == ([5, 5], [0, 1])
        for index in range(2):
            engine = run.engines.now(index)
            assert [call for call in engine.calls if call in ("pause", "resume")] == ["pause", "resume"]


@in_virtual_time
async def test_tensors_are_compared_on_the_first_and_every_kth_publication_over_one_connection() -> None:
    async with parts(2) as run:
        assert [(await run.sync.publish(version)).num_compared for version in range(5)] == [2, 0, 0, 2, 0]
        assert run.learner.calls.count("connect") == 1
        assert run.counts("engine", "transfer") == [0, 0]


@in_virtual_time
async def test_weights_that_differ_stop_the_run_and_name_engine_and_tensor() -> None:
    async with parts(2) as run:
        run.engines.now(1).answers["weight_fingerprints"] = {**PRINTS, "norm": (3, 31, 3)}
        with pytest.raises(WeightSyncError, match=r"engine 1 holds other weights .*: norm;"):
            await run.sync.publish(0)
        assert run.live == []


@in_virtual_time
async def test_engine_that_shares_no_whole_tensor_is_no_proof() -> None:
    async with parts(1) as run:
        run.engines.now(0).answers["weight_fingerprints"] = {"qkv": (2, 0, 0), "norm": (1, 0, 0)}
        with pytest.raises(WeightSyncError, match="none of 2 tensors could be compared"):
            await run.sync.publish(0)


@pytest.mark.parametrize("method", ["pause", "weight_fingerprints", "resume"])
@in_virtual_time
async def test_engine_that_dies_under_a_publication_is_left_out_and_the_rest_is_sent_again(method: str) -> None:
    async with parts(3) as run:
        await run.sync.publish(0)
        await run.sync.publish(1)
        await run.sync.publish(2)
        run.engines.answers["ready"] = HANGS
        run.engines.now(1).die_in(method)
        report = await run.sync.publish(3)
        assert (run.versions, run.live) == ([3, None, 3], [0, 2])
        assert report.num_compared == 2
        assert run.counts("engine", "transfer") == [1, 0]
        assert run.learner.connected == [run.engines.now(0), run.engines.now(2)]


@pytest.mark.parametrize("method", ["connect", "send_weights"])
@in_virtual_time
async def test_engine_that_dies_under_a_transfer_is_found_and_what_the_others_hold_is_compared(method: str) -> None:
    async with parts(2) as run:
        await run.sync.publish(0)
        if method == "connect":
            run.learner.rebuild()
        run.engines.answers["ready"] = HANGS

        def broken() -> None:
            run.engines.now(0).die()
            raise TransferBrokenError(method)

        run.learner.faults[method].append(broken)
        report = await run.sync.publish(1)
        assert (run.versions, run.live) == ([None, 1], [1])
        assert report.num_compared == 2  # not due, but forced
        assert run.counts("engine", "transfer") == [1, 0]


@in_virtual_time
async def test_transfer_that_breaks_though_every_engine_lives_is_repeated_compared_and_counted() -> None:
    async with parts(2, max_transfer_faults=2) as run:
        await run.sync.publish(0)

        def broken() -> None:
            raise TransferBrokenError("send_weights: reset by peer")

        run.learner.faults["send_weights"] += [broken, broken]
        assert (await run.sync.publish(1)).num_compared == 2
        assert run.learner.calls.count("connect") == 3
        assert (run.versions, run.counts("engine", "transfer")) == ([1, 1], [0, 2])
        run.learner.faults["send_weights"].append(broken)
        with pytest.raises(TooManyFaultsError, match="max_transfer_faults=2"):
            await run.sync.publish(2)


@in_virtual_time
async def test_engine_that_is_built_while_all_others_are_gone_is_sent_to_by_the_same_publication() -> None:
    async with parts(1) as run:
        run.engines.now(0).die_in("pause")
        report = await run.sync.publish(4)
        assert report.num_compared == 2
        assert (run.versions, run.live) == ([4], [0])
        await settle()
        assert run.learner.calls.count("send_weights") == 1


@in_virtual_time
async def test_newcomer_gets_the_weights_alone_and_the_others_go_on() -> None:
    async with parts(2) as run:
        await run.sync.publish(0)
        pauses = run.engines.now(0).num("pause")
        run.engines.now(1).die()
        await asyncio.sleep(100.0)
        assert (run.versions, run.live) == ([0, 0], [0, 1])
        assert run.engines.now(0).num("pause") == pauses
        await run.sync.publish(1)
        assert (run.versions, run.learner.connected) == ([1, 1], [run.engines.now(0), run.engines.now(1)])


@in_virtual_time
async def test_publication_and_newcomer_take_turns_on_the_channel() -> None:
    async with parts(2) as run:
        await run.sync.publish(0)
        run.engines.now(1).die()
        while not (run.engines.now(1).num("pause") and len(run.engines.made[1]) == 2):
            await asyncio.sleep(0.25)
        await asyncio.gather(run.sync.publish(1), run.sync.publish(2))
        await asyncio.sleep(10.0)
        assert (run.versions, run.live) == ([2, 2], [0, 1])
        assert run.engines.log.counts()["faults/engine"] == 1


@in_virtual_time
async def test_engine_built_before_the_first_publication_waits_for_it() -> None:
    async with parts(1) as run:
        run.engines.now(0).die()
        await asyncio.sleep(100.0)
        assert (run.live, run.learner.calls) == ([], [])
        await run.sync.publish(0)
        assert run.live == [0]


@in_virtual_time
async def test_newcomer_that_cannot_take_the_weights_is_built_again() -> None:
    async with parts(2) as run:
        await run.sync.publish(0)

        def broken() -> None:
            raise TransferBrokenError("send_weights: refused")

        run.learner.faults["send_weights"].append(broken)
        run.engines.now(1).die()
        await asyncio.sleep(100.0)
        assert len(run.engines.made[1]) == 3
        assert (run.versions, run.live) == ([0, 0], [0, 1])


@in_virtual_time
async def test_after_a_lost_learner_the_next_publication_serves_every_engine_over_a_new_connection() -> None:
    async with parts(2) as run:
        await run.sync.publish(0)

        def lost() -> None:
            raise LearnerLostError("rank 0")

        run.learner.faults["send_weights"].append(lost)
        with pytest.raises(LearnerLostError):
            await run.sync.publish(1)
        run.learner.rebuild()
        await run.sync.publish(0)
        assert (run.versions, run.live) == ([0, 0], [0, 1])
        assert [run.engines.now(index).num("resume") for index in range(2)] == [2, 2]


@in_virtual_time
async def test_learner_that_was_built_again_between_publications_is_connected_again() -> None:
    async with parts(2) as run:
        await run.sync.publish(0)
        run.learner.rebuild()
        await run.sync.publish(0)
        assert run.versions == [0, 0]


@in_virtual_time
async def test_newcomer_whose_learner_is_lost_waits_for_the_next_publication_and_is_not_blamed() -> None:
    async with parts(2) as run:
        await run.sync.publish(0)

        def lost() -> None:
            raise LearnerLostError("rank 0")

        run.learner.faults["send_weights"].append(lost)
        run.engines.now(1).die()
        await asyncio.sleep(100.0)
        assert (run.live, run.counts("engine", "transfer")) == ([0], [1, 0])
        run.learner.rebuild()
        await run.sync.publish(0)
        assert run.live == [0, 1]


@in_virtual_time
async def test_newcomer_waits_while_the_learner_is_replaced() -> None:
    async with parts(2) as run:
        await run.sync.publish(4)
        async with run.sync.closed():
            run.engines.now(1).die()
            await asyncio.sleep(100.0)
            run.learner.version = 4
            run.learner.rebuild()
            assert (run.versions, run.live) == ([4, None], [0])
        await asyncio.sleep(10.0)
        assert (run.versions, run.live) == ([4, 4], [0, 1])


@in_virtual_time
async def test_group_that_no_engine_will_take_for_want_of_a_learner_hears_of_it() -> None:
    async with parts(1) as run:
        await run.sync.publish(0)

        def lost() -> None:
            raise LearnerLostError("rank 0")

        run.learner.faults["send_weights"].append(lost)
        run.engines.now(0).die()
        with pytest.raises(LearnerLostError, match="rank 0"):
            await run.engines.pool.generate_group("0-0", SAMPLE, SPEC)


@in_virtual_time
async def test_engine_that_was_replaced_while_others_were_compared_does_not_go_live_with_its_first_weights() -> None:
    async with parts(2) as run:

        def replaced() -> None:
            engine = run.engines.pool.ready_engines()[1]
            engine.lose(engine.handle, "no heartbeat")

        run.learner.faults["weight_fingerprints"].append(replaced)
        await run.sync.publish(3)
        await asyncio.sleep(100.0)
        assert (run.versions, run.live) == ([3, 3], [0, 1])
        assert run.counts("engine", "transfer") == [1, 0]


async def mismatch_after(run: Parts, difference: float) -> float | None:
    """Compare once; the second engine's last token is so far from the learner's, so the mean of two is half of it."""
    run.engines.now(0).answers["score_completion"] = np.array([-1.0, -2.0], np.float32)
    run.engines.now(1).answers["score_completion"] = np.array([-1.0, -2.0 - difference], np.float32)
    return await run.sync.mismatch(ticket(0), SAMPLE, await run.learner.completion_logprobs(None))


@in_virtual_time
async def test_mismatch_is_that_of_the_worst_engine_and_stops_the_run_above_the_limit_for_the_third_time_in_a_row(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with parts(2) as run:
        await run.sync.publish(0)
        assert await mismatch_after(run, 0.1) == pytest.approx(0.05)
        assert not caplog.text
        assert await mismatch_after(run, 0.5) == pytest.approx(0.25)
        assert await mismatch_after(run, 0.3) == pytest.approx(0.15)
        assert "disagree by 0.1500 in mean log-probability, more than training.max_mismatch=0.1; 3" in caplog.text
        assert await mismatch_after(run, 0.18) == pytest.approx(0.09)  # the row is broken
        assert await mismatch_after(run, 0.5) == pytest.approx(0.25)
        assert await mismatch_after(run, 0.3) == pytest.approx(0.15)
        with pytest.raises(WeightSyncError, match=r"by 0\.2000 .*mismatch=0\.1 \(0\.2500, 0\.1500, 0\.2000 in a row"):
            await mismatch_after(run, 0.4)


@in_virtual_time
async def test_a_mismatch_that_is_no_number_stops_the_run_at_once() -> None:
    async with parts(2) as run:
        await run.sync.publish(0)
        with pytest.raises(WeightSyncError, match=r"disagree by nan .*max_mismatch=0.1"):
            await mismatch_after(run, np.nan)


@in_virtual_time
async def test_a_comparison_without_an_answer_neither_counts_nor_breaks_the_row() -> None:
    async with parts(2) as run:
        await run.sync.publish(0)
        for _ in range(2):
            await mismatch_after(run, 0.5)
        for engine in run.engines.pool.ready_engines():
            engine.lose(engine.handle, "no heartbeat")
        assert await run.sync.mismatch(ticket(0), SAMPLE, await run.learner.completion_logprobs(None)) is None
        await asyncio.sleep(100.0)
        with pytest.raises(WeightSyncError, match="in a row"):
            await mismatch_after(run, 0.5)


@in_virtual_time
async def test_mismatch_is_unknown_where_no_engine_answers() -> None:
    async with parts(1) as run:
        await run.sync.publish(0)
        run.engines.answers["ready"] = HANGS
        run.engines.now(0).die_in("score_completion")
        assert await run.sync.mismatch(ticket(0), SAMPLE, await run.learner.completion_logprobs(None)) is None


TENSORS = {"q": (4, 10, 12), "k": (2, 7, 3), "norm": (3, 30, 33)}
MEMBERS = {"q": "qk_proj", "k": "qk_proj", "norm": "norm"}
QK = (6, 10 + 7, 12 + 3 + 4 * 7)
"""The elements of k stand behind the four of q."""


def test_equal_weights_agree_also_where_the_engine_merges_tensors() -> None:
    assert compare_fingerprints(TENSORS, {"qk_proj": QK, "norm": (3, 30, 33)}, MEMBERS) == ([], 2)


def test_stale_tensor_is_named() -> None:
    assert compare_fingerprints(TENSORS, {"qk_proj": QK, "norm": (3, 31, 33)}, MEMBERS) == (["norm"], 2)


def test_elements_that_changed_places_are_seen_although_their_sum_agrees() -> None:
    assert compare_fingerprints(TENSORS, {"qk_proj": QK, "norm": (3, 30, 34)}, MEMBERS)[0] == ["norm"]


def test_parts_merged_in_the_other_order_are_seen() -> None:
    swapped = {"k": "qk_proj", "q": "qk_proj", "norm": "norm"}
    assert compare_fingerprints(TENSORS, {"qk_proj": QK, "norm": (3, 30, 33)}, swapped)[0] == ["qk_proj"]


def test_sums_of_joined_tensors_wrap_around_as_those_of_one_tensor_do() -> None:
    assert join_fingerprints([(2, 2**63 - 1, 0), (1, 1, 0)]) == (3, -(2**63), 2)


def test_shard_cannot_be_compared_and_is_not_counted() -> None:
    assert compare_fingerprints(TENSORS, {"qk_proj": (3, 7, 1), "norm": (3, 30, 33)}, MEMBERS) == ([], 1)


def test_sample_spreads_over_the_names() -> None:
    names = [f"{i:03d}" for i in range(100)]
    assert sample_evenly(names, 3) == ["000", "050", "099"]
    assert sample_evenly(names[:2], 64) == ["000", "001"]
