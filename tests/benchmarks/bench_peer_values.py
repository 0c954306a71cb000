"""Chart numbers and boxes against the rules of peers, in one process and one run: microseconds a row, and the ratio.

The peers' rules are written anew from their published descriptions: ChartQA's relaxed accuracy, and one IoU of two JSON
boxes. Neither reads units, hedges, several boxes or frames. `function` is the reward function on the answer's text,
`whole` is MixedReward with envelope, format and result, on the same responses the peers read.

python -m tests.benchmarks.bench_peer_values
"""

import json
import random
import re
import time
from collections.abc import Callable, Sequence
from functools import partial

from rewards import MixedReward, RewardConfig, RewardRequest
from rewards.base import RewardFunction
from rewards.chart import ChartReward
from rewards.config import ChartConfig, GroundingConfig
from rewards.grounding import GroundingReward

NUM_ROWS = 4000
ROUNDS = 7
_ANSWER = re.compile(r"<answer>(.*)</answer>", re.DOTALL)


def relaxed_accuracy(answer: str, gold: str) -> float:
    """Give 1 within 5 % of a number, or for equal texts (Masry et al., 2022)."""
    predicted, target = _number(answer), _number(gold)
    if predicted is not None and target:
        return float(abs(predicted - target) / abs(target) <= 0.05)
    return float(answer.lower() == gold.lower())


def single_iou(response: str, gold: str) -> float:
    """Give the IoU of two boxes in JSON."""
    match = _ANSWER.search(response)
    if match is None:
        return 0.0
    left, right = json.loads(match[1]), json.loads(gold)
    width = max(0.0, min(left[2], right[2]) - max(left[0], right[0]))
    height = max(0.0, min(left[3], right[3]) - max(left[1], right[1]))
    areas = (left[2] - left[0]) * (left[3] - left[1]) + (right[2] - right[0]) * (right[3] - right[1])
    return float(width * height / (areas - width * height))


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        return None


def _chart_rows(generator: random.Random) -> list[RewardRequest]:
    rows = []
    for _ in range(NUM_ROWS):
        number = generator.randint(1, 100_000) / generator.choice((1, 10, 100))
        answer = generator.choice((f"{number:g}", f"{number * 1.2:g}", f"{number:g}%", f"{number:,.1f}", "no idea"))
        rows.append(_request("chart", answer, f"{number:g}"))
    return rows


def _box_rows(generator: random.Random) -> list[RewardRequest]:
    rows = []
    for _ in range(NUM_ROWS):
        x, y = generator.randint(0, 300), generator.randint(0, 200)
        rows.append(_request("iou", f"[{x}, {y}, {x + 80}, {y + 70}]", f"[{x}, {y}, {x + 90}, {y + 70}]"))
    return rows


def _request(task: str, answer: str, gold: str) -> RewardRequest:
    response = f"<think>.</think><answer>{answer}</answer>"
    return RewardRequest(task=task, question="", response=response, answer=gold, image_sizes=((640, 480),))


def _best_us(work: Callable[[], object], num_rows: int) -> float:
    times = []
    for _ in range(ROUNDS):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times) / num_rows * 1e6


def main() -> None:
    """Print one line a task."""
    generator = random.Random(0)
    chart, boxes = _chart_rows(generator), _box_rows(generator)

    def relaxed(rows: Sequence[RewardRequest]) -> None:
        for row in rows:
            relaxed_accuracy(row.response.partition("<answer>")[2].removesuffix("</answer>"), row.answer)

    def single(rows: Sequence[RewardRequest]) -> None:
        for row in rows:
            single_iou(row.response, row.answer)

    functions: dict[str, RewardFunction] = {
        "chart": ChartReward(ChartConfig()),
        "iou": GroundingReward(GroundingConfig()),
    }
    with MixedReward(RewardConfig()) as rewards:
        for name, rows, peer in (("chart", chart, relaxed), ("iou", boxes, single)):
            answers = [row.response.partition("<answer>")[2].removesuffix("</answer>") for row in rows]
            grade, pairs = functions[name].grade, list(zip(rows, answers, strict=True))
            theirs = _best_us(partial(peer, rows), len(rows))
            works: dict[str, Callable[[], object]] = {
                "function": partial(_grade_all, grade, pairs),
                "whole": partial(rewards.score, rows),
            }
            for what, work in works.items():
                ours = _best_us(work, len(rows))
                print(f"{name:6} {what:9} {ours:6.2f} us a row, peer {theirs:5.2f} us, ratio {ours / theirs:.1f}")


def _grade_all(grade: Callable[..., object], pairs: Sequence[tuple[RewardRequest, str]]) -> None:
    for request, answer in pairs:
        grade(request, (answer,))


if __name__ == "__main__":
    main()
