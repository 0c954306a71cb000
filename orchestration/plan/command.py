"""`mixed-r1 plan`: print a plan as aligned text or as JSON; the exit code says whether the run fits."""

import dataclasses
import json
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from orchestration.cluster.layout import Layout, PlacedActor
from orchestration.cluster.machines import Machine
from orchestration.inputs.hub import hub_name, with_hub_folders
from orchestration.inputs.machine import with_own_files
from orchestration.models.adapter import check_adapter
from orchestration.models.box_frame import with_box_frame
from orchestration.models.model_folder import check_model
from orchestration.page.formatting import GIB, count, seconds, size, some, span
from orchestration.plan.batches import Histogram, RankShare
from orchestration.plan.dataset import REASONS, RoutingPlan
from orchestration.plan.memory import MemoryPlan
from orchestration.plan.plan import RunPlan, plan_run
from orchestration.plan.records import Finding, MemoryUse
from orchestration.plan.seconds import SecondsPlan
from orchestration.settings.cluster import ActorRole
from orchestration.settings.experiment import ExperimentConfig
from orchestration.settings.own_code import check_own_code

EXIT_DOES_NOT_FIT = 3
WIDTH = 120
LABEL = 16
"""Columns of the label before the text of a line."""
BAR = 40
SMALL_SHARE = 0.04
"""Memory items below this share of the total are summed as `rest`."""
BOUND_WORDS = {"rollout": "rollout", "learner": "the learner", "balanced": "both equally", "turns": "both, in turns"}
ROLE_NAMES: dict[ActorRole, str] = {
    "learner": "learner rank",
    "engine": "engine",
    "judge": "judge",
    "reward": "reward actor",
}


def print_plan(config: ExperimentConfig, *, as_json: bool) -> int:
    """Plan a run, print the plan and return the exit code: 0 if the run fits, 3 if it does not.

    Raises:
        ConfigError: as `checked_plan`.
    """
    plan = checked_plan(config)
    if as_json:
        print(json.dumps(plan_json(plan), indent=2))
    else:
        print(plan_text(plan), end="")
    return 0 if plan.fits else EXIT_DOES_NOT_FIT


def checked_plan(config: ExperimentConfig) -> RunPlan:
    """Plan a run once its model folder and own code are checked.

    Raises:
        ConfigError: the model's sizes are unknown or not supported, or a run would refuse its folder or own code.
    """
    check_own_code(config)
    config = with_box_frame(with_own_files(with_hub_folders(config, is_online=False)))
    folder = config.model.folder
    if folder is not None and (folder.exists() or config.model.hf_config is None):
        check_model(config.model, config.reward, config.rollout.prompt_spec)
    if config.learner.lora is not None and hub_name(config.learner.lora.start) is None:
        check_adapter(config)
    return plan_run(config)


def plan_json(plan: RunPlan) -> dict[str, Any]:
    """Return the whole plan as JSON values: every field of the records, and some of their properties."""
    values: dict[str, Any] = _plain(plan)
    values["fits"] = plan.fits
    values["model"]["parameters"]["total"] = plan.model.parameters.total
    values["batches"]["completions"] = plan.batches.completions
    values["memory"]["disk_bytes"] = plan.memory.disk_bytes
    return values


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        found = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        if isinstance(value, MemoryUse):
            found |= {"total_bytes": value.total_bytes, "excess_bytes": value.excess_bytes}
        return found
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def plan_text(plan: RunPlan) -> str:
    """Return the plan as aligned text of about 60 lines."""
    sections: list[tuple[str, Iterable[str]]] = [
        ("", textwrap.wrap(headline(plan), WIDTH, subsequent_indent="  ", break_on_hyphens=False)),
        ("placement", _placement(plan)),
        ("a step", _batches(plan)),
        ("data", _data(plan)),
        ("rewards", _rewards(plan.routing)),
        ("memory", _memory(plan.memory)),
        (
            "time (estimated from the assumptions below, not measured on a GPU)",
            _seconds(plan.seconds) if plan.seconds else _text("unknown, because the kind of GPU is not known"),
        ),
        ("findings", _findings(plan.findings)),
    ]
    return "\n\n".join("\n".join([title, *lines] if title else lines) for title, lines in sections) + "\n"


def headline(plan: RunPlan) -> str:
    """Return a one-line summary: model, GPUs, machines, and whether the run fits."""
    errors = sum(finding.severity == "error" for finding in plan.findings)
    fits = "fits, but run_dir holds a run of other settings" if plan.refusal else "fits"
    verdict = fits if plan.fits else f"does not fit ({some(errors, 'error')}, see findings)"
    gpus = some(plan.needs.gpus, "GPU") if plan.needs.gpus else some(plan.needs.cpus, "CPU actor")
    where = f" on {some(len(plan.layout.machines), 'machine')}" if plan.layout else ""
    model = f"{plan.model.name}, {count(plan.model.parameters.total)} parameters"
    return f"{model}: {gpus}{where}, {plan.layout_name}: {verdict}"


