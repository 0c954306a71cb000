"""Rewards a second on one core, by task: short answers as they come from a group of eight, through MixedReward.

python -m tests.benchmarks.bench_rewards
"""

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import random
import time

from rewards import MixedReward, RewardConfig, RewardRequest
from rewards.functions.word_table import WordTable

NUM_GROUPS = 1000
GROUP_SIZE = 8
ROUNDS = 5
COLOURS = ("red", "green", "blue", "black")


def group(task: str, generator: random.Random) -> list[RewardRequest]:
    """Make one group of requests with right, wrong and malformed answers."""
    gold, answers, options = _material(task, generator)
    return [
        RewardRequest(
            task=task,
            question="",
            response=f"<think>step {generator.random()}</think><answer>{generator.choice(answers)}</answer>",
            answer=gold,
            options=options,
            image_sizes=((640, 480),),
            image_input_sizes=((616, 476),),
            coord_mode="pixel_resized",
        )
        for _ in range(GROUP_SIZE)
    ]


def _material(task: str, generator: random.Random) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    number = generator.randint(1, 10_000)
    x, y = generator.randint(0, 300), generator.randint(0, 200)
    if task == "match_yesno":
        return generator.choice(("yes", "no")), ("yes", "No.", "Yes, it is", "maybe"), ()
    if task == "match_mcq":
        return "B", ("B", "(C)", "A. red", "the answer is green", "B or C"), COLOURS
    if task == "chart":
        return str(number), (str(number), f"{number + 1:,}", f"${number}", "no idea"), ()
    if task == "iou":
        return f"[{x}, {y}, {x + 90}, {y + 70}]", (f"[{x}, {y}, {x + 80}, {y + 70}]", "[[1, 2, 3, 4]]", "none"), ()
    gold = " ".join(generator.choices(COLOURS, k=60))
    return gold, (gold, " ".join(generator.choices(COLOURS, k=50)), "red"), ()


def main() -> None:
    """Print the best and the median round of each task."""
    generator = random.Random(0)
    words = WordTable()
    with MixedReward(RewardConfig(), words.encode, words) as rewards:
        for task in ("match_yesno", "match_mcq", "chart", "iou", "open"):
            groups = [group(task, generator) for _ in range(NUM_GROUPS)]
            rewards.score(groups[0])
            rates = []
            for _ in range(ROUNDS):
                started = time.process_time()
                for requests in groups:
                    rewards.score(requests)
                rates.append(NUM_GROUPS * GROUP_SIZE / (time.process_time() - started))
            rates.sort()
            print(f"{task:12} {60 * rates[ROUNDS // 2] / 1e6:6.2f} million a minute of CPU", end="")
            print(f" (rounds: {60 * rates[0] / 1e6:.2f} to {60 * rates[-1] / 1e6:.2f})")


if __name__ == "__main__":
    main()
