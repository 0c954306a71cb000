"""Whatever a model writes: a finite value in range or a failure with a reason, the same one twice, quickly."""

import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rewards import MixedReward, Reason, RewardConfig, RewardRequest

CASES = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "golden" / "reward_cases.jsonl").read_text(encoding="utf-8").splitlines()
]
GOLDS = {
    "match_yesno": ("yes", "false"),
    "match_mcq": ("B", "A, C", "cat"),
    "match_text": ("Brazil", "3.5 km"),
    "chart": ("45", "2015", "12.5%", "$1.2 million", "[Brazil, 3]", "India", "0", "yes"),
    "iou": ("[0, 0, 100, 100]", "[[0, 0, 10, 10], [50, 50, 90, 90]]", "[]"),
    "open": ("A brown dog runs over the grass.", "Two men."),
}
FRAGMENTS = (
    "<think>", "</think>", "<answer>", "</answer>", "<|im_end|>", "yes", "No", "(B)", "A, C", "cat", "**B**",
    "\\boxed{",
    "}", "{", "[", "]", "(", ")", '"', "'", ",", ":", ";", "\n", " ", "\t", "- ", "45", "4.5e1", "1,234", "12%", "$",
    "1/2",
    "million", "m", "2015", "\u0661\u0662", "\u00bd", "\u2212", "\uff22", "\u200b", "\u0000", "\ud800", "\U0001f415",
    "[0, 0, 100, 100]", '{"bbox_2d": [1, 2, 3, 4], "label": "dog"}', "```json", "```", "nan", "Infinity", "1e999",
    "null",
    "true", "none", "<ref>dog</ref>", "(1,2),(3,4)", "a brown dog", "the ", "the answer is ", "option ", "\\frac{1}{2}",
    "\\text{", "$$", "or", "and", "not", "9" * 50, "<box>", "\u202e", "e\u0301", "-", "--", "+", "^", "_", "%", "\\",
)  # fmt: skip


def responses(seed: int) -> Iterator[str]:
    """Endless responses: fragments in a row, and golden responses with pieces cut, doubled, swapped and inserted."""
    generator = random.Random(seed)
    while True:
        if generator.random() < 0.5:
            body = "".join(generator.choices(FRAGMENTS, k=generator.randint(0, 24)))
            yield f"<think>a</think><answer>{body}</answer>" if generator.random() < 0.7 else body
        else:
            text = generator.choice(CASES)["response"]
            for _ in range(generator.randint(1, 4)):
                start, end = sorted(generator.randint(0, len(text)) for _ in range(2))
                piece = generator.choice(("", text[start:end] * 2, text[start:end][::-1], generator.choice(FRAGMENTS)))
                text = text[:start] + piece + text[end:]
            yield text


def requests(seed: int, tasks: tuple[str, ...]) -> Iterator[RewardRequest]:
    generator = random.Random(seed)
    for response in responses(seed):
        task = generator.choice(tasks)
        yield RewardRequest(
            task=task,
            question="",
            response=response,
            answer=generator.choice(GOLDS[task]),
            options=("dog", "cat", "red bird", "7") if task == "match_mcq" else (),
            image_sizes=((400, 300),),
            image_input_sizes=((200, 150),),
            coord_mode=generator.choice(("pixel", "pixel_resized", "norm1000", "norm1")),
            truncated=generator.random() < 0.1,
        )


def check(rewards: MixedReward, seed: int, count: int, tasks: tuple[str, ...]) -> None:
    stream = requests(seed, tasks)
    batch = [next(stream) for _ in range(count)]
    started = time.process_time()
    results = rewards.score(batch)
    seconds = time.process_time() - started
    for asked, result in zip(batch, results, strict=True):
        assert result.failure is None, (asked, result)
        assert result.reward is not None
        assert math.isfinite(result.reward)
        assert 0.0 <= result.reward <= 1.0
        assert 0.0 <= (result.task_reward or 0.0) <= 1.0
        assert result.reason in Reason
        assert sum(result.breakdown.values()) <= 2.0
    for index in range(0, count, 97):
        assert rewards.score([batch[index]])[0] == results[index], batch[index]
    assert seconds / count < 0.005, "5 ms of CPU a response on average: something is not linear"


@pytest.fixture(scope="module")
def rewards(toy) -> Iterator[MixedReward]:
    with MixedReward(RewardConfig(), *toy) as mixed:
        yield mixed


def test_generated_responses_are_scored_without_a_failure(rewards: MixedReward) -> None:
    check(rewards, seed=11, count=4_000, tasks=tuple(GOLDS))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_a_hundred_thousand_generated_responses(rewards: MixedReward, seed: int) -> None:
    check(rewards, seed=1000 + seed, count=5_000, tasks=tuple(GOLDS))


@pytest.mark.slow
def test_generated_formulas(rewards: MixedReward) -> None:
    stream = responses(7)
    batch = [
        RewardRequest(task="math", question="", response=next(stream), answer=gold)
        for gold in ("\\frac{1}{2}", "12", "x^2+1")
        for _ in range(1_000)
    ]
    for result in rewards.score(batch):
        assert result.failure is None or result.reason is Reason.GRADER_FAILED
        assert result.task_reward is None or result.task_reward in (0.0, 1.0)