def _line(label: str, text: str) -> Iterator[str]:
    """Yield a label and its text, wrapped and indented."""
    start, after = f"  {label:<{LABEL}}", " " * (LABEL + 2)
    if len(start) > LABEL + 2:
        start += " "
    yield from textwrap.wrap(
        text, WIDTH, initial_indent=start, subsequent_indent=after, break_long_words=False, break_on_hyphens=False
    )


def _text(text: str) -> Iterator[str]:
    """Yield wrapped text without a label."""
    yield from textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)


def _placement(plan: RunPlan) -> Iterator[str]:
    if plan.layout is None:
        yield from _text(f"needs {some(plan.needs.gpus, 'GPU')} and {some(plan.needs.cpus, 'core')}; see findings")
        return
    for where, what in placement_rows(plan.layout, plan.tensor_parallel):
        yield from _line(where, what)


def _batches(plan: RunPlan) -> Iterator[str]:
    batches, lengths = plan.batches, plan.lengths
    yield from _line(
        "groups",
        f"{batches.groups:,} x {batches.group_size} = {batches.completions:,} completions, "
        f"{some(batches.updates, 'update')} of {batches.groups_per_update:,} groups"
        + ("" if batches.epochs is None else f"; all steps together make {batches.epochs:.3g} epochs"),
    )
    prompt = "measured" if lengths.are_measured else "assumed"
    yield from _line(
        "tokens",
        f"prompt {lengths.prompt:,.0f} ({prompt}; at most {lengths.prompt_most:,}), completion "
        f"{lengths.completion:,.0f} (assumed; at most {lengths.completion_most:,}); "
        f"{count(batches.completion_tokens)} sampled per step",
    )
    yield from _line(
        "learner rank",
        f"{batches.groups_per_rank} groups per step; an update processes {_share(batches.expected)}, at most "
        f"{_share(batches.at_most)}; a prompt is computed once per "
        + ("group" if batches.prefix_sharing else "completion"),
    )
    yield from _line(
        "in flight",
        f"at most {batches.groups_in_flight:,} groups, {batches.completions_per_engine:,} completions per engine; all "
        f"engines together decode {batches.engine_capacity:,} at once where their caches suffice",
    )


def _share(share: RankShare) -> str:
    batches = share.num_micro_batches
    return f"{count(share.num_tokens)} tokens in {batches} micro-batch{'' if batches == 1 else 'es'}"


def _data(plan: RunPlan) -> Iterator[str]:
    if plan.prompts is None:
        yield from _text(plan.data.note)
        return
    prompts = plan.prompts
    measured = f"measured by {prompts.measured_by}" if prompts.measured_by else "not measured"
    others = f"of {prompts.num_rows + prompts.num_others:,} " if prompts.num_others else ""
    yield from _line("rows", f"{prompts.num_rows:,} {others}in {plan.data.train}; lengths {measured}")
    if prompts.prompts is not None:
        yield from _histogram(prompts.prompts)
    if prompts.images is not None:
        text = f"{_summary(prompts.images)}; {prompts.images_per_prompt:.3g} images per prompt"
        yield from _line("image tokens", text)
    if not prompts.outliers:
        yield from _line("left out", "none")
    for outlier in prompts.outliers:
        text = f"{outlier.num_rows:,}: {REASONS[outlier.reason]}"
        yield from _line("left out" if outlier.is_refused else "cut", text)


def _histogram(histogram: Histogram) -> Iterator[str]:
    highest = max(histogram.counts)
    for index, number in enumerate(histogram.counts):
        low, high = histogram.edges[index], histogram.edges[index + 1] - 1
        bar = "#" * max(1 if number else 0, round(BAR * number / highest))
        yield f"  {f'{low:,} to {high:,}' if index else f'up to {high:,}':<{LABEL}}{number:>9,} {bar}".rstrip()
    yield from _line("prompt tokens", _summary(histogram))


def _summary(values: Histogram) -> str:
    return (
        f"mean {values.mean:,.0f}, median {values.middle:,}, 99th percentile {values.high:,}, maximum {values.most:,}"
    )


def _rewards(routing: RoutingPlan) -> Iterator[str]:
    if any(route.num_rows is None for route in routing.routes):
        routes = ", ".join(f"{route.task} -> {route.function}" for route in routing.routes)
        yield from _text(f"no rows to count yet; by task: {routes}")
        return
    for route in routing.routes:
        weights = f"{route.task_weight:g} x {route.function} + {route.format_weight:g} x format"
        yield from _line(route.task, f"{route.num_rows:>9,} {weights}")
    for row in routing.unrouted:
        yield from _line(row.task, f"{some(row.num_rows, 'row')} of {row.source}: no reward function")


def _memory(memory: MemoryPlan) -> Iterator[str]:
    for use in memory.devices:
        yield from _use(use)
    yield from _hosts(memory.hosts)
    cache = "unknown: the engine's GPU is not known, or its workers cannot split the model as the settings say"
    if memory.cache is not None:
        cache = (
            f"{memory.cache.num_tokens:,} tokens per engine, {memory.cache.num_whole_sequences:,} sequences of full "
            "length"
        )
    yield from _line("cache", cache)
    yield from _line(
        "disk",
        f"{size(memory.checkpoint_bytes)} per checkpoint, at most {memory.num_checkpoints} kept; exported model "
        f"{size(memory.export_bytes)}; {size(memory.disk_bytes)} in total",
    )


