"""All learner ranks as one: losing one loses all, and an ordinary error loses none."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from ray.exceptions import RayActorError, RayTaskError

from learner.errors import LearnerError, NonFiniteLossError
from orchestration.settings.errors import LearnerLostError, TransferBrokenError
from orchestration.workers.learner_group import LearnerGroup
from tests.unit.storage.fault_limits import fault_limits
from tests.unit.train.run_records import ticket
from tests.unit.train.virtual_time import in_virtual_time, settle
from tests.unit.workers.fake_actors import HANGS, ROLLOUT, FakeActor

TICKETS = [ticket(position, payload=f"payload {position}") for position in range(4)]


class Ranks:
    """A group over fake ranks, dead ones included."""

    def __init__(self, **faults: Any) -> None:
        self.made: list[FakeActor] = []
        self.answers: dict[str, Any] = {}
        self.group = LearnerGroup(self.start, stop=FakeActor.die, num_ranks=2, faults=fault_limits(**faults))

    def start(self, rank: int) -> FakeActor:
        answers = {
            "rendezvous": ("here", 1),
            "build": 70 + rank,
            "train_step": f"report of {rank}",
            "fetch": [],
            "weight_names": [],
        }
        self.made.append(FakeActor(f"rank {rank}", **(answers | self.answers)))
        return self.made[-1]

    def now(self, rank: int) -> FakeActor:
        return self.made[-2:][rank]


@asynccontextmanager
async def ranks(**faults: Any) -> AsyncIterator[Ranks]:
    fakes = Ranks(**faults)
    assert await fakes.group.build(0) == [70, 71]
    try:
        yield fakes
    finally:
        await fakes.group.close()


def task_error(cause: Exception) -> RayTaskError:
    """As Ray brings what a rank raised."""
    return RayTaskError("train_step", "traceback", cause).as_instanceof_cause()


@in_virtual_time
async def test_step_is_shared_between_the_ranks_and_the_first_reports() -> None:
    async with ranks() as fakes:
        shares: list[list[str]] = []
        for rank in range(2):
            fakes.now(rank).answers["train_step"] = lambda step, payloads: shares.append(payloads) or "report"
        assert await fakes.group.train_step(3, TICKETS) == "report"
        assert sorted(shares[0] + shares[1]) == [t.payload for t in TICKETS]
        assert [len(share) for share in shares] == [2, 2]


@in_virtual_time
async def test_missing_payloads_are_named_by_position() -> None:
    async with ranks() as fakes:
        assert await fakes.group.missing(TICKETS) == []
        shares: list[list[str]] = []
        for rank in range(2):
            fakes.now(rank).answers["fetch"] = lambda payloads: shares.append(payloads) or [1]
        missing = await fakes.group.missing(TICKETS)
        assert sorted(f"payload {position}" for position in missing) == sorted(share[1] for share in shares)


@in_virtual_time
async def test_rank_that_dies_loses_the_pending_call_and_every_later_one_until_it_is_built_again() -> None:
    async with ranks() as fakes:
        for rank in range(2):
            fakes.now(rank).answers["train_step"] = HANGS
        pending = asyncio.create_task(fakes.group.train_step(0, TICKETS))
        await settle()
        fakes.now(1).die()
        with pytest.raises(LearnerLostError, match=r"the learner is lost: .*died"):
            await pending
        fakes.now(0).answers["weight_names"] = HANGS  # it stands behind the step
        for later in (fakes.group.train_step(0, TICKETS), fakes.group.send_weights(1), fakes.group.weight_names()):
            with pytest.raises(LearnerLostError):
                await later
        old = fakes.made[:2]
        await fakes.group.close()
        assert await fakes.group.build(0) == [70, 71]
        assert all(actor.is_dead for actor in old)
        assert await fakes.group.train_step(0, TICKETS) == "report of 0"


@in_virtual_time
async def test_death_is_found_also_where_the_broken_collective_of_another_rank_is_told_first() -> None:
    async with ranks() as fakes:
        fakes.now(1).answers["train_step"] = HANGS

        def broken(*_: Any) -> Exception:
            fakes.now(1).is_dead = True  # its own call has not ended yet
            return task_error(RuntimeError("connection closed by peer"))

        fakes.now(0).answers |= {"train_step": broken, "weight_names": HANGS}
        with pytest.raises(LearnerLostError, match=r"rank 1|learner 1"):
            await fakes.group.train_step(0, TICKETS)
        with pytest.raises(LearnerLostError):
            await fakes.group.weight_names()


@in_virtual_time
async def test_rank_that_hangs_is_lost_by_its_heartbeat() -> None:
    async with ranks(heartbeat_s=2.0, heartbeat_timeout_s=5.0) as fakes:
        fakes.now(0).answers["train_step"] = HANGS
        fakes.now(1).answers["beat"] = HANGS
        with pytest.raises(LearnerLostError, match=r"rank 1: no heartbeat within .*heartbeat_timeout_s=5"):
            await fakes.group.train_step(0, TICKETS)
        assert asyncio.get_running_loop().time() == 7.0


@in_virtual_time
async def test_call_that_takes_too_long_loses_the_learner_although_it_answers_its_heartbeat() -> None:
    async with ranks(call_timeout_s=50.0) as fakes:
        fakes.now(0).answers["stage"] = HANGS
        with pytest.raises(LearnerLostError, match=r"no answer within 50 s \(cluster.faults.call_timeout_s\)"):
            await fakes.group.stage(1)
        fakes.now(0).answers["train_step"] = HANGS  # it stands behind the other call
        with pytest.raises(LearnerLostError):
            await fakes.group.train_step(0, TICKETS)
        assert asyncio.get_running_loop().time() == 50.0


@pytest.mark.parametrize(
    "error", [LearnerError("a setting"), NonFiniteLossError(3, ("0-1",), "loss is nan"), KeyError("bug")]
)
@in_virtual_time
async def test_own_error_of_a_rank_comes_out_as_itself_and_loses_nothing(error: Exception) -> None:
    async with ranks() as fakes:
        fakes.now(1).answers["train_step"] = task_error(error)
        with pytest.raises(type(error)) as raised:
            await fakes.group.train_step(0, TICKETS)
        assert raised.value is error
        fakes.now(1).answers["train_step"] = "report"
        assert await fakes.group.train_step(0, TICKETS) == "report of 0"


@in_virtual_time
async def test_engine_that_dies_under_a_transfer_breaks_the_transfer_and_not_the_learner() -> None:
    async with ranks() as fakes:
        for error in (task_error(RayActorError()), task_error(RuntimeError("gloo: reset"))):
            fakes.now(0).answers["send_weights"] = error
            with pytest.raises(TransferBrokenError, match="send_weights: "):
                await fakes.group.send_weights(1)
            fakes.now(0).answers["connect"] = error
            with pytest.raises(TransferBrokenError, match="connect: "):
                await fakes.group.connect(["engine"], ROLLOUT)
        assert await fakes.group.train_step(0, TICKETS) == "report of 0"


@in_virtual_time
async def test_own_error_under_a_transfer_is_no_broken_transfer() -> None:
    async with ranks() as fakes:
        fakes.now(0).answers["send_weights"] = task_error(LearnerError("a source of weights"))
        with pytest.raises(LearnerError, match="a source of weights"):
            await fakes.group.send_weights(1)


@in_virtual_time
async def test_rank_that_does_not_start_in_time_or_dies_on_its_way_loses_the_learner() -> None:
    fakes = Ranks(start_timeout_s=20.0)
    fakes.answers["build"] = HANGS
    with pytest.raises(LearnerLostError, match="no answer within 20 s"):
        await fakes.group.build(0)
    fakes.answers["build"] = RayActorError()
    await fakes.group.close()
    with pytest.raises(LearnerLostError, match="died"):
        await fakes.group.build(0)
    fakes.answers["build"] = task_error(LearnerError("no such folder"))
    await fakes.group.close()
    with pytest.raises(LearnerError, match="no such folder"):
        await fakes.group.build(0)
    await fakes.group.close()


@in_virtual_time
async def test_no_call_meets_ranks_that_are_gone_or_still_loading() -> None:
    async with ranks() as fakes:
        fakes.answers["build"] = HANGS

        async def refuse() -> None:
            with pytest.raises(LearnerLostError, match="being built again"):
                await fakes.group.connect(["engine"], ROLLOUT)
            with pytest.raises(LearnerLostError, match="being built again"):
                await fakes.group.weight_version()

        await fakes.group.close()
        await refuse()
        rebuilding = asyncio.create_task(fakes.group.build(0))
        await settle()
        await refuse()
        assert (fakes.now(0).num("connect"), fakes.now(0).num("weight_version")) == (0, 0)
        for rank in range(2):
            fakes.now(rank).open.pop()[1].set_result(80 + rank)
        assert await rebuilding == [80, 81]
        await fakes.group.connect(["engine"], ROLLOUT)


@in_virtual_time
async def test_who_waits_for_others_hears_at_once_of_a_lost_rank() -> None:
    async with ranks(heartbeat_s=2.0, heartbeat_timeout_s=5.0) as fakes:
        assert await fakes.group.or_learner_lost(asyncio.sleep(1.0, "groups")) == "groups"
        with pytest.raises(KeyError, match="bug"):
            await fakes.group.or_learner_lost(asyncio.wait_for(broken(), 1.0))
        never = asyncio.get_running_loop().create_future()
        fakes.now(1).die()
        with pytest.raises(LearnerLostError, match=r"rank 1|learner 1"):
            await fakes.group.or_learner_lost(never)
        assert never.cancelled()


async def broken() -> None:
    raise KeyError("bug")


@in_virtual_time
async def test_upload_gives_the_files_of_all_ranks_and_ends_when_every_rank_has_ended() -> None:
    async with ranks() as fakes:
        for rank in range(2):
            fakes.now(rank).answers["upload"] = (f"file {rank}",)
        assert await fakes.group.upload("store", 1) == ["file 0", "file 1"]
        fakes.now(0).answers["upload"] = task_error(OSError("disk full"))
        fakes.now(1).answers["upload"] = HANGS
        uploading = asyncio.create_task(fakes.group.upload("store", 2))
        await settle()
        assert not uploading.done()
        fakes.now(1).open.pop()[1].set_result(("file 1",))
        with pytest.raises(OSError, match="disk full"):
            await uploading
