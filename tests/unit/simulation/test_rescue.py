"""A run that ends with an error keeps the steps of a learner that is well; only the actors are simulated."""

import json
from typing import Any

import pytest

from learner.errors import LearnerError, NonFiniteLossError
from orchestration.job import _train_or_rescue
from orchestration.settings.errors import DataError, InfrastructureError, LearnerLostError, TooManyFaultsError
from orchestration.train.tracking import RunRecord
from orchestration.workers.learner_group import LearnerGroup
from orchestration.workers.reward_pool import RewardPool
from rollout.errors import WeightSyncError
from tests.benchmarks.simulation import run as simulated_run
from tests.benchmarks.simulation.policies import Policy
from tests.benchmarks.simulation.run import MeasuredRun
from tests.benchmarks.simulation.simulate import simulate

POLICY = Policy(name="ahead", max_staleness=1, run_ahead=1, checkpoint_every=100)
SYNC = Policy(name="sync", max_staleness=0, checkpoint_every=100)


def train_until(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch, policy: Policy
) -> tuple[int | None, list[int]]:
    """Train a simulated run that ends with an error; gives the step that is saved, and the steps of its metrics."""
    left: list[Any] = []

    async def train(run: MeasuredRun) -> None:
        try:
            await _train_or_rescue(run)
        finally:
            newest = run.state._checkpoints.latest()
            lines = run.folder.metrics.read_text().splitlines()
            ledger = run.folder.ledger.read_text().splitlines()
            assert [json.loads(line)["step"] for line in ledger] == [json.loads(line)["step"] for line in lines]
            left.extend([newest and newest.step, [json.loads(line)["step"] for line in lines]])

    monkeypatch.setattr(simulated_run, "train_and_finish", train)
    with pytest.raises((error, ExceptionGroup)) as raised:
        simulate(policy, num_engines=2, num_steps=8, seed=0)
    assert isinstance(raised.value, error) or raised.group_contains(error)
    return left[0], left[1]


def raise_in(owner: type, method: str, error: Exception, monkeypatch: pytest.MonkeyPatch, *, at_call: int) -> None:
    """Let the `at_call`-th call of a method raise, before it does anything."""
    kept, calls = getattr(owner, method), []

    async def call(self: Any, *arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == at_call:
            raise error
        return await kept(self, *arguments, **named)

    monkeypatch.setattr(owner, method, call)


@pytest.mark.parametrize("policy", [POLICY, SYNC], ids=lambda policy: policy.name)
@pytest.mark.parametrize("error", [WeightSyncError("differ"), KeyError("bug")], ids=lambda error: type(error).__name__)
def test_a_step_whose_weights_could_not_be_proved_is_saved_and_recorded(
    policy: Policy, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_in(MeasuredRun, "check_mismatch", error, monkeypatch, at_call=3)
    assert train_until(type(error), monkeypatch, policy) == (3, [0, 1, 2])


def test_a_step_that_the_learner_is_at_when_something_else_fails_is_finished_and_saved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = LearnerGroup.train_step
    failing: list[bool] = []

    async def train_step(self: LearnerGroup, step: int, tickets: Any) -> Any:
        failing.extend([True] * (step == 2))
        return await kept(self, step, tickets)

    async def score(self: RewardPool, group: Any, *, keep_texts: bool) -> Any:
        if failing:
            raise TooManyFaultsError("no reward actor is left")
        return await kept_score(self, group, keep_texts=keep_texts)

    kept_score = RewardPool.score
    monkeypatch.setattr(LearnerGroup, "train_step", train_step)
    monkeypatch.setattr(RewardPool, "score", score)
    assert train_until(TooManyFaultsError, monkeypatch, POLICY) == (3, [0, 1, 2])


def test_steps_before_the_one_with_too_many_bad_rows_are_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    raise_in(LearnerGroup, "missing", DataError("2 of 16 groups were dropped"), monkeypatch, at_call=4)
    assert train_until(DataError, monkeypatch, POLICY) == (3, [0, 1, 2])


def test_a_group_that_the_learner_refuses_before_it_changes_a_weight_costs_no_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raise_in(LearnerGroup, "train_step", LearnerError("an image does not decode"), monkeypatch, at_call=4)
    assert train_until(LearnerError, monkeypatch, POLICY) == (3, [0, 1, 2])


@pytest.mark.parametrize(
    "error", [NonFiniteLossError(3, ("g",), "loss nan"), RuntimeError("CUDA out of memory")], ids=["diverged", "bug"]
)
def test_a_learner_whose_own_step_failed_is_not_saved(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    raise_in(LearnerGroup, "train_step", error, monkeypatch, at_call=4)
    assert train_until(type(error), monkeypatch, POLICY) == (None, [0, 1, 2])


def test_a_full_disk_costs_no_step_where_there_is_room_for_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = RunRecord.log_step

    def log_step(self: RunRecord, groups: Any, *arguments: Any, **named: Any) -> None:
        if groups.step == 2:
            raise InfrastructureError("metrics.jsonl cannot be written (No space left on device)")
        kept(self, groups, *arguments, **named)

    monkeypatch.setattr(RunRecord, "log_step", log_step)
    assert train_until(InfrastructureError, monkeypatch, POLICY) == (3, [0, 1])


def test_a_learner_that_is_lost_too_often_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def lost(self: LearnerGroup, step: int, tickets: Any) -> Any:
        raise LearnerLostError("rank 0 died")

    monkeypatch.setattr(LearnerGroup, "train_step", lost)
    monkeypatch.setattr(MeasuredRun, "lose_learner", _give_up)
    assert train_until(TooManyFaultsError, monkeypatch, POLICY) == (None, [])


def _give_up(run: MeasuredRun, error: BaseException) -> None:
    run._learner_is_lost = True
    raise TooManyFaultsError("learner")


def test_a_step_that_is_given_up_with_its_learner_says_nothing_of_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    kept_step, kept_score = LearnerGroup.train_step, RewardPool.score
    news: list[LearnerLostError] = []

    async def train_step(self: LearnerGroup, step: int, tickets: Any) -> Any:
        if step == 4 and len(heard) == 0:
            news.append(LearnerLostError("no engine can get weights of a learner that is gone"))
        return await kept_step(self, step, tickets)

    heard: list[bool] = []

    async def score(self: RewardPool, group: Any, *, keep_texts: bool) -> Any:
        if news:
            heard.append(True)
            raise news.pop()
        return await kept_score(self, group, keep_texts=keep_texts)

    monkeypatch.setattr(LearnerGroup, "train_step", train_step)
    monkeypatch.setattr(RewardPool, "score", score)
    policy = Policy(name="ahead", max_staleness=1, run_ahead=1, checkpoint_every=2)
    simulation = simulate(policy, num_engines=2, num_steps=8, seed=0)
    assert heard
    assert simulation.run.faults.counts()["faults/learner"] == 1.0
    assert [json.loads(line)["step"] for line in simulation.ledger.splitlines()] == list(range(8))
