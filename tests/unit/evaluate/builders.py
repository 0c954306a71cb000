"""Rows for the tests of the evaluation."""

import json
from pathlib import Path
from typing import Any

from orchestration.workers.answers import Completion, EvaluatedSample

GOLDEN = Path(__file__).parents[2] / "golden" / "evaluate"
FUNCTIONS = {
    "match_yesno": "matching",
    "match_mcq": "matching",
    "chart": "chart",
    "iou": "grounding",
    "open": "open_ended",
    "math": "math",
}


def tagged(body: str) -> str:
    return f"<think>t</think><answer>{body}</answer>"


def completion(value: float | None = 1.0, **changes: Any) -> Completion:
    values: dict[str, Any] = {
        "text": tagged("4"),
        "reward": None if value is None else 0.1 + 0.9 * value,
        "task_reward": value,
        "format_reward": 1.0,
        "reason": "ok",
        "parsed_answer": "4",
        "num_tokens": 10,
        "truncated": False,
    }
    return Completion(**{**values, **changes})


def sample(name: str, value: float | None = 1.0, **changes: Any) -> EvaluatedSample:
    values: dict[str, Any] = {
        "sample_id": name,
        "source": "unit/a",
        "task": "chart",
        "question": "How tall is red?",
        "answer": "4",
        "greedy": completion(value),
    }
    values.update(changes)
    if "function" not in values:
        values["function"] = FUNCTIONS[values["task"]]
    return EvaluatedSample(**values)


def golden_rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (GOLDEN / f"{name}.jsonl").read_text().splitlines()]
