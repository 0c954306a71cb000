"""Microseconds a row of four reward functions beside the rules that other libraries publish, in one run.

Each row has its own reference, so nothing is shared between rows. The rules of others are written here from their
descriptions: a tagged answer found by a pattern, then a letter, a word, a number or a box looked for in it. What they
decide differs (README, Known hacks), and none reads units, hedges, several boxes or frames; only the time is compared.
`function` is the reward function on the answer's text, `whole` is MixedReward with envelope, format and result, on the
same responses the peers read. Rounds of all are interleaved, and the best of each counts.

python -m tests.benchmarks.bench_peers
"""

import json
import random
import re
import string
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from rewards import MixedReward, RewardConfig, RewardRequest
from rewards.core.base import RewardFunction
from rewards.core.config import ChartConfig, GroundingConfig, MatchingConfig
from rewards.functions.chart import ChartReward
from rewards.functions.grounding import GroundingReward
from rewards.functions.matching import MatchingReward

NUM_ROWS = 4000
ROUNDS = 15
WORDS = ("copper", "silver", "river bank", "red bird", "a tall tower", "12", "3.5 cm", "north", "glass", "no effect")
SPELLINGS = (("{label}", 12), ("({label})", 2), ("{label}.", 2), ("{label}. {text}", 3), ("The answer is {label}.", 1))
"""What trained models write, by how often."""
YES_NO = (("Yes", 6), ("No", 6), ("yes.", 2), ("No, there is no {text}.", 1), ("Yes, it is {text}.", 1))

_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_LETTER_WITH_MARK = re.compile(r"([A-Z])(?=[.,?!:;]|$)")
_LETTER_AFTER_WORD = re.compile(r"(?:answer|option|choice)\s*(?:is|:)?\s*\(?([A-Z])\)?", re.IGNORECASE)
_LETTER_IN_BRACKETS = re.compile(r"\(([A-Z])\)")
_LONE_LETTER = re.compile(r"\b([A-Z])\b")


def pattern_choice(request: RewardRequest) -> float:
    """Compare the letter before a mark or the end, as VLM-R1 describes it, on both sides."""
    found = _TAGGED.search(request.response)
    answer = found[1].strip() if found is not None else request.response.strip()
    letters = _LETTER_WITH_MARK.findall(answer.upper())
    gold = _LETTER_WITH_MARK.findall(request.answer.upper())
    return float(bool(letters) and bool(gold) and letters[-1] == gold[-1])


def token_choice(request: RewardRequest) -> float:
    """Count option letters among the tokens, then look for one option's text, as VLMEvalKit describes it."""
    found = _TAGGED.search(request.response)
    answer = found[1].strip() if found is not None else request.response.strip()
    split = answer
    for mark in ".()[],:;!*#{}":
        split = split.replace(mark, " ")
    tokens = split.split()
    labels = string.ascii_uppercase[: len(request.options)]
    named = [label for label in labels if label in tokens]
    if len(named) == 1:
        return float(named[0] == request.answer)
    lowered = answer.lower()
    by_text = [label for label, option in zip(labels, request.options, strict=True) if option.lower() in lowered]
    return float(len(by_text) == 1 and by_text[0] == request.answer)


def ordered_patterns_choice(request: RewardRequest) -> float:
    """Try patterns from the most to the least certain, as lmms-eval describes it."""
    found = _TAGGED.search(request.response)
    answer = found[1].strip() if found is not None else request.response.strip()
    for pattern in (_LETTER_AFTER_WORD, _LETTER_IN_BRACKETS, _LONE_LETTER):
        letter = pattern.search(answer)
        if letter is not None:
            return float(letter[1].upper() == request.answer)
    return 0.0


def word_yes_no(request: RewardRequest) -> float:
    """Look for yes or no among lower-case words without marks, as VLMEvalKit describes it."""
    found = _TAGGED.search(request.response)
    answer = (found[1] if found is not None else request.response).lower()
    for mark in ".,!?:;":
        answer = answer.replace(mark, " ")
    words = answer.split()
    label = "yes" if "yes" in words and "no" not in words else "no" if "no" in words and "yes" not in words else ""
    return float(label == request.answer.lower())


def substring_yes_no(request: RewardRequest) -> float:
    """Search both words in the tagged answers of both sides, as VLM-R1 describes it."""
    found = _TAGGED.search(request.response)
    answer = (found[1].strip() if found is not None else request.response.strip()).lower()
    sides = []
    for text in (answer, request.answer.lower()):
        match = re.search(r"(yes|no)", text)
        sides.append(match[1] if match is not None else "")
    return float(sides[0] == sides[1])


def relaxed_accuracy(request: RewardRequest) -> float:
    """Return 1 within 5 % of a number, or for equal texts (ChartQA's relaxed accuracy, Masry et al., 2022)."""
    answer = request.response.partition("<answer>")[2].removesuffix("</answer>")
    predicted, target = _number(answer), _number(request.answer)
    if predicted is not None and target:
        return float(abs(predicted - target) / abs(target) <= 0.05)
    return float(answer.lower() == request.answer.lower())


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        return None


