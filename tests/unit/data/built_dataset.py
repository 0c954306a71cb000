"""A small recipe and the tally of its build, for the tests of manifest and page."""

from typing import Any

from orchestration.data.manifest import Shard, Tally, build_manifest
from orchestration.data.plan import SourcePlan
from orchestration.data.sources.base import Licence
from orchestration.data.sources.rows import Candidate, Rejected, RejectReason, StoredImage
from orchestration.settings.recipe import BandConfig, RecipeConfig, SelectConfig, SourceConfig
from rollout.records import Difficulty

STAGES = ("read", "deduplicate", "select")


def recipe(**changes: Any) -> RecipeConfig:
    return RecipeConfig(
        name="small",
        seed=1,
        sources={
            "charts": SourceConfig(adapter="chartqa", quota=10),
            "boxes": SourceConfig(adapter="refcoco"),
            "bench": SourceConfig(adapter="jsonl", role="guard"),
        },
        select=SelectConfig(quotas={"chart": 2, "grounding": 3}, bands={"chart": BandConfig(min_mean=0.2)}),
        **changes,
    )


def image(width: int = 200, height: int = 100) -> StoredImage:
    return StoredImage(
        sha256="a", size_bytes=9, width=width, height=height, dhash="", thumbnail="", image_id="", chunk="r/0", index=0
    )


def candidate(task: str, answer: str, **changes: Any) -> Candidate:
    fields: dict[str, Any] = {
        "sample_id": "s",
        "source": "charts/human",
        "source_id": "1",
        "role": "train",
        "license": "cc-by-4.0",
        "question": "How many?",
        "stem": "How many?",
        "images": (image(),),
        "prompt_tokens": 100,
    }
    return Candidate(task=task, answer=answer, **{**fields, **changes})


def difficulty(mean: float) -> Difficulty:
    return Difficulty(
        num_completions=8, mean=mean, std=0.3, min=0.0, max=1.0, pass_rate=mean, format_rate=1.0, agreement=0.5
    )


def rejected(source_id: str, reason: RejectReason = RejectReason.DUPLICATE, **changes: Any) -> Rejected:
    fields: dict[str, Any] = {
        "stage": "deduplicate",
        "source": "charts/human",
        "source_id": source_id,
        "role": "train",
        "reason": reason,
        "detail": f"detail {source_id}",
        "question": "How many?",
    }
    return Rejected(**{**fields, **changes})


def filled_tally() -> Tally:
    """Seven chart rows of which four go and three are written, one of boxes, one guard row."""
    tally = Tally()
    for stage, num_rows in (("read", 7), ("deduplicate", 7), ("select", 3)):
        tally.enter(stage, "train", "charts/human", num_rows)
        tally.enter(stage, "train", "boxes")
    tally.enter("read", "guard", "bench")
    for source_id in ("9", "2", "7"):
        tally.reject(rejected(source_id))
    tally.reject(rejected("5", RejectReason.LEAKED_IMAGE))
    for mean, answer_type in ((0.5, "year"), (0.3, "number"), (1.0, "number")):
        row = candidate("chart", "3", answer_type=answer_type, difficulty=difficulty(mean), stratum="medium")
        tally.measure(row, "chart")
        if mean < 1.0:
            tally.select(row, "chart")
    tally.reject(rejected("8", RejectReason.ALL_RIGHT, stage="select"))
    tally.select(candidate("iou", "[[0, 0, 100, 50], [0, 0, 20, 10]]", source="boxes"), "grounding")
    return tally


def manifest(tally: Tally | None = None, settings: RecipeConfig | None = None, **changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "stages": STAGES,
        "code": {"package": "0.1.0", "commit": None, "digest": "d1"},
        "shards": [Shard(name="train/0.parquet", role="train", num_rows=3, size_bytes=7, sha256="f2")],
        "times": {"read_s": 1.0},
    }
    settings = settings or recipe()
    charts = SourcePlan(
        name="charts",
        config=settings.sources["charts"],
        licence=Licence(name="gpl-3.0", note=""),
        tasks=(),
        files={"train.json": "f1"},
    )
    return build_manifest(settings, [charts], tally=tally or filled_tally(), **{**fields, **changes})
