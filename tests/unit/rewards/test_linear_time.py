"""No text may stall a reward: inputs up to 100 kB, built to defeat backtracking patterns, stay under 50 ms of CPU."""

import time

import pytest

from rewards import MixedReward, RewardConfig, RewardRequest

LIMIT_S = 0.05
SIZE = 100_000
SEEDS = {
    "boxes": "{[1,2,3,4]}",
    "json_boxes": '{"bbox_2d": [1, 2, 3, 4], "label": "a"}, ',
    "open_brackets": "[",
    "brackets": "[(",
    "digits": "9",
    "groups": "1,234,",
    "spaces": " ",
    "newlines": "\n",
    "stars": "**",
    "backslashes": "\\text{",
    "quotes": "\"'",
    "tags": "<think></think><answer>",
    "answers": "</answer><answer>",
    "closings": "</think>",
    "end_of_turn": "<|im_end|>",
    "mixed_end_of_turn": "<|im_end|> </s>",
    "words": "the quick brown fox ",
    "yes": "yes ",
    "labels": "A, B. ",
    "dollars": "$ ",
    "minus": "- ",
    "fences": "```",
    "wide": "\uff22\u00bd\u00b2",
}
TASKS = {
    "match_yesno": "yes",
    "match_mcq": "A, C",
    "match_text": "a",
    "chart": "[1, 2]",
    "iou": "[[0, 0, 9, 9], [3, 3, 9, 9]]",
    "open": "a brown dog runs over the grass",
}


@pytest.fixture(scope="module")
def rewards(toy) -> MixedReward:
    mixed = MixedReward(RewardConfig(), *toy)
    warm = [
        RewardRequest(task=task, question="", response=respond(gold, len(gold)), answer=gold)
        for task, gold in TASKS.items()
        if task != "match_mcq"
    ]
    mixed.score(warm)
    return mixed


def respond(seed: str, size: int) -> str:
    body = (seed * (size // len(seed) + 1))[:size]
    return f"<think>a</think><answer>{body}</answer>"


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("seed", SEEDS)
def test_long_hostile_text_is_scored_in_linear_time(rewards: MixedReward, task: str, seed: str) -> None:
    # Up to 19 kB reach the parsers behind the caps; 100 kB meets the envelope and the caps.
    for size in (250, 9_000, 19_000, SIZE):
        for response in (respond(SEEDS[seed], size), SEEDS[seed] * (size // len(SEEDS[seed]))):
            request = RewardRequest(
                task=task,
                question="",
                response=response,
                answer=TASKS[task],
                options=("a", "b", "c", "d") if task == "match_mcq" else (),
            )
            start = time.process_time()
            result = rewards.score([request])[0]
            elapsed = time.process_time() - start
            assert result.reward is not None
            assert 0.0 <= result.reward <= 1.0
            if elapsed > LIMIT_S:
                start = time.process_time()
                rewards.score([request])
                elapsed = time.process_time() - start
            assert elapsed < LIMIT_S, (task, seed, size)
