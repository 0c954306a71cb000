"""The loop trains on every position once, whatever is lost on the way; the buffer is real, the actors are not."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from orchestration import loop
from orchestration.settings.errors import LearnerLostError, PayloadLostError, ScoringError, TooManyFaultsError
from orchestration.train.buffer import GroupBuffer, Progress
from orchestration.workers.tickets import GroupTicket, StepGroups
from rollout.errors import RolloutError
from tests.unit.train.run_records import SUMMARY, training
from tests.unit.train.virtual_time import run_in_virtual_time


class FakeRun:
    """What the loop needs of a run: pools that take a while, and checkpoints of nothing but where the run stands."""

    def __init__(self, *, seed: int = 0, **settings: Any) -> None:
        self.training = training(**{"num_steps": 6, "max_drop_frac": 1.0, **settings})
        self.order = Random(seed)
        self.progress = self.checkpoint = Progress(step=0, next_position=0)
        self.ledger: list[StepGroups] = []
        self.faults: list[str] = []
        self.drawn: list[int] = []
        """Positions whose rows are read and not handed out yet."""
        self.sampled: list[int] = []
        self.seated: list[int] = []
        self.buffer: GroupBuffer | None = None
        self.is_asked_to_leave = self.is_lost = False
        self.on: dict[str, Callable[..., Any]] = {}
        """What happens beside at a call, by its name: an error, or a request."""
        self.engines = self.rewards = self.learner = self.weight_sync = self.turns = self.record = self.draws = self

    def _at(self, name: str, *arguments: Any) -> Any:
        return self.on.get(name, lambda *_: None)(*arguments)

    @property
    def is_synchronous(self) -> bool:
        return self.training.max_staleness == 0

    @property
    def is_over(self) -> bool:
        return self.is_asked_to_leave or (self.progress.step >= self.training.num_steps and not self.is_lost)

    def request_stop(self) -> None:
        self.is_asked_to_leave = True
        if self.buffer is not None:
            self.buffer.close()

    def lose_learner(self, error: BaseException) -> None:
        assert isinstance(error, LearnerLostError)
        self.is_lost = True
        self.faults.append(str(error))
        if len(self.faults) > 3:
            raise TooManyFaultsError("learner")

    def lose_payloads(self, group_ids: Sequence[str], cause: str) -> None:
        self.faults += group_ids

    async def recover(self) -> None:
        if self.is_lost:
            self.progress = self.checkpoint
            self.ledger = [groups for groups in self.ledger if groups.step < self.progress.step]
            self._at("recover")
            self.is_lost = False

    def new_buffer(self) -> GroupBuffer:
        self.buffer = GroupBuffer(self.training, range_epsilon=1e-6, start=self.progress)
        return self.buffer

    async def read(self, positions: Sequence[int]) -> None:
        await asyncio.sleep(0.1)
        self.drawn += positions

    def at(self, position: int) -> Any:
        self.drawn.remove(position)
        return SimpleNamespace(epoch=0, sample=SimpleNamespace(sample_id=f"sample {position}"), position=position)

    def sampling_spec(self, draw: Any) -> None:
        return None

    def is_recorded(self, position: int) -> bool:
        return False

    def urgency(self, position: int) -> int:
        return position

    def assign_batch(self, positions: Sequence[int]) -> dict[int, int]:
        return dict.fromkeys(positions, 1)

    async def generate_group(self, group_id: str, sample: Any, spec: None, *, urgency: int, slot: Any) -> str:
        position = int(group_id.removeprefix("0-"))
        self.sampled.append(position)
        self.seated += [position] if slot is not None else []
        await asyncio.sleep(self.order.random() * 3.0)
        if (wait := self._at("generate_group", position)) is not None:
            await wait
        return group_id

    async def score(self, group: str, *, keep_texts: bool) -> tuple[str, Any]:
        self._at("score", group)
        return f"payload {self.sampled.count(int(group.removeprefix('0-')))} of {group}", SUMMARY

    async def finish(self) -> None:
        self._at("finish", self.progress.step)

    async def or_learner_lost(self, others: Awaitable[Any]) -> Any:
        return await others

    async def missing(self, tickets: Sequence[GroupTicket]) -> list[int]:
        return self._at("missing", tickets) or []

    async def train_step(self, groups: StepGroups) -> None:
        assert groups.step == self.progress.step
        await asyncio.sleep(1.0)
        self._at("train_step", groups.step)

    async def publish(self, version: int) -> None:
        self._at("publish", version)

    async def to_learner(self) -> None:
        self._at("to_learner")

    async def probe_logprobs(self, groups: StepGroups) -> str:
        self._at("probe_logprobs", groups.step)
        return f"logprobs of step {groups.step}"

    async def check_mismatch(self, groups: StepGroups, expected: str) -> None:
        assert expected == f"logprobs of step {groups.step}"
        await asyncio.sleep(0.5)
        self._at("check_mismatch", groups.step)

    def counts(self) -> dict[str, float]:
        return {}

    def log_step(self, groups: StepGroups, *_: Any, counts: dict[str, float]) -> None:
        self.ledger.append(groups)

    async def end_step(self, progress: Progress, *, step_s: float) -> None:
        self.progress = progress
        self._at("end_step", progress.step)
        if progress.step % self.training.checkpoint_every == 0:
            self.checkpoint = progress

    @property
    def used(self) -> list[int]:
        """Every position of the ledger."""
        tickets = [t.position for groups in self.ledger for t in (*groups.tickets, *groups.replaced)]
        return sorted(tickets + [position for groups in self.ledger for position in groups.dropped])

    def check(self, num_steps: int) -> None:
        assert [groups.step for groups in self.ledger] == list(range(num_steps))
        assert sorted([*self.used, *self.progress.again]) == list(range(self.progress.next_position))

    def train(self) -> None:
        async def scenario() -> None:
            await loop.train(self)  # type: ignore[arg-type]
            assert asyncio.all_tasks() == {asyncio.current_task()}

        run_in_virtual_time(scenario())


def once(error: Exception, *, at: Any) -> Callable[..., None]:
    """Raise at the first call with this argument."""
    left = [error]

    def call(argument: Any) -> None:
        if argument == at and left:
            raise left.pop()

    return call


PACES: list[dict[str, Any]] = [
    {"max_staleness": 0},
    {"max_staleness": 2},
    {"max_staleness": 3, "run_ahead": 1, "straggler_deadline_s": 0.5},
    {"max_staleness": 1, "oversampling": 2.0},
]


@pytest.mark.parametrize("pace", PACES)
def test_every_position_is_trained_on_once(pace: dict[str, Any]) -> None:
    run = FakeRun(**pace)
    run.train()
    run.check(6)
    if "straggler_deadline_s" not in pace:
        assert run.used == list(range(12))
    assert [len(groups.tickets) for groups in run.ledger] == [2] * 6


@pytest.mark.parametrize("pace", PACES)
@pytest.mark.parametrize(("place", "at"), [("train_step", 0), ("train_step", 3), ("publish", 4), ("end_step", 6)])
def test_lost_learner_is_built_again_and_the_run_goes_on_from_the_last_checkpoint(
    pace: dict[str, Any], place: str, at: int
) -> None:
    run = FakeRun(**pace)
    run.on[place] = once(LearnerLostError("rank 1"), at=at)
    run.train()
    run.check(6)
    assert run.checkpoint.step == 6
    assert run.faults == ["rank 1"]


@pytest.mark.parametrize(("max_staleness", "num_begun"), [(0, 2), (1, 6), (2, 8)])
def test_slots_come_back_as_soon_as_weights_are_live_but_never_beside_a_comparison_of_a_synchronous_run(
    max_staleness: int, num_begun: int
) -> None:
    run = FakeRun(max_staleness=max_staleness)
    begun: list[int] = []
    run.on["check_mismatch"] = lambda step: begun.append(len(run.sampled))
    run.train()
    assert begun[0] == num_begun


def test_learner_lost_while_the_run_finishes_repeats_what_no_checkpoint_holds() -> None:
    run = FakeRun(num_steps=5, checkpoint_every=2)
    run.on["finish"] = once(LearnerLostError("rank 0"), at=5)
    run_in_virtual_time(loop.train_and_finish(run))  # type: ignore[arg-type]
    run.check(5)
    assert (run.checkpoint.step, run.faults) == (4, ["rank 0"])


def test_learner_that_is_lost_too_often_ends_the_run() -> None:
    run = FakeRun()

    def lost(step: int) -> None:
        raise LearnerLostError(f"at {step}")

    run.on["train_step"] = lost
    with pytest.raises(TooManyFaultsError):
        run.train()
    assert len(run.faults) == 4


@pytest.mark.parametrize("pace", PACES)
def test_stop_request_lets_the_step_be_finished_and_nothing_more(pace: dict[str, Any]) -> None:
    run = FakeRun(**pace)
    run.on["train_step"] = lambda step: run.request_stop() if step == 2 else None
    run.train()
    run.check(3)
    assert run.progress.step == 3


def test_stop_request_does_not_wait_for_groups_of_later_steps() -> None:
    run = FakeRun(max_staleness=2)
    run.on["generate_group"] = lambda position: asyncio.sleep(1e5) if position >= 6 else None
    run.on["train_step"] = lambda step: run.request_stop() if step == 2 else None

    async def scenario() -> None:
        await loop.train(run)  # type: ignore[arg-type]
        assert asyncio.get_running_loop().time() < 100.0

    run_in_virtual_time(scenario())
    run.check(3)


def test_stop_request_while_a_learner_is_built_again_is_heard() -> None:
    run = FakeRun()
    run.on["train_step"] = once(LearnerLostError("rank 1"), at=3)
    run.on["recover"] = run.request_stop
    run.train()
    run.check(2)


@pytest.mark.parametrize(("place", "at"), [("generate_group", 3), ("score", "0-3")])
def test_group_that_vanished_before_it_was_scored_is_sampled_again_without_its_seat(place: str, at: Any) -> None:
    run = FakeRun(max_staleness=0)
    run.on[place] = once(PayloadLostError("gone"), at=at)
    run.train()
    run.check(6)
    assert (run.sampled.count(3), run.seated.count(3), run.faults) == (2, 1, ["0-3"])


def test_payloads_that_vanished_before_their_step_are_sampled_again() -> None:
    run = FakeRun()
    answers = [[2], [2, 3], []]
    trained: list[str] = []
    run.on["missing"] = lambda tickets: answers.pop(0) if tickets[0].position == 2 else []
    run.train()
    run.check(6)
    trained = [t.payload for t in run.ledger[1].tickets]
    assert trained == ["payload 3 of 0-2", "payload 2 of 0-3"]
    assert run.faults == ["2", "2", "3"]


@pytest.mark.parametrize("error", [RolloutError("too long"), ScoringError("two actors")])
def test_position_that_cannot_become_a_group_is_dropped_with_its_reason(error: Exception) -> None:
    run = FakeRun()
    run.on["score"] = once(error, at="0-5")
    run.train()
    run.check(6)
    assert run.ledger[2].dropped == {5: str(error)}


def test_position_whose_payload_vanished_and_cannot_be_scored_again_is_dropped() -> None:
    run = FakeRun()
    answers = [[2], []]
    run.on["missing"] = lambda tickets: answers.pop(0) if tickets[0].position == 2 else []

    def score(group: str) -> None:
        if run.sampled.count(2) == 2 and group == "0-2":
            raise ScoringError("two actors")

    run.on["score"] = score
    run.train()
    run.check(6)
    assert run.ledger[1].dropped == {2: "two actors"}


def test_bug_in_rollout_ends_the_run_at_once() -> None:
    run = FakeRun()
    run.on["score"] = once(KeyError("bug"), at="0-5")
    with pytest.raises(ExceptionGroup) as raised:
        run.train()
    assert raised.group_contains(KeyError)