def _use(use: MemoryUse) -> Iterator[str]:
    limit = "" if use.limit_bytes is None else f" of {size(use.limit_bytes)}"
    over = f", {size(use.excess_bytes)} too much" if use.excess_bytes else ""
    yield f"  {use.place}: {size(use.total_bytes)}{limit}{over}"
    least = SMALL_SHARE * use.total_bytes
    large = [f"{item.name} {size(item.bytes)}" for item in use.items if item.bytes >= least]
    rest = sum(item.bytes for item in use.items if item.bytes < least)
    yield from _line("", "; ".join([*large, *([f"rest {size(rest)}"] if rest else [])]))


def _seconds(plan: SecondsPlan) -> Iterator[str]:
    for phase in plan.phases:
        yield from _line(phase.name, f"{seconds(phase.seconds)}: {phase.how}")
    yield from _line(
        "total",
        f"rollout {seconds(plan.rollout_s)}, learner {seconds(plan.train_s)}, new weights {seconds(plan.publish_s)}; "
        f"a step {seconds(plan.step_s)}, all steps {seconds(plan.run_s)}",
    )
    yield from _line("bound by", f"{BOUND_WORDS[plan.bound]}: {plan.advice}")
    yield from _line("plan.assume", ", ".join(f"{key}={value:g}" for key, value in plan.assumptions.items()))


def _findings(findings: Sequence[Finding]) -> Iterator[str]:
    if not findings:
        yield from _text("none")
    for finding in findings:
        yield from _line(finding.severity, finding.line)


def _hosts(uses: Sequence[MemoryUse]) -> Iterator[str]:
    """Yield the machine with the highest use, and the range of the others."""
    if not uses:
        return
    fullest, *others = sorted(uses, key=lambda use: -use.total_bytes)
    yield from _use(fullest)
    if others:
        most, least = size(others[0].total_bytes), size(others[-1].total_bytes)
        each = "the other machine" if len(others) == 1 else f"each of the other {len(others)} machines"
        yield from _text(f"{each}: {least}" + (f" to {most}" if most != least else ""))


def placement_rows(layout: Layout, tensor_parallel: int) -> Iterator[tuple[str, str]]:
    """Yield (where, what) of every actor: a row for each kind of machine, then one for each role on it."""
    for machines in _alike(layout):
        first, last = machines[0], machines[-1]
        machine = layout.machines[first]
        name = machine.name if first == last else _names(machine.name, layout.machines[last].name)
        yield name, _describe(machine) + (" each" if first != last else "")
        for role in ROLE_NAMES:
            actors = [actor for actor in layout.of(role) if actor.machine in machines]
            if actors:
                yield _role_row(role, actors, len(machines), tensor_parallel)


def _names(first: str, last: str) -> str:
    """Return `node 0-7` for machines that are numbered, and both names otherwise."""
    (head, _, number), (other, _, final) = first.rpartition(" "), last.rpartition(" ")
    return f"{head} {number}-{final}" if head == other and (number + final).isdigit() else f"{first} to {last}"


def _role_row(
    role: ActorRole, actors: Sequence[PlacedActor], num_machines: int, tensor_parallel: int
) -> tuple[str, str]:
    gpus = sorted({gpu for actor in actors for gpu in actor.gpus})
    what = f"{ROLE_NAMES[role]}{'' if len(actors) == 1 else 's'} {_spans([actor.index for actor in actors])}"
    if num_machines > 1:
        what += f", {len(actors) / num_machines:g} per machine"
    if role == "engine" and gpus:
        what += f", tensor parallel {tensor_parallel}"
    return f"  GPU {_spans(gpus)}" if gpus else "  cores", what


def _spans(numbers: Sequence[int]) -> str:
    """Return numbers as ranges, such as `0-3, 8-11`."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(span(*run) for run in runs)


def _describe(machine: Machine) -> str:
    kind = f" of kind {machine.gpu}" if machine.gpu else ""
    gpus = f"{some(machine.gpus, 'GPU')}{kind}, " if machine.gpus else ""
    return f"{gpus}{some(machine.cpus, 'core')}, {machine.memory_bytes / GIB:,.0f} GiB of memory"


def _alike(layout: Layout) -> list[list[int]]:
    """Group the indices of consecutive machines that have the same hardware and the same actors."""
    found: list[tuple[object, list[int]]] = []
    for index, machine in enumerate(layout.machines):
        own = sorted((actor.role, actor.gpus) for actor in layout.actors if actor.machine == index)
        kind = (machine.gpus, machine.gpu, machine.cpus, machine.memory_bytes, own)
        if found and found[-1][0] == kind:
            found[-1][1].append(index)
        else:
            found.append((kind, [index]))
    return [indices for _, indices in found]
