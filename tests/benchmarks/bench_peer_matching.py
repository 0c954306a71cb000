"""Seconds a row of multiple choice and yes/no, beside the rules that other libraries publish, in one process.

Each row has its own reference, so nothing is shared between rows. The rules of others are written here from their
descriptions: a tagged answer found by a pattern, then a letter or a word looked for in it. What they decide differs
(README, Known hacks); only the time is compared. `function` is the reward function on the answer's text, `whole` is
MixedReward with envelope, format and result, on the same responses the peers read.

python -m tests.benchmarks.bench_peer_matching
"""

import random
import re
import string
import time
from collections.abc import Callable, Sequence

from rewards import MixedReward, RewardConfig, RewardRequest
from rewards.config import MatchingConfig
from rewards.matching import MatchingReward

NUM_ROWS = 4000
ROUNDS = 7
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


def rows(task: str, generator: random.Random) -> list[RewardRequest]:
    """Make rows with a reference of their own each."""
    made = []
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


def seconds_a_row(score: Callable[[Sequence[RewardRequest]], object], requests: Sequence[RewardRequest]) -> float:
    """Return the best of several rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        score(requests)
        best = min(best, time.process_time() - started)
    return best / len(requests)


def main() -> None:
    """Print microseconds a row and the ratio to the fastest peer of the task."""
    generator = random.Random(0)
    function = MatchingReward(MatchingConfig())
    peers = {
        "match_mcq": (pattern_choice, token_choice, ordered_patterns_choice),
        "match_yesno": (word_yes_no, substring_yes_no),
    }
    with MixedReward(RewardConfig()) as rewards:
        for task, rules in peers.items():
            requests = rows(task, generator)
            answers = [request.response.split("<answer>")[1].removesuffix("</answer>") for request in requests]

            def grade_all(batch: Sequence[RewardRequest], answers: Sequence[str] = answers) -> None:
                for request, answer in zip(batch, answers, strict=True):
                    function.grade(request, (answer,))

            times = {
                rule.__name__: seconds_a_row(lambda batch, rule=rule: [rule(request) for request in batch], requests)
                for rule in rules
            }
            fastest = min(times.values())
            times |= {"function": seconds_a_row(grade_all, requests), "whole": seconds_a_row(rewards.score, requests)}
            for name, seconds in times.items():
                print(f"{task:12} {name:24} {1e6 * seconds:6.2f} us a row, {seconds / fastest:4.1f} x the fastest peer")


if __name__ == "__main__":
    main()
