"""Processes of a running job are killed; the run goes on, and every group is trained on exactly once."""

import json
import random
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

import pytest

from tests.integration import chaos
from tests.integration.driver import Driver

LIMITS = [f"cluster.faults.max_{role}_faults=100" for role in ("engine", "reward", "learner", "transfer")]


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def positions_of(run_dir: Path) -> list[int]:
    """Every position that some step used up, in order of the steps."""
    return [
        entry[0]
        for line in lines_of(run_dir / "ledger.jsonl")
        for fate in ("trained", "replaced", "dropped")
        for entry in line[fate]
    ]


def num_steps_done(run_dir: Path) -> int:
    path = run_dir / "metrics.jsonl"
    return path.read_text().count("\n") if path.is_file() else 0


def kill_one(driver: Driver, run_dir: Path, role: str, choose: random.Random) -> None:
    """Kill a process of a role and wait until the run has noticed."""
    driver.poll(lambda: chaos.processes_of(driver, role) != [], 300.0)
    faults = len(lines_of(run_dir / "faults.jsonl"))
    assert chaos.kill(choose.choice(chaos.processes_of(driver, role)))
    driver.poll(lambda: len(lines_of(run_dir / "faults.jsonl")) > faults, 120.0)


def take_a_step(driver: Driver, run_dir: Path) -> None:
    """Wait for another line of metrics; a learner that is lost takes some away first."""
    done = [num_steps_done(run_dir)]

    def is_further() -> bool:
        done.append(num_steps_done(run_dir))
        return done[-1] > done[-2]

    driver.poll(is_further, 300.0)


def test_a_run_of_two_engines_and_two_ranks_of_deepspeed_outlives_a_kill_of_each_kind(
    tmp_path: Path, cache: Path
) -> None:
    run_dir = tmp_path / "run"
    weights = "+data.stream.weights={chart: 3, iou: 1, open: 0, match_mcq: 0, match_yesno: 0}"
    settings = [
        "experiment=cpu_smoke",
        f"run_dir={run_dir}",
        f"cache_dir={cache}",
        "model=tiny_internvl",
        "learner=deepspeed_zero3",
        "rollout.engines=2",
        "data.stream.mixture_by=task",
        weights,
        "evaluation.enabled=false",
        "training.num_steps=1000",
    ]
    driver = Driver(tmp_path, "train", *settings)
    driver.wait_for(run_dir / "metrics.jsonl", 2)
    for role in ("engine core", "reward actor", "learner rank"):
        kill_one(driver, run_dir, role, random.Random(0))
        take_a_step(driver, run_dir)
    driver.send(signal.SIGTERM)
    assert driver.finish() == 75, driver.output
    assert driver.leftovers() == []

    steps = lines_of(run_dir / "metrics.jsonl")
    assert [step["step"] for step in steps] == list(range(len(steps)))
    assert f"step {len(steps)} of 1000 is saved" in driver.output
    assert all(step["staleness/max"] <= 1.0 for step in steps)
    assert [step["reward/chart/num_groups"] for step in steps] == [3.0] * len(steps)
    assert [step["reward/grounding/num_groups"] for step in steps] == [1.0] * len(steps)
    assert all(step["sync/mismatch"] < 0.02 for step in steps)
    assert sorted(positions_of(run_dir)) == list(range(4 * len(steps)))
    assert {fault["role"] for fault in lines_of(run_dir / "faults.jsonl")} >= {"engine", "reward", "learner"}


NUM_STEPS = 120


@pytest.mark.slow
def test_thirty_random_kills_lose_no_group_and_leave_the_learning_curve_as_it_is(tmp_path: Path, cache: Path) -> None:
    """Two runs of the demo's task on a model half warmed up: one undisturbed, one under fire from its first step."""
    settings = [
        f"cache_dir={cache}",
        "demo.warm_start_steps=300",
        "evaluation.enabled=false",
        "rollout.engines=2",
        "cluster.reward_pool.num_actors=2",
        "training.checkpoint_every=2",
        f"training.num_steps={NUM_STEPS}",
        *LIMITS,
    ]
    calm, fire = tmp_path / "calm", tmp_path / "fire"
    driver = Driver(tmp_path, "train", *settings, f"run_dir={calm}")
    assert driver.finish(3000.0) == 0, driver.output

    driver = Driver(tmp_path, "train", *settings, f"run_dir={fire}")
    driver.wait_for(fire / "metrics.jsonl", 1)
    choose = random.Random(0)
    killed: Counter[str] = Counter()
    while killed.total() < 30:
        alive = [role for role in chaos.TITLES if chaos.processes_of(driver, role)]
        role = choose.choice(alive or list(chaos.TITLES))
        kill_one(driver, fire, role, choose)
        killed[role] += 1
        print(f"{killed.total()} killed, the last a {role}; {num_steps_done(fire)} steps done", flush=True)
        take_a_step(driver, fire)
    assert driver.finish(3000.0) == 0, driver.output
    assert driver.leftovers() == []

    for run_dir in (calm, fire):
        assert sorted(positions_of(run_dir)) == list(range(NUM_STEPS * 32))
    rewards = {
        run_dir: [step["reward/mean"] for step in lines_of(run_dir / "metrics.jsonl")] for run_dir in (calm, fire)
    }
    print(f"killed: {dict(killed)}; noticed: {Counter(fault['role'] for fault in lines_of(fire / 'faults.jsonl'))}")
    for first in range(0, NUM_STEPS, 20):
        ours, theirs = rewards[fire][first : first + 20], rewards[calm][first : first + 20]
        print(f"steps {first + 1:3d} to {first + 20}: reward {fmean(ours):.3f} under fire, {fmean(theirs):.3f} calm")
    assert abs(fmean(rewards[fire][-20:]) - fmean(rewards[calm][-20:])) < 4 * noise(rewards[calm][-20:])


def noise(values: Sequence[float]) -> float:
    """Standard error of a difference of two means of that many steps, whose values are correlated."""
    return 2 * stdev(values) * (2 / len(values)) ** 0.5
