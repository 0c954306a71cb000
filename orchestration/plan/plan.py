"""The plan of a run as one record; nothing is reserved, loaded or written, and no GPU is queried."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from learner.config import runs_padded
from orchestration.cluster.layout import Layout, lay_out
from orchestration.cluster.local_ray import store_need
from orchestration.cluster.machines import available_cores, needs_of, planned_machines, this_machine
from orchestration.inputs.machine import Located, known_model_folder, locate
from orchestration.models.image_tokens import processor_of
from orchestration.models.shapes import ModelShape, shape_of
from orchestration.models.tensors import ParameterCounts, count_parameters
from orchestration.plan.batches import BatchPlan, Lengths, expected_lengths, plan_batches
from orchestration.plan.dataset import (
    PromptPlan,
    PromptRuler,
    RoutingPlan,
    plan_prompts,
    plan_routing,
    reference_findings,
    streamed_rows,
)
from orchestration.plan.findings import (
    batch_findings,
    best_findings,
    data_findings,
    folder_findings,
    frame_findings,
    from_error,
    image_findings,
    loss_findings,
    missing_folder,
    own_function_findings,
    placement_findings,
    prompt_findings,
    run_folder_refusal,
    shape_findings,
    store_findings,
    tracker_findings,
    unused_findings,
)
from orchestration.plan.memory import MemoryPlan, plan_memory
from orchestration.plan.memory_findings import memory_findings
from orchestration.plan.records import Finding, warning
from orchestration.plan.seconds import SecondsPlan, plan_seconds, rates_of
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig, settings_errors
from rollout.dataset import SampleTable
from rollout.errors import RolloutError

FAMILY_NAMES = {
    "internvl": "InternVL",
    "qwen2_vl": "Qwen2-VL",
    "qwen2_5_vl": "Qwen2.5-VL",
    "qwen3_vl": "Qwen3-VL",
    "qwen3_vl_moe": "Qwen3-VL, mixture of experts",
    "qwen3_5": "Qwen3.5",
}
"""Titles; another model is called by its model_type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """The model that is trained."""

    name: str
    parameters: ParameterCounts
    folder: str | None
    """Folder of its files; None if it does not exist, which a plan accepts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuNeeds:
    """GPUs and cores of the whole run."""

    gpus: float
    cpus: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """Placement, batches, data, memory and time of a run, and findings about them."""

    model: ModelFacts
    layout_name: str
    """disaggregated or colocated."""
    tensor_parallel: int
    needs: GpuNeeds
    layout: Layout | None
    """None if no machines are named, or they cannot hold the run."""
    lengths: Lengths
    batches: BatchPlan
    data: Located
    prompts: PromptPlan | None
    """None if the dataset is not there."""
    routing: RoutingPlan
    memory: MemoryPlan
    seconds: SecondsPlan | None
    """None if the kind of GPU is not known."""
    refusal: str
    """Why `mixed-r1 train` would refuse run_dir, which holds a run of other settings; empty if it would not."""
    findings: tuple[Finding, ...]
    """Errors first."""

    @property
    def fits(self) -> bool:
        """Whether there is no error among the findings."""
        return all(finding.severity != "error" for finding in self.findings)


def plan_run(config: ExperimentConfig, located: Located | None = None) -> RunPlan:
    """Plan a run; `located` is its data, None looks for it.

    Raises:
        ConfigError: the model's sizes are unknown or not supported.
        RolloutError: the dataset cannot be read.
    """
    shape, folder, located = shape_of(config.model), known_model_folder(config), located or locate(config)
    ruler = PromptRuler(folder, shape, processor_of(config.model), config.rollout.prompt_spec) if folder else None
    prompts, routing, refusals = _read(config, located, ruler)
    files = [path for path in (located.train, located.held_out) if path is not None]
    lengths = expected_lengths(config, prompts.prompts if prompts else None, prompts.images if prompts else None)
    num_rows, is_padded = prompts.num_rows if prompts else None, runs_padded(shape.family)
    batches = plan_batches(config, lengths, num_rows, is_padded=is_padded)
    needs, layout, unplaced = _place(config)
    memory = plan_memory(config, shape, layout, prompts.image_bytes if prompts else None)
    rates = rates_of(config, layout)
    findings = [
        *unplaced,
        *refusals,
        *missing_folder(config, folder),
        *(from_error(error, "config") for error in settings_errors(config)),
        *shape_findings(config, shape, _max_positions(config, folder)),
        *memory_findings(config, shape, layout, memory, lengths),
        *batch_findings(config, batches, lengths),
        *prompt_findings(config),
        *image_findings(shape, files),
        *frame_findings(config, files),
        *best_findings(config, located.held_out),
        *placement_findings(config, layout),
        *folder_findings(config, len(layout.machines) if layout else 0),
        *data_findings(config, prompts, routing),
        *loss_findings(config, located),
        *unused_findings(config),
        *tracker_findings(config),
        *store_findings(config, store_need(config, prompts.image_bytes if prompts else 0.0)),
    ]
    if refusal := run_folder_refusal(config):
        findings.append(warning("run_dir", refusal))
    seconds = None
    if rates:
        cache_tokens = memory.cache.num_tokens if memory.cache else None
        seconds = plan_seconds(config, shape, lengths=lengths, batches=batches, rates=rates, cache_tokens=cache_tokens)
    return RunPlan(
        model=ModelFacts(
            name=_name(config, shape),
            parameters=count_parameters(shape),
            folder=None if folder is None else str(folder),
        ),
        layout_name=config.cluster.layout,
        tensor_parallel=config.rollout.engine.tensor_parallel_size,
        needs=needs,
        layout=layout,
        lengths=lengths,
        batches=batches,
        data=located,
        prompts=prompts,
        routing=routing,
        memory=memory,
        seconds=seconds,
        refusal=refusal,
        findings=tuple(sorted(findings, key=lambda finding: finding.severity != "error")),
    )


def _read(
    config: ExperimentConfig, located: Located, ruler: PromptRuler | None
) -> tuple[PromptPlan | None, RoutingPlan, list[Finding]]:
    """Read the dataset if it exists."""
    held_out = SampleTable(located.held_out).tasks_and_sources() if located.held_out else []
    if located.train is None:
        return None, plan_routing(config.reward, None, held_out), own_function_findings(config.reward)
    table, refusals = SampleTable(located.train), []
    try:
        drawn = streamed_rows(table, config.data.stream)
    except RolloutError as error:
        drawn = np.arange(len(table), dtype=np.int32)
        refusals.append(from_error(error, "data.stream"))
    refusals += own_function_findings(config.reward, table, drawn.tolist())
    if config.data.train is not None:  # the data engine has checked every reference of a recipe
        refusals += reference_findings(config.reward, table, drawn)
    pairs = table.tasks_and_sources()
    routing = plan_routing(config.reward, [pairs[index] for index in drawn], [*pairs, *held_out])
    return plan_prompts(config, table, drawn, ruler), routing, refusals


def _place(config: ExperimentConfig) -> tuple[GpuNeeds, Layout | None, list[Finding]]:
    """Place all actors on the machines of the settings, or on this one if no GPU is needed."""
    try:
        needs = needs_of(config)
    except ConfigError as error:
        return GpuNeeds(gpus=0, cpus=0), None, [from_error(error, "cluster.layout")]
    on_gpus = (needs.learner, *needs.judges) if needs.is_colocated else (needs.learner, needs.engine, *needs.judges)
    summed = GpuNeeds(
        gpus=sum(need.total_gpus for need in on_gpus),
        cpus=needs.num_actors,
    )
    needs_no_gpu = all(need.gpus == 0 for need in needs.every)
    machines = planned_machines(config.cluster.nodes)
    if not machines and needs_no_gpu and config.cluster.address is None:
        machines = (this_machine(needs),)
    if not machines:
        message = (
            f"it is empty, so placement and limits are unknown; the run needs {summed.gpus:g} GPUs and "
            f"{summed.cpus} cores: name the machines, or choose a cluster setting that does"
        )
        return summed, None, [warning("cluster.nodes", message)]
    try:
        layout = lay_out(config, machines)
        if not config.cluster.nodes:
            # A local Ray may declare more cores than there are; the plan shows the real number.
            layout = replace(layout, machines=(replace(machines[0], cpus=len(available_cores())),))
        return summed, layout, []
    except ConfigError as error:
        return summed, None, [from_error(error, "cluster.nodes")]


def _max_positions(config: ExperimentConfig, folder: Path | None) -> int | None:
    """Return the longest sequence that the model supports; None if its config.json does not say."""
    hf_config = config.model.hf_config or {}
    if folder is not None and (folder / "config.json").is_file():
        hf_config = json.loads((folder / "config.json").read_text())
    text = hf_config.get("text_config") or {}
    found = text.get("max_position_embeddings", hf_config.get("max_position_embeddings"))
    return None if found is None else int(found)


def _name(config: ExperimentConfig, shape: ModelShape) -> str:
    family = FAMILY_NAMES.get(shape.family, shape.family)
    if config.model.own_family is not None:
        family = f"{config.model.own_family.rpartition(':')[2]}, planned as {family}"
    if config.model.folder is not None:
        return f"{family} ({config.model.folder.name})"
    return family if config.model.hf_config is not None else f"the demo's tiny {family}"


def check_plan(config: ExperimentConfig, located: Located) -> None:
    """Refuse a run for which `mixed-r1 plan` reports errors, unless plan.enforce is false.

    Prompt lengths are assumed if `located` has no rows.

    Raises:
        ConfigError: a line for each reason, with its key.
    """
    if not config.plan.enforce:
        return
    plan = plan_run(config, located)
    if reasons := [finding.line for finding in plan.findings if finding.severity == "error"]:
        raise ConfigError("\n".join(reasons) + " (found by `mixed-r1 plan`; plan.enforce=false starts the run anyway)")
