"""Every kind of broken row ends in quarantine under its own reason, and nothing else does."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from orchestration.cli import compose
from orchestration.data.manifest import rejection_lines
from orchestration.data.plan import plan_build
from orchestration.settings.experiment import build_settings
from rollout.dataset import SampleTable
from tests.tiny_models import make_tiny_model
from tests.unit.data.building import build
from tests.unit.data.faults import FAULTS, GOOD, HELD_OUT, write_source

MAPPING = (
    "{id: id, task: task, question: question, answer: 'answer?', options: options, images: 'images?', "
    "boxes: 'boxes?', answer_type: answer_type}"
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("planted")
    write_source(root)
    make_tiny_model(root / "model", corpus=["how tall is the bar?"] * 3)
    config = build_settings(
        compose(
            [
                f"run_dir={root / 'run'}",
                f"cache_dir={root / 'cache'}",
                f"data.recipe.out={root / 'out'}",
                f"data.recipe.raw={root / 'raw'}",
                "~data.recipe.sources.demo",
                "~data.recipe.sources.demo_held_out",
                *source("planted", "train"),
                *source("bench", "held_out"),
                *source("kept_back", "guard"),
                "data.recipe.limits.max_pixels=2000000",
                "data.recipe.limits.max_image_bytes=300000",
                "data.recipe.limits.max_question_chars=2000",
                "rollout.engine.max_images_per_prompt=8",
                "rollout.engine.max_model_len=512",
            ]
        )
    )
    build(plan_build(config, root / "model"), is_tried=False)
    return root


def source(name: str, role: str) -> list[str]:
    options = f"{{files: [{role}.jsonl], mapping: {MAPPING}}}"
    return [
        f"+data.recipe.sources.{name}={{adapter: jsonl, path: planted, role: {role}, options: {options}}}",
    ]


@pytest.fixture(scope="module")
def found(root: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """source_id -> (reason, quarantine entry), from the chunks of all stages."""
    entries = [
        json.loads(line)
        for path in (root / "cache" / "data").glob("*/*/rejected.jsonl")
        for line in path.read_text().splitlines()
    ]
    return {entry["source_id"]: (entry["reason"], entry) for entry in entries}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_under_its_reason(name: str, found: dict[str, tuple[str, dict[str, Any]]]) -> None:
    row, reason = FAULTS[name]
    place = 1 + len(GOOD) + list(FAULTS).index(name)
    # What cannot be read has no id of its own, and is named by its line.
    found_reason, entry = found[f"train/{place}" if reason == "missing_field" else row["id"]]
    assert found_reason == reason, entry
    assert entry["detail"]
    assert len(entry["question"]) <= 200


def test_the_good_rows_and_no_others_are_written(root: Path) -> None:
    train, held_out = SampleTable(root / "out" / "train"), SampleTable(root / "out" / "held_out")
    assert [train[i].source_id for i in range(len(train))] == [row["id"] for row in GOOD]
    assert [held_out[i].source_id for i in range(len(held_out))] == [row["id"] for row in HELD_OUT]


def test_the_manifest_counts_every_fault_with_an_example(root: Path) -> None:
    manifest = json.loads((root / "out" / "manifest.json").read_text())
    counts = Counter({entry["reason"]: entry["count"] for entry in manifest["rejected"]})
    wanted = Counter(reason for _, reason in FAULTS.values())
    assert counts == wanted + Counter(["broken_file"])  # the last line, which is cut off
    assert all(1 <= len(entry["examples"]) <= 3 for entry in manifest["rejected"])
    assert {entry["source"] for entry in manifest["funnel"]} == {"planted", "bench", "kept_back"}
    steps = next(entry["stages"] for entry in manifest["funnel"] if entry["source"] == "planted")
    assert steps[0]["in"] == len(FAULTS) + len(GOOD) + 1
    assert steps[-1]["out"] == len(GOOD)
    lines = rejection_lines(root / "out")
    assert len(lines) == len(manifest["rejected"])
    assert sum(int(line.split()[1]) for line in lines) == counts.total()
    assert any(line.startswith("planted: 1 rows at normalise, ") for line in lines), lines
