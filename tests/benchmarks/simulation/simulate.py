"""One simulated run, and what it says: step time, utilisation, staleness, and the controller's processor time."""

import asyncio
import dataclasses
import gc
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean

from orchestration.cli import compose
from orchestration.inputs.machine import build_config
from orchestration.job import collect_rarely
from orchestration.settings.experiment import ExperimentConfig
from orchestration.storage.faults import Role
from orchestration.storage.run_folder import RunFolder
from tests.benchmarks.simulation.actors import Actors, SimulatedActors
from tests.benchmarks.simulation.groups import write_prompts
from tests.benchmarks.simulation.instant import NOTHING, InstantActors, InstantWorld
from tests.benchmarks.simulation.policies import Policy
from tests.benchmarks.simulation.run import MeasuredRun, configure, train_simulated
from tests.benchmarks.simulation.settings import Costs, EngineCosts
from tests.benchmarks.simulation.virtual_time import run_in_virtual_time
from tests.benchmarks.simulation.world import World

GROUPS_PER_ENGINE = 8
"""Groups a step, for each engine: 64 completions for 32 seats."""
ENGINES_PER_RANK = 8
ENGINES_PER_REWARD_ACTOR = 16
WARM_UP = 3
"""Steps at the beginning that no mean counts, beside those that begin together with the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one run showed. Means of times leave out the warm-up, and the last steps, when rollout runs dry."""

    policy: str
    num_engines: int
    groups_per_step: int
    num_steps: int
    """In all."""
    step_s: float
    """Mean virtual seconds of a step."""
    learner_s: float
    """Of which fetching, training and publishing; what the learner would take alone."""
    pause_s: float
    """Of which publishing, when engines stand still."""
    engine_busy_frac: float
    """Share of the time in which an engine had anything to decode."""
    seat_frac: float
    """Mean share of an engine's seats that were taken."""
    learner_busy_frac: float
    """Share of the time spent in training steps."""
    signal_groups_per_s: float
    """Trained groups whose completions differ in reward, a virtual second."""
    staleness: dict[int, int]
    """Staleness -> trained groups of the whole run."""
    num_replaced: int
    num_dropped: int
    num_carried: int
    engine_faults: int
    reward_faults: int
    num_repeated: int
    """Groups begun again because their engine died."""
    controller_us: float
    """Processor microseconds of the product, a group, over the whole run; simulated parts are taken off."""
    simulated_us: float
    """Processor microseconds of the simulated parts, a group."""

    @property
    def staleness_mean(self) -> float:
        """Over trained groups."""
        return sum(k * n for k, n in self.staleness.items()) / max(1, sum(self.staleness.values()))

    @property
    def staleness_max(self) -> int:
        """Over trained groups."""
        return max(self.staleness, default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """A run that has ended, with what it left."""

    run: MeasuredRun
    actors: SimulatedActors
    outcome: Outcome
    ledger: str
    """The run's own list of what each step trained on, replaced and dropped."""
    metrics: str
    """The run's own metrics of every step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How large a simulated run is."""

    num_engines: int
    num_steps: int
    groups_per_engine: int = GROUPS_PER_ENGINE
    """Groups of a step, for each engine."""


def simulate(
    policy: Policy,
    *,
    num_engines: int,
    num_steps: int,
    seed: int,
    costs: Costs | None = None,
    groups_per_engine: int = GROUPS_PER_ENGINE,
) -> Simulation:
    """Run a policy in virtual time."""
    world = World()
    costs = costs or Costs()
    engine = dataclasses.replace(costs.engine, keeps_cache=policy.in_flight == "keep_cache")
    told = dataclasses.replace(costs, engine=engine, failures=policy.failures)
    actors = SimulatedActors(world, told, seed=seed)
    shape = Shape(num_engines=num_engines, num_steps=num_steps, groups_per_engine=groups_per_engine)
    return _run(policy, actors, shape, seed=seed, world=world)


def simulate_instant(
    policy: Policy, *, num_engines: int, num_steps: int, seed: int, collects_garbage: bool = True
) -> Simulation:
    """Run a policy on the ordinary clock, with actors that take no time.

    Args:
        policy: The policy.
        num_engines: Engines.
        num_steps: Steps.
        seed: Of everything drawn.
        collects_garbage: Whether Python looks for cycles meanwhile, as often as in a job; the difference is what its
            looking costs.
    """
    actors = InstantActors(InstantWorld(), NOTHING, seed=seed)
    usual = gc.get_threshold()
    collect_rarely()
    if not collects_garbage:
        gc.disable()
    try:
        shape = Shape(num_engines=num_engines, num_steps=num_steps)
        return _run(policy, actors, shape, seed=seed, world=None)
    finally:
        gc.unfreeze()
        gc.set_threshold(*usual)
        gc.enable()


def rollout_alone_s(*, num_engines: int, seed: int, groups_per_engine: int = GROUPS_PER_ENGINE) -> float:
    """Seconds a step of engines that are never held up: the learner takes no time and rollout runs far ahead."""
    free = Costs(engine=EngineCosts(probe_s=0.0), learner=NOTHING.learner)
    ahead = Policy(name="rollout alone", max_staleness=10, in_flight="keep_cache")
    run = simulate(
        ahead, num_engines=num_engines, num_steps=44, seed=seed, costs=free, groups_per_engine=groups_per_engine
    )
    return run.outcome.step_s


@cache
def _base() -> ExperimentConfig:
    """The default settings; every run puts a folder of its own in place of this one."""
    with tempfile.TemporaryDirectory() as folder:
        return build_config(compose([f"run_dir={folder}", f"cache_dir={folder}"]))


def _run(policy: Policy, actors: SimulatedActors, shape: Shape, *, seed: int, world: World | None) -> Simulation:
    num_engines = shape.num_engines
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = _base()
        prompts = folder / "prompts.parquet"
        write_prompts(prompts, actors.costs.workload, seed=seed)
        config = configure(
            base,
            folder / "run",
            num_engines=num_engines,
            num_ranks=max(1, num_engines // ENGINES_PER_RANK),
            num_reward_actors=max(2, num_engines // ENGINES_PER_REWARD_ACTOR),
            training=policy.training(
                base.training, groups_per_step=shape.groups_per_engine * num_engines, num_steps=shape.num_steps
            ),
            layout=policy.layout,
            actors=actors,
            seed=seed,
        )
        main = train_simulated(config, prompts, actors)
        run: MeasuredRun = asyncio.run(main) if world is None else run_in_virtual_time(world, main)
        left = RunFolder(folder / "run")
        return Simulation(
            run=run,
            actors=actors,
            outcome=_outcome(policy, run, actors, num_engines),
            ledger=left.ledger.read_text(),
            metrics=left.metrics.read_text(),
        )


def _outcome(policy: Policy, run: MeasuredRun, actors: Actors, num_engines: int) -> Outcome:
    steps = run.steps
    first = min(WARM_UP + policy.max_staleness, len(steps) // 2)
    last = max(first + 1, len(steps) - 1 - policy.max_staleness)
    begin, end, window = run.snapshots[first - 1], run.snapshots[last - 1], steps[first:last]
    seconds, start, stop = end.at - begin.at, run.begun, run.snapshots[-1]
    assert start is not None
    simulated = stop.simulated_cpu_s - start.simulated_cpu_s
    num_groups = sum(step.num_used for step in steps)
    per_s = 1.0 / seconds if seconds > 0.0 else 0.0
    return Outcome(
        policy=policy.name,
        num_engines=num_engines,
        groups_per_step=run.config.training.groups_per_step,
        num_steps=len(steps),
        step_s=seconds / len(window),
        learner_s=fmean(step.learner_s for step in window),
        pause_s=fmean(step.pause_s for step in window),
        engine_busy_frac=(end.busy_s - begin.busy_s) * per_s / num_engines,
        seat_frac=(end.sequence_s - begin.sequence_s) * per_s / num_engines / actors.costs.engine.max_num_seqs,
        learner_busy_frac=sum(step.train_s for step in window) * per_s,
        signal_groups_per_s=sum(step.num_signal for step in window) * per_s,
        staleness=dict(sorted(_sum(step.staleness for step in steps).items())),
        num_replaced=sum(step.num_replaced for step in steps),
        num_dropped=sum(step.num_dropped for step in steps),
        num_carried=sum(step.num_carried for step in steps),
        engine_faults=int(run.faults.counts()[f"faults/{Role.ENGINE}"]),
        reward_faults=int(run.faults.counts()[f"faults/{Role.REWARD}"]),
        num_repeated=run.engines.num_repeated,
        controller_us=1e6 * (stop.cpu_s - start.cpu_s - simulated) / num_groups,
        simulated_us=1e6 * simulated / num_groups,
    )


def _sum(counters: Iterable[Counter[int]]) -> Counter[int]:
    total: Counter[int] = Counter()
    for counter in counters:
        total.update(counter)
    return total
