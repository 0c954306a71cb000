"""Verdicts on prompts and completions: same tokens and images on both sides, same logprobs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import TypeVar

from orchestration.check.facts import (
    TOLERANCE,
    Expectations,
    PromptFacts,
    Row,
    SampledFacts,
    ScoreFacts,
    judged,
    outliers,
    placed,
    shortened,
)
from orchestration.page.formatting import some
from rewards.core.base import RewardRequest
from rewards.functions.grounding import GroundingReward
from rollout.records import EncodedPrompt

T = TypeVar("T")
WORST_FACTOR = 10.0
"""A single completion may be so much further away."""
TELLING_FACTOR = 3.0
"""A cause counts as ruled out only if it changes the logprobs by so many tolerances."""
FLAT_VALUES = 3
"""An image of no more different values is one colour: its pixels were lost. Those of the check have hundreds."""
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
    ELSEWHERE: "fix these first",
}


def template_row(prompts: Sequence[PromptFacts]) -> Row:
    """Judge whether both sides use one chat template."""
    found = {template: who for one in prompts for who, template in _by_side(one, lambda prompt: prompt.template)}
    return judged(
        "chat template",
        "; ".join(f"{who}: {template}" for template, who in found.items()) if len(found) > 1 else "",
        otherwise=next(iter(found)),
        expected="one on both sides",
        remedy="engines and learner read different copies of model.path: share one",
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
    return judged(
        "prompt tokens",
        shortened(faults),
        otherwise=f"{some(len(prompts), 'prompt')} of {min(lengths)} to {max(lengths)} tokens",
        expected="the same ids on both sides",
        remedy="compare tokenizer and chat template of the copies of model.path",
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
    return judged(
        "pictures",
        shortened(faults),
        otherwise=f"{some(num, 'picture')}, pixels equal to the bit",
        expected="the same sizes, order and pixels",
        remedy="both sides must use one processor: compare versions and preprocessor_config.json",
    )


def frame_row(prompts: Sequence[PromptFacts], expected: Expectations) -> Row:
    """Judge whether boxes that a model of this family writes are read in the frame in which it writes them."""
    faults, remedy = [], "the prompt's own resize and the processor's differ: compare versions"
    if expected.coord_mode != expected.family_frame:
        faults.append(f"boxes are read as {expected.coord_mode}")
        remedy = f"set model.coord_mode={expected.family_frame}"
    overlaps = []
    for one in prompts:
        for who, (pictures, sizes) in _by_side(one, lambda prompt: (prompt.pictures, prompt.input_sizes)):
            for original, picture, stated in zip(one.image_sizes, pictures, sizes, strict=False):
                seen = _seen_size(picture.grid, stated, expected.patch_side)
                if stated != seen:
                    faults.append(f"{one.name}: {who} says {stated[0]}x{stated[1]}, the model sees {seen[0]}x{seen[1]}")
                overlaps.append(_box_overlap(original, seen, stated, expected))
    if overlaps and min(overlaps) < 0.99 and not faults:
        faults.append(f"a box comes back with an IoU of {min(overlaps):.2f}")
    return judged(
        "box frame",
        shortened(faults),
        otherwise=f"{expected.coord_mode}, boxes come back with an IoU of 1",
        expected=f"{expected.family_frame}, of the size that the model sees",
        remedy=remedy,
    )


def _seen_size(grid: tuple[int, ...], stated: tuple[int, int], patch_side: int | None) -> tuple[int, int]:
    """Return (width, height) of an image after the resize; of tiles, the stated size, as their frame has no pixels."""
    return stated if patch_side is None or len(grid) != 3 else (grid[2] * patch_side, grid[1] * patch_side)


def _box_overlap(
    original: tuple[int, int], seen: tuple[int, int], stated: tuple[int, int], expected: Expectations
) -> float:
    """Return the IoU that the reward gives to a box which the model writes exactly."""
    box = [original[0] / 5, original[1] / 4, original[0] / 2, original[1] / 1.25]
    frame = {"pixel_resized": seen, "norm1000": (1000, 1000), "norm1": (1, 1), "pixel": original}[expected.family_frame]
    written = [value / original[axis % 2] * frame[axis % 2] for axis, value in enumerate(box)]
    request = RewardRequest(
        task="iou",
        question="",
        response="",
        answer=str(box),
        image_sizes=(original,),
        image_input_sizes=(stated,),
        coord_mode=expected.coord_mode,
    )
    [grade] = GroundingReward(expected.grounding).grade(request, [str(written)])
    return float(grade.value or 0.0)


def sampled_row(sampled: Sequence[SampledFacts]) -> Row:
    """Judge whether an engine has sampled a placeholder of an image."""
    faults = [f"engine {one.engine}, {one.prompt}: {shortened(one.banned)}" for one in sampled if one.banned]
    return judged(
        "sampled tokens",
        shortened(faults),
        otherwise=f"{sum(one.num_tokens for one in sampled):,} tokens, no placeholder",
        expected="no placeholder of a picture",
        remedy="engines must ban them: see rollout/placeholders.py",
    )


def speed_row(sampled: Sequence[SampledFacts], places: Mapping[str, str]) -> Row:
    """Judge the speed of engines on the same prompts."""
    by_engine = {
        engine: min(one.seconds for one in sampled if one.engine == engine)
        for engine in {one.engine for one in sampled}
    }
    slow = outliers(by_engine)
    return judged(
        "engine speed",
        "; ".join(f"{placed('engine', i, places)} takes {by_engine[i]:.2f} s" for i in slow),
        otherwise=f"{min(by_engine.values()):.2f} to {max(by_engine.values()):.2f} s a group",
        expected=f"{len(by_engine)} alike" if len(by_engine) > 1 else "any",
        remedy="look at that machine: clocks, temperature, other jobs",
    )


def score_rows(scores: Sequence[ScoreFacts], expected: Expectations, *, others_agree: bool) -> Iterator[Row]:
    """Judge logprobs of engines and learner, prompt by prompt, and name the fault that would explain a difference.

    `others_agree` says whether weights, tokens and images are the same on both sides.
    """
    limit = TOLERANCE[expected.dtype]
    is_text_wrong = any(_is_off(one, limit) for one in scores if one.prompt == "text")
    for prompt in dict.fromkeys(one.prompt for one in scores):
        own = [one for one in scores if one.prompt == prompt]
        off = [one for one in own if _is_off(one, limit)]
        wrong = [one for one in off if one.to_others] or off  # causes are measured under the last weights
        values = [value for one in own for value in one.difference]
        effects = {what: median(values) for one in own for what, values in one.effects.items()}
        silent = sorted(what for what, effect in effects.items() if effect < TELLING_FACTOR * limit)
        what, found = f"logprobs, {prompt}", f"median {median(values):.1e}, worst {max(values):.1e}"
        wanted = f"median {limit:g}, worst {WORST_FACTOR * limit:g}"
        if wrong:
            otherwise = ELSEWHERE if not others_agree else ATTENTION if is_text_wrong else POSITIONS
            causes = dict.fromkeys(explanation(one, limit) or otherwise for one in wrong)
            yield judged(
                what,
                f"engine {shortened(dict.fromkeys(str(one.engine) for one in wrong))}: {found}: {'; '.join(causes)}",
                otherwise="",
                expected=wanted,
                remedy="; ".join(dict.fromkeys(REMEDIES[cause] for cause in causes)),
            )
        elif silent:
            hidden = ", ".join(CAUSES[one] for one in silent)
            found, remedy = f"{found}; not conclusive: {hidden} would not show", "the model hardly reads its pictures; "
            yield Row(what=what, found=found, expected=wanted, verdict="open", remedy=remedy + "take a trained one")
        else:
            yield Row(what=what, found=found, expected=wanted, verdict="ok")


def _is_off(one: ScoreFacts, limit: float) -> bool:
    """Return whether an engine's logprobs are not the learner's; NaN counts as different."""
    return not (median(one.difference) <= limit and max(one.difference) <= WORST_FACTOR * limit)


def explanation(one: ScoreFacts, limit: float) -> str | None:
    """Return the cause under which the learner's logprobs equal the engine's; None where none does."""
    distances = {what: median(values) for what, values in one.to_others.items()}
    best = min(distances, key=lambda what: distances[what], default=None)
    if best is None or not distances[best] <= max(limit, 0.2 * median(one.difference)):
        return None
    return CAUSES[best]


def _by_side(one: PromptFacts, part: Callable[[EncodedPrompt], T]) -> Iterator[tuple[str, T]]:
    for kind, side in (("engine", one.engines), ("rank", one.ranks)):
        for index, prompt in enumerate(side):
            yield f"{kind} {index}", part(prompt)
