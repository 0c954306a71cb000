"""A plan as it is printed: aligned text, about a screen and a half."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from orchestration.page.formatting import count, seconds, size, some
from orchestration.plan.batches import RankShare
from orchestration.plan.lengths import Histogram
from orchestration.plan.memory import MemoryPlan
from orchestration.plan.placing import placement_rows
from orchestration.plan.plan import RunPlan
from orchestration.plan.prompts import REASONS, PromptPlan
from orchestration.plan.records import Finding, MemoryUse
from orchestration.plan.routing import RoutingPlan
from orchestration.plan.seconds import SecondsPlan

WIDTH = 120
LABEL = 16
"""Columns of what stands before the text of a line."""
BAR = 40
SMALL_SHARE = 0.04
"""Items of memory below this share of their place are told together."""


def plan_text(plan: RunPlan) -> str:
    """Give the plan as lines."""
    sections: list[tuple[str, Iterable[str]]] = [
        ("", [headline(plan)]),
        ("placement", _placement(plan)),
        ("a step", _batches(plan)),
        ("data", _data(plan)),
        ("rewards", _rewards(plan.routing)),
        ("memory", _memory(plan.memory)),
        (
            "time, estimated from the assumptions below; nothing of it was measured on a GPU",
            _seconds(plan.seconds) if plan.seconds else _text("not known: the kind of GPU is not known"),
        ),
        ("findings", _findings(plan.findings)),
    ]
    return "\n\n".join("\n".join([title, *lines] if title else lines) for title, lines in sections) + "\n"


def headline(plan: RunPlan) -> str:
    """Say in a line what it is, where, and whether it fits."""
    errors = sum(finding.severity == "error" for finding in plan.findings)
    verdict = "fits" if plan.fits else f"does not fit: {some(errors, 'error')}, at the end"
    gpus = some(plan.needs.gpus, "GPU") if plan.needs.gpus else f"{some(plan.needs.cpus, 'actor')} on cores"
    where = f" of {some(len(plan.layout.machines), 'machine')}" if plan.layout else ""
    model = f"{plan.model.name}, {count(plan.model.parameters.total)} parameters"
    return f"{model}: {gpus}{where}, {plan.layout_name}: {verdict}"


def _line(label: str, text: str) -> Iterator[str]:
    """A label and its text, broken under itself where it is long."""
    start, after = f"  {label:<{LABEL}}", " " * (LABEL + 2)
    if len(start) > LABEL + 2:
        start += " "
    yield from textwrap.wrap(
        text, WIDTH, initial_indent=start, subsequent_indent=after, break_long_words=False, break_on_hyphens=False
    )


def _text(text: str) -> Iterator[str]:
    """Text without a label."""
    yield from textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)


def _placement(plan: RunPlan) -> Iterator[str]:
    if plan.layout is None:
        yield from _text(f"needs {some(plan.needs.gpus, 'GPU')} and {some(plan.needs.cpus, 'core')}; see findings")
        return
    for row in placement_rows(plan.layout, plan.tensor_parallel):
        yield from _line(row.where, row.what)


def _batches(plan: RunPlan) -> Iterator[str]:
    batches, lengths = plan.batches, plan.lengths
    yield from _line(
        "groups",
        f"{batches.groups:,} x {batches.group_size} = {batches.completions:,} completions, "
        f"{some(batches.updates, 'update')} of {batches.groups_per_update:,} groups"
        + ("" if batches.epochs is None else f"; all steps are {batches.epochs:.3g} passes over the rows"),
    )
    prompt = "measured" if lengths.are_measured else "assumed"
    yield from _line(
        "tokens",
        f"prompt {lengths.prompt:,.0f} ({prompt}; at most {lengths.prompt_most:,}), completion "
        f"{lengths.completion:,.0f} (assumed; at most {lengths.completion_most:,}); "
        f"{count(batches.completion_tokens)} sampled a step",
    )
    yield from _line(
        "a learner rank",
        f"{batches.groups_per_rank} groups; an update feeds {_share(batches.expected)}, at most "
        f"{_share(batches.at_most)}; prompts stand once a {'group' if batches.prefix_sharing else 'completion'}",
    )
    yield from _line(
        "on their way",
        f"up to {batches.groups_in_flight:,} groups, {batches.completions_per_engine:,} completions an engine; all "
        f"engines decode {batches.engine_capacity:,} at once if their caches hold them",
    )


def _share(share: RankShare) -> str:
    micro_batches = "1 micro-batch" if share.num_micro_batches == 1 else f"{share.num_micro_batches} micro-batches"
    return f"{count(share.num_tokens)} tokens in {micro_batches}"


def _data(plan: RunPlan) -> Iterator[str]:
    if plan.prompts is None:
        yield from _text(plan.data.note)
        return
    prompts = plan.prompts
    others = f"of {prompts.num_rows + prompts.num_others:,} " if prompts.num_others else ""
    yield from _line(
        "rows", f"{prompts.num_rows:,} {others}in {plan.data.train}; lengths measured by {prompts.measured_by}"
    )
    if prompts.prompts is not None:
        yield from _histogram(prompts.prompts, plan.lengths.prompt_most)
    if prompts.images is not None:
        images = prompts.images
        yield from _line(
            "image tokens",
            f"mean {images.mean:,.0f}, half at most {images.middle:,}, 99 % at most {images.high:,}, longest "
            f"{images.most:,}; {prompts.images_per_prompt:.3g} images a prompt",
        )
    yield from _outliers(prompts)


def _histogram(histogram: Histogram, limit: int) -> Iterator[str]:
    highest = max(histogram.counts)
    for index, number in enumerate(histogram.counts):
        low, high = histogram.edges[index], histogram.edges[index + 1] - 1
        bar = "#" * max(1 if number else 0, round(BAR * number / highest))
        yield f"  {f'{low:,} to {high:,}' if index else f'up to {high:,}':<{LABEL}}{number:>9,} {bar}".rstrip()
    yield from _line(
        "prompt tokens",
        f"mean {histogram.mean:,.0f}, half at most {histogram.middle:,}, 99 % at most {histogram.high:,}, longest "
        f"{histogram.most:,}",
    )


def _outliers(prompts: PromptPlan) -> Iterator[str]:
    if not prompts.outliers:
        yield from _line("left out", "none")
    for outlier in prompts.outliers:
        yield from _line(
            "left out" if outlier.is_refused else "cut", f"{outlier.num_rows:,}: {REASONS[outlier.reason]}"
        )


def _rewards(routing: RoutingPlan) -> Iterator[str]:
    if any(route.num_rows is None for route in routing.routes):
        told = ", ".join(f"{route.task} -> {route.function}" for route in routing.routes)
        yield from _text(f"no rows to count yet; {told}")
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
    yield from _line("cache", _cache(memory))
    yield from _line(
        "disk",
        f"a checkpoint {size(memory.checkpoint_bytes)}, up to {memory.num_checkpoints} at once; exported model "
        f"{size(memory.export_bytes)}; {size(memory.disk_bytes)} in all",
    )


def _use(use: MemoryUse) -> Iterator[str]:
    limit = "" if use.limit_bytes is None else f" of {size(use.limit_bytes)}"
    over = f", {size(use.excess_bytes)} too much" if use.excess_bytes else ""
    yield f"  {use.place}: {size(use.total_bytes)}{limit}{over}"
    least = SMALL_SHARE * use.total_bytes
    told = [f"{item.name} {size(item.bytes)}" for item in use.items if item.bytes >= least]
    rest = sum(item.bytes for item in use.items if item.bytes < least)
    yield from _line("", "; ".join([*told, *([f"rest {size(rest)}"] if rest else [])]))


def _seconds(plan: SecondsPlan) -> Iterator[str]:
    for phase in plan.phases:
        yield from _line(phase.name, f"{seconds(phase.seconds)}: {phase.how}")
    yield from _line(
        "together",
        f"rollout {seconds(plan.rollout_s)}, learner {seconds(plan.train_s)}, new weights {seconds(plan.publish_s)}: a "
        f"step {seconds(plan.step_s)}, all steps {seconds(plan.run_s)}",
    )
    yield from _line("bound by", f"{BOUND_WORDS[plan.bound]}: {plan.advice}")
    yield from _line("plan.assume", ", ".join(f"{key}={value:g}" for key, value in plan.assumptions.items()))


BOUND_WORDS = {"rollout": "rollout", "learner": "the learner", "balanced": "both alike", "turns": "both in turn"}


def _findings(findings: Sequence[Finding]) -> Iterator[str]:
    if not findings:
        yield from _text("none")
    for finding in findings:
        yield from _line(finding.severity, finding.line)


def _hosts(uses: Sequence[MemoryUse]) -> Iterator[str]:
    """The fullest machine, and how full the others are."""
    if not uses:
        return
    fullest, *others = sorted(uses, key=lambda use: -use.total_bytes)
    yield from _use(fullest)
    if others:
        most, least = size(others[0].total_bytes), size(others[-1].total_bytes)
        each = "the other machine" if len(others) == 1 else f"each of the other {len(others)} machines"
        yield from _text(f"{each}: {least}" + (f" to {most}" if most != least else ""))


def _cache(memory: MemoryPlan) -> str:
    if memory.cache is None:
        return "not known: the engine's GPU is not known, or does not hold the model as the settings cut it"
    return (
        f"an engine's holds {memory.cache.num_tokens:,} tokens, {memory.cache.num_whole_sequences:,} sequences of full "
        "length"
    )
