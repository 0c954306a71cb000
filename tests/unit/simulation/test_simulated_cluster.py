"""The product's loop over eight simulated engines: what must hold under every policy, whatever dies."""

import dataclasses
import json
from collections import Counter
from typing import Any

import pytest

from orchestration.settings.errors import StoppedError
from orchestration.train.buffer import Progress
from orchestration.train.held_out import HeldOut
from rollout.errors import WeightSyncError
from tests.benchmarks.simulation import handles
from tests.benchmarks.simulation.learner import SimulatedRank
from tests.benchmarks.simulation.policies import POLICIES, Policy
from tests.benchmarks.simulation.remote import remote_method
from tests.benchmarks.simulation.run import MeasuredRun
from tests.benchmarks.simulation.settings import FailureRates
from tests.benchmarks.simulation.simulate import Simulation, simulate, simulate_instant

ENGINES = 8
STEPS = 9
PLAGUE = dataclasses.replace(
    POLICIES["ahead_2_tail_4"],
    name="plague",
    oversampling=2.0,
    checkpoint_every=2,
    failures=FailureRates(engine_per_hour=60.0, reward_per_hour=60.0, learner_per_hour=30.0),
)
"""Every engine and reward actor dies about once a minute, the learner about once in two, while stragglers are carried
and groups replaced."""

IMPATIENT = Policy(name="impatient", max_staleness=2, run_ahead=1, straggler_deadline_s=0.0)
"""Takes whatever is there, so that the limit of staleness is what holds it back."""


def run(policy: Policy, seed: int = 0, num_engines: int = ENGINES, num_steps: int = STEPS) -> Simulation:
    return simulate(policy, num_engines=num_engines, num_steps=num_steps, seed=seed)


def assert_sound(simulation: Simulation, policy: Policy) -> None:
    lines = [json.loads(line) for line in simulation.ledger.splitlines()]
    assert [line["step"] for line in lines] == list(range(STEPS))
    trained = [tuple(entry) for line in lines for entry in line["trained"]]
    others = [entry[0] for line in lines for kind in ("replaced", "dropped") for entry in line[kind]]
    positions = Counter([position for position, _, _ in trained] + others)
    progress = simulation.run.state.progress
    left = set(range(progress.next_position)) - set(progress.again)
    assert set(positions) == left, "a position was lost"
    assert max(positions.values()) == 1, "a position was used twice"
    told = Counter(group for _, group in simulation.actors.learner.trained)
    assert told == Counter(group for _, group, _ in trained), "the ranks were given other groups than the ledger says"
    assert simulation.outcome.staleness_max <= policy.max_staleness
    assert all(reason for line in lines for _, reason in line["dropped"])


@pytest.mark.parametrize("policy", [*POLICIES.values(), IMPATIENT], ids=lambda policy: policy.name)
def test_every_position_is_trained_once_or_given_up_with_a_reason_and_none_is_too_old(policy: Policy) -> None:
    simulation = run(policy)
    assert_sound(simulation, policy)
    assert simulation.outcome.seat_frac > 0.05
    assert simulation.outcome.engine_busy_frac > 0.3


def test_a_cluster_that_dies_all_the_time_still_finishes_soundly_and_repeats_to_the_bit() -> None:
    first, second = run(PLAGUE), run(PLAGUE)
    assert_sound(first, PLAGUE)
    assert first.outcome.engine_faults > ENGINES
    assert first.outcome.reward_faults > 0
    assert first.run.faults.counts()["faults/learner"] > 0
    assert first.outcome.num_repeated > 0
    assert (first.ledger, first.metrics) == (second.ledger, second.metrics)
    assert [s.at for s in first.run.snapshots] == [s.at for s in second.run.snapshots]
    assert run(PLAGUE, seed=1).ledger != first.ledger


@pytest.mark.parametrize("num_engines", [1, 2])
@pytest.mark.parametrize("name", ["sync", "ahead_1", "ahead_2_tail_4", "ahead_4_dynamic"])
def test_few_engines_that_die_with_the_learner_leave_nobody_waiting(name: str, num_engines: int) -> None:
    for seed in range(3):
        survive(name, seed, num_engines, learner_per_hour=40.0)