def single_iou(request: RewardRequest) -> float:
    """Return the IoU of two boxes in JSON, as VLM-R1 describes it."""
    found = _TAGGED.search(request.response)
    if found is None:
        return 0.0
    left, right = json.loads(found[1]), json.loads(request.answer)
    width = max(0.0, min(left[2], right[2]) - max(left[0], right[0]))
    height = max(0.0, min(left[3], right[3]) - max(left[1], right[1]))
    areas = (left[2] - left[0]) * (left[3] - left[1]) + (right[2] - right[0]) * (right[3] - right[1])
    return float(width * height / (areas - width * height))


def matching_rows(task: str, generator: random.Random) -> list[RewardRequest]:
    """Make rows of multiple choice or yes/no."""
    made: list[RewardRequest] = []
    for _ in range(NUM_ROWS):
        options = tuple(generator.sample(WORDS, generator.choice((4, 5, 10)))) if task == "match_mcq" else ()
        spellings = SPELLINGS if options else YES_NO
        place = generator.randrange(len(options) or 1)
        form = generator.choices([spelling for spelling, _ in spellings], [weight for _, weight in spellings])[0]
        answer = form.format(label=string.ascii_uppercase[place], text=options[place] if options else "glass")
        gold = string.ascii_uppercase[generator.randrange(len(options))] if options else generator.choice(("yes", "no"))
        thought = " ".join(generator.choices(WORDS, k=20))
        made.append(
            RewardRequest(
                task=task,
                question="",
                response=f"<think>{thought}</think>\n<answer>{answer}</answer>",
                answer=gold,
                options=options,
                source=str(len(made)),  # so that no two rows are one group
            )
        )
    return made


def chart_rows(generator: random.Random) -> list[RewardRequest]:
    """Make rows of numbers: right, wrong, in percent, with commas, and none."""
    made = []
    for _ in range(NUM_ROWS):
        number = generator.randint(1, 100_000) / generator.choice((1, 10, 100))
        answer = generator.choice((f"{number:g}", f"{number * 1.2:g}", f"{number:g}%", f"{number:,.1f}", "no idea"))
        made.append(_request("chart", answer, f"{number:g}"))
    return made


def box_rows(generator: random.Random) -> list[RewardRequest]:
    """Make rows of one box each."""
    made = []
    for _ in range(NUM_ROWS):
        x, y = generator.randint(0, 300), generator.randint(0, 200)
        made.append(_request("iou", f"[{x}, {y}, {x + 80}, {y + 70}]", f"[{x}, {y}, {x + 90}, {y + 70}]"))
    return made


def _request(task: str, answer: str, gold: str) -> RewardRequest:
    response = f"<think>.</think><answer>{answer}</answer>"
    return RewardRequest(task=task, question="", response=response, answer=gold, image_sizes=((640, 480),))


def best_us(works: Mapping[str, Callable[[], object]], num_rows: int) -> dict[str, float]:
    """Return the microseconds a row of each work: the best of rounds in which all take turns."""
    best = dict.fromkeys(works, float("inf"))
    for _ in range(ROUNDS):
        for name, work in works.items():
            started = time.process_time()
            work()
            best[name] = min(best[name], (time.process_time() - started) / num_rows * 1e6)
    return best


def main() -> None:
    """Print microseconds a row and the ratio to the fastest peer of the task."""
    generator = random.Random(0)
    matching = MatchingReward(MatchingConfig())
    tasks: tuple[tuple[list[RewardRequest], RewardFunction, tuple[Callable[[RewardRequest], float], ...]], ...] = (
        (matching_rows("match_mcq", generator), matching, (pattern_choice, token_choice, ordered_patterns_choice)),
        (matching_rows("match_yesno", generator), matching, (word_yes_no, substring_yes_no)),
        (box_rows(generator), GroundingReward(GroundingConfig()), (single_iou,)),
        (chart_rows(generator), ChartReward(ChartConfig()), (relaxed_accuracy,)),
    )
    with MixedReward(RewardConfig()) as rewards:
        for requests, function, rules in tasks:
            answers = [request.response.split("<answer>")[1].removesuffix("</answer>") for request in requests]
            works: dict[str, Callable[[], object]] = {
                rule.__name__: partial(_apply, rule, requests) for rule in rules
            } | {
                "function": partial(_grade_all, function, list(zip(requests, answers, strict=True))),
                "whole": partial(rewards.score, requests),
            }
            times = best_us(works, len(requests))
            fastest = min(times[rule.__name__] for rule in rules)
            for name, microseconds in times.items():
                ratio = f"{microseconds / fastest:4.1f} x the fastest peer"
                print(f"{requests[0].task:12} {name:24} {microseconds:6.2f} us a row, {ratio}")


def _apply(rule: Callable[[RewardRequest], float], requests: Sequence[RewardRequest]) -> None:
    for request in requests:
        rule(request)


def _grade_all(function: RewardFunction, pairs: Sequence[tuple[RewardRequest, str]]) -> None:
    for request, answer in pairs:
        function.grade(request, (answer,))


if __name__ == "__main__":
    main()
