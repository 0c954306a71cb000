"""References that no answer can earn, by source: rows that would teach nothing, found before a GPU is reserved."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestration.plan.records import Finding
from rewards.base import RewardRequest
from rewards.config import RewardConfig
from rewards.proof import ReferenceFault, ReferenceProof
from rollout.dataset import SampleTable

MOST_PROVED = 64
"""Of a source's rows, evenly over all of them: a plan takes seconds."""
COLUMNS = (
    *("task", "source", "question", "answer", "options", "answer_type"),
    *("images.list.element.width", "images.list.element.height"),
)
TOLD = {
    "unusable": "cannot be graded against",
    "not_right": "do not score 1 as answers",
    "unearned": "are earned by no plain spelling",
}


def reference_findings(config: RewardConfig, table: SampleTable, drawn: NDArray[np.int32]) -> Iterator[Finding]:
    """Prove some references of every source and yield a warning for each source with faults.

    Args:
        config: Rewards of the run; rows without a route are left out.
        table: The training rows.
        drawn: Numbers of those that the run draws from.
    """
    by_source: dict[tuple[str, str], list[int]] = defaultdict(list)
    pairs = table.tasks_and_sources()
    for index in drawn.tolist():
        if config.is_routed(*pairs[index]):
            by_source[pairs[index]].append(index)
    chosen = {pair: rows[:: -(-len(rows) // MOST_PROVED)] for pair, rows in by_source.items()}
    columns = table.arrow(*COLUMNS)
    with ReferenceProof(config) as proof:
        for (task, source), indices in sorted(chosen.items()):
            requests = map(_request, columns.take(pa.array(indices)).to_pylist())
            faults = [fault for fault in map(proof.fault, requests) if fault is not None]
            yield from _findings(f"source {source!r}, task {task}", faults, len(indices))


def _findings(where: str, faults: list[ReferenceFault], num_proved: int) -> Iterator[Finding]:
    for kind, told in TOLD.items():
        own = [fault for fault in faults if fault.kind == kind]
        if own:
            yield Finding(
                severity="warning",
                key="data.train",
                message=f"{where}: {len(own)} of {num_proved} references tried {told}, such as {own[0].detail}; "
                "mend them, or route the source to another reward (reward.rules)",
            )


def _request(row: dict[str, Any]) -> RewardRequest:
    sizes = tuple((image["width"], image["height"]) for image in row["images"])
    return RewardRequest(
        task=row["task"],
        source=row["source"],
        question=row["question"],
        response="",
        answer=row["answer"],
        options=tuple(row["options"]),
        answer_type=row["answer_type"],
        image_sizes=sizes,
        image_input_sizes=sizes,
    )