@pytest.mark.parametrize("num_engines", [1, 2, ENGINES])
def test_where_both_sides_share_gpus_deaths_leave_nobody_waiting_either(num_engines: int) -> None:
    for seed in range(6):
        survive("sync", seed, num_engines, learner_per_hour=20.0, layout="colocated")


def test_a_run_that_loses_one_of_two_ranks_forgets_what_it_had_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten: list[HeldOut] = []
    monkeypatch.setattr(HeldOut, "forget", lambda held_out: forgotten.append(held_out))
    # A learner of two ranks, which is lost with one of them.
    lost = survive("ahead_1", 0, 2 * ENGINES, learner_per_hour=40.0).run.faults.counts()["faults/learner"]
    assert len(forgotten) >= lost > 0


@pytest.mark.parametrize(
    ("dies_in", "at", "words"),
    [
        ("train_step", 0, "SIGTERM received: nothing is saved yet; the same command begins again"),
        ("train_step", 5, f"SIGTERM received: step 4 of {STEPS} is saved in .*; the same command continues"),
        ("stage", 7, f"SIGTERM received: step 6 of {STEPS} is saved in .*; the same command continues"),
    ],
)
def test_asked_to_leave_without_a_learner_a_run_leaves_what_the_last_checkpoint_holds(
    dies_in: str, at: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    call: remote_method = SimulatedRank.__dict__[dies_in]
    lose, end_step = MeasuredRun.lose_learner, MeasuredRun.end_step

    def die(rank: SimulatedRank, step: int, *arguments: Any) -> Any:
        if step == at:
            rank.die()
        return call.__get__(rank, SimulatedRank).remote(step, *arguments)

    def lose_and_leave(run: MeasuredRun, error: BaseException) -> None:
        lose(run, error)
        run.request_stop("SIGTERM received")

    async def leave_and_end_step(run: MeasuredRun, progress: Progress, step_s: float) -> None:
        if dies_in == "stage" and progress.step == at:
            run.request_stop("SIGTERM received")
        await end_step(run, progress, step_s)

    monkeypatch.setattr(SimulatedRank, dies_in, remote_method(die))
    monkeypatch.setattr(MeasuredRun, "lose_learner", lose_and_leave)
    monkeypatch.setattr(MeasuredRun, "end_step", leave_and_end_step)
    with pytest.raises(StoppedError, match=words):
        run(dataclasses.replace(POLICIES["ahead_1"], checkpoint_every=2))


def survive(name: str, seed: int, num_engines: int, *, learner_per_hour: float, **settings: Any) -> Simulation:
    failures = FailureRates(engine_per_hour=60.0, reward_per_hour=60.0, learner_per_hour=learner_per_hour)
    policy = dataclasses.replace(POLICIES[name], checkpoint_every=2, failures=failures, **settings)
    simulation = run(policy, seed, num_engines)
    assert_sound(simulation, policy)
    return simulation


def test_running_ahead_is_faster_and_tail_control_reaches_it_with_less_staleness() -> None:
    names = ("sync", "ahead_1", "ahead_1_tail_4", "ahead_4", "ahead_4_cache")
    outcomes = {name: run(POLICIES[name], num_steps=24).outcome for name in names}
    step_s = {name: outcome.step_s for name, outcome in outcomes.items()}
    assert step_s["ahead_4_cache"] < step_s["ahead_4"] < step_s["ahead_1_tail_4"] < step_s["ahead_1"] < step_s["sync"]
    assert outcomes["ahead_1_tail_4"].staleness_mean < outcomes["ahead_4"].staleness_mean
    assert outcomes["sync"].staleness_max == 0


def test_an_engine_that_missed_an_update_is_found_by_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    def receive(engine: handles.SimulatedEngine, version: int) -> None:
        engine.server.version = version if engine.index != 3 else 0

    monkeypatch.setattr(handles.SimulatedEngine, "receive", receive)
    with pytest.raises((WeightSyncError, ExceptionGroup)) as caught:
        run(POLICIES["sync"])
    assert caught.group_contains(WeightSyncError, match="engine 3 holds other weights")


def test_instant_actors_train_soundly_on_the_ordinary_clock() -> None:
    policy = POLICIES["ahead_2"]
    simulation = simulate_instant(policy, num_engines=ENGINES, num_steps=STEPS, seed=0)
    assert_sound(simulation, policy)
    assert simulation.outcome.controller_us > 0.0
