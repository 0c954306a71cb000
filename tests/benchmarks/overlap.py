"""How well rollout and training overlap in the real run: its step time against the slower of the two alone, in one run.

    python -m tests.benchmarks.overlap [--steps 12] [key=value ...]

One run of the main job's actors, rollout and learner bound to a core each: first the engines alone (a full pipeline of
groups, sampled and scored), then the learner alone (training steps on those groups), then training with rollout 1, 2
and 4 steps ahead, with what runs computed again under new weights (keep) and not (keep_cache), and synchronously. The
first steps of each are left out.
"""

import argparse
import asyncio
import dataclasses
import tempfile
import time
from collections.abc import Sequence
from statistics import fmean
from typing import Literal

from orchestration.cli import compose
from orchestration.cluster.reservations import Reservations, actors_reserved
from orchestration.inputs.machine import build_config
from orchestration.inputs.prepare import Inputs, prepare_inputs
from orchestration.loop import sample_group, train
from orchestration.settings.experiment import ExperimentConfig
from orchestration.storage.run_folder import RunFolder, settle_config
from orchestration.train.run import Run
from orchestration.train.tracking import read_metrics
from orchestration.workers.tickets import GroupTicket
from tests.benchmarks.hardware import describe_hardware

WARM_UP = 2
"""Steps that are left out of every mean."""

InFlight = Literal["keep", "keep_cache"]
PIPELINES: tuple[tuple[int, InFlight], ...] = (
    (1, "keep"),
    (1, "keep_cache"),
    (2, "keep"),
    (2, "keep_cache"),
    (4, "keep"),
    (4, "keep_cache"),
    (0, "keep"),
)
"""How far ahead, and what becomes of running completions."""


async def rollout_alone(run: Run, num_steps: int) -> tuple[float, list[GroupTicket]]:
    """Seconds that the engines need for the groups of a step while nothing else works, and the last step's groups."""
    per_step = run.config.training.groups_per_step
    places = asyncio.Semaphore(2 * per_step)
    finished: list[float] = []
    tickets: list[GroupTicket] = []

    async def fill(position: int) -> None:
        async with places:
            ticket = await sample_group(run, position)
        if isinstance(ticket, str):
            raise RuntimeError(f"position {position} was dropped: {ticket}")
        finished.append(time.perf_counter())
        tickets.append(ticket)
        del tickets[:-per_step]

    await asyncio.gather(*(fill(position) for position in range((num_steps + WARM_UP) * per_step)))
    return (finished[-1] - finished[WARM_UP * per_step]) / num_steps, tickets


async def learner_alone(run: Run, tickets: Sequence[GroupTicket], num_steps: int) -> float:
    """Seconds of one training step while nothing else works."""
    seconds = []
    for step in range(num_steps + WARM_UP):
        started = time.perf_counter()
        await run.learner.train_step(step, tickets)
        seconds.append(time.perf_counter() - started)
    return fmean(seconds[WARM_UP:])


async def parts(run: Run, num_steps: int) -> tuple[float, float]:
    try:
        await run.start()
        rollout_s, tickets = await rollout_alone(run, num_steps)
        return rollout_s, await learner_alone(run, tickets, num_steps)
    finally:
        await run.close()


async def together(run: Run) -> dict[str, float]:
    try:
        await run.start()
        await train(run)
    finally:
        await run.close()
    steps = read_metrics(run.folder)[WARM_UP:]
    names = ("step_s", "wait_rollout_s", "train_s", "sync_s")
    return {name: fmean(step[f"time/{name}"] for step in steps) for name in names}


def measured(config: ExperimentConfig, inputs: Inputs, num_steps: int) -> None:
    """All phases, each with actors of its own on the same cores."""

    def fresh(reservations: Reservations, name: str, max_staleness: int, in_flight: InFlight = "keep") -> Run:
        training = dataclasses.replace(
            config.training,
            max_staleness=max_staleness,
            num_steps=num_steps + WARM_UP,
            checkpoint_every=10_000,
            recorded_groups_per_step=0,
        )
        evaluation = dataclasses.replace(config.evaluation, enabled=False)
        folder = f"{config.run_dir}/{name}"
        channel = dataclasses.replace(config.rollout.weight_channel, in_flight=in_flight)
        rollout = dataclasses.replace(config.rollout, weight_channel=channel)
        own = dataclasses.replace(
            config, run_dir=folder, training=training, evaluation=evaluation, rollout=rollout, trackers=()
        )
        (own.run_path / "logs").mkdir(parents=True)
        settle_config(RunFolder(own.run_path), own)
        return Run(own, inputs=inputs, reservations=reservations, say=lambda line: None)

    with actors_reserved(config, config.run_path / "logs") as reservations:
        rollout_s, learner_s = asyncio.run(parts(fresh(reservations, "parts", 1), num_steps))
        for name, alone_s in {"rollout alone": rollout_s, "learner alone": learner_s}.items():
            print(f"{name:<27} {alone_s:6.2f} s a step", flush=True)
        for max_staleness, in_flight in PIPELINES:
            name = f"max_staleness={max_staleness} {in_flight}"
            seconds = asyncio.run(together(fresh(reservations, name, max_staleness, in_flight)))
            ratio = seconds["step_s"] / max(rollout_s, learner_s)
            rest = ", ".join(
                f"{key.removesuffix('_s')} {value:.2f}" for key, value in seconds.items() if key != "step_s"
            )
            print(f"{name:<27} {seconds['step_s']:6.2f} s a step ({rest}); {ratio:.2f} of the slower alone", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    asked, overrides = parser.parse_known_args()
    print(describe_hardware())
    with tempfile.TemporaryDirectory() as folder:
        config = build_config(compose([*overrides, f"run_dir={folder}"]))
        (config.run_path / "logs").mkdir(exist_ok=True)
        measured(config, prepare_inputs(config, print), asked.steps)


if __name__ == "__main__":
    main()
