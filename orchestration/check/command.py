"""`mixed-r1 check`: check the machines and the actors of a run before it begins; a table, JSON, and an exit code."""

import asyncio
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from learner.store import open_store
from orchestration.check.facts import Expectations, Facts, Row
from orchestration.check.node import look_at_nodes
from orchestration.check.probes import Probes
from orchestration.check.prompts import check_prompts
from orchestration.check.verdicts import judge
from orchestration.cluster.found import hold
from orchestration.cluster.reservations import Reservations, actors_reserved
from orchestration.cluster.session import while_ray_lives
from orchestration.models.box_frame import family_frame
from orchestration.models.shapes import shape_of
from orchestration.settings.experiment import ExperimentConfig, adapter_of
from orchestration.storage.faults import FaultLog
from orchestration.storage.files import exclusive, write_json
from orchestration.workers.engine_pool import start_engines
from orchestration.workers.learner_group import start_learner
from orchestration.workers.turns import start_turns
from rewards.functions.tokenizer import load_tokenizer
from rollout.placeholders import placeholder_tokens

MIN_LEARNING_RATE = 1e-4
"""Of the step, so that it changes every trained tensor in bfloat16 too."""
MIN_IMAGES = 2
EXIT_FAULT = 1


def run_check(config: ExperimentConfig, model: Path, *, planned_bytes: int) -> int:
    """Check as configured, print the table, write check.json and return the exit code: 0 all right, 1 a fault.

    Raises:
        ConfigError: the settings, the model or the machines cannot begin such a run.
        ResumeError: another process checks into the same folder.
    """
    folder = config.run_path / "check"
    busy = f"another process checks in {folder}; wait for it, or use another run_dir"
    with exclusive(folder, refusal=busy):
        facts = _look(as_checked(config), model, folder, planned_bytes=planned_bytes)
        rows = judge(facts, expectations(config, model))
        write_json(folder / "check.json", {"rows": [asdict(row) for row in rows], "facts": asdict(facts)})
        print_table(rows)
    num = {verdict: sum(row.verdict == verdict for row in rows) for verdict in ("ok", "open", "fault")}
    print(f"{num['ok']} all right, {num['open']} not conclusive, {num['fault']} faults; {folder / 'check.json'}")
    return EXIT_FAULT if num["fault"] else 0


def as_checked(config: ExperimentConfig) -> ExperimentConfig:
    """Return the settings of the run, with room for a prompt of two pictures and a step that moves the weights."""
    engine, optimizer = config.rollout.engine, config.learner.optimizer
    moving = replace(
        optimizer,
        learning_rate=max(MIN_LEARNING_RATE, optimizer.learning_rate),
        schedule="constant",
        warmup_steps=0,
    )
    images = max(MIN_IMAGES, engine.max_images_per_prompt)
    return replace(
        config,
        rollout=replace(config.rollout, max_engines=None, engine=replace(engine, max_images_per_prompt=images)),
        learner=replace(config.learner, optimizer=moving, abort_grad_norm=None),
    )


def expectations(config: ExperimentConfig, model: Path) -> Expectations:
    """Return what the settings and the model's family say should be found."""
    shape = shape_of(replace(config.model, path=str(model)))
    # A tiny model was taught the frame of the settings, and an own class is the user's to know.
    is_known = config.model.path is not None and config.model.own_family is None
    dtypes = config.rollout.engine.dtype, config.learner.dtype
    return Expectations(
        device=config.learner.device,
        dtype="float32" if set(dtypes) == {"float32"} else "bfloat16",
        coord_mode=config.model.box_frame,
        family_frame=(family_frame(config.model) if is_known else None) or config.model.box_frame,
        patch_side=None if shape.tower.tile_side else shape.tower.patch_side,
        grounding=config.reward.grounding,
        learns=True,
    )


def _look(config: ExperimentConfig, model: Path, folder: Path, *, planned_bytes: int) -> Facts:
    """Start the engines and learner ranks of a run, and probe them."""
    logs, record, limits = folder / "logs", folder / "turns.jsonl", config.cluster.faults
    record.unlink(missing_ok=True)
    checkpoints = config.training.checkpoint_dir or folder
    tokenizer = load_tokenizer(model)
    ids = ((tokenizer.token_to_id(token), token) for token in placeholder_tokens(model))
    known = {index: token for index, token in ids if index is not None}

    adapter = adapter_of(config.learner)

    async def look(reservations: Reservations) -> Facts:
        learner = start_learner(config, model, reservations, logs, random_weights=config.check.random_weights)
        engines = start_engines(
            config.rollout,
            model,
            reservations,
            logs,
            faults=limits,
            log=FaultLog(limits, folder / "faults.jsonl"),
            learner=learner,
            loads_weights=adapter is not None,
            adapter=adapter,
        )
        probes = Probes(
            config=config,
            engines=engines,
            learner=learner,
            turns=start_turns(config, engines, learner, record=record),
            prompts=check_prompts(takes_images=shape_of(config.model).image_kind != "none"),
            placeholders=known,
            planned_bytes=planned_bytes,
            store=open_store(f"{checkpoints}/check"),
            record=record,
            look_at_nodes=lambda: look_at_nodes(config.cluster.nodes, model, folder / "shared"),
            hold=hold,
            say=partial(print, flush=True),
        )
        probes.facts.places = places_of(reservations)
        try:
            await while_ray_lives(probes.look())
        except asyncio.CancelledError:
            # Calls to processes that are ending fail, and nobody waits for them.
            asyncio.get_running_loop().set_exception_handler(lambda *_: None)
            raise
        finally:
            await engines.close()
            await learner.close()
            open_store(checkpoints).delete("check")
        return probes.facts

    with actors_reserved(config, logs, roles=("learner", "engine")) as reservations:
        return asyncio.run(look(reservations))


def places_of(reservations: Reservations) -> dict[str, str]:
    """Return the machine of every engine and rank."""
    names = [machine.name for machine in reservations.layout.machines]
    engines = {f"engine {actor.index}": names[actor.machine] for actor in reservations.layout.of("engine")}
    return engines | {f"rank {actor.index}": names[actor.machine] for actor in reservations.layout.of("learner")}


def print_table(rows: list[Row]) -> None:
    """Print the rows, as wide as the terminal, or as 140 columns where there is none."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("what", "found", "expected", "verdict", "remedy"):
        table.add_column(name, overflow="fold", no_wrap=name == "verdict")
    for row in rows:
        table.add_row(row.what, row.found, row.expected, row.verdict, row.remedy)
    console = Console(highlight=False, markup=False)
    console = console if console.is_terminal else Console(highlight=False, markup=False, width=140)
    console.print(table)
