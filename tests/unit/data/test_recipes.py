"""The recipes of conf/data: every one composes, and the large one builds from what downloads look like."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from orchestration.cli import compose
from orchestration.data.plan import FileDigests, plan_build, plan_sources
from orchestration.settings.errors import DataError
from orchestration.settings.experiment import build_settings, settings_errors
from orchestration.settings.recipe import BandConfig
from rewards.core.config import FUNCTIONS
from rollout.dataset import SampleTable
from tests.tiny_models import make_tiny_model
from tests.unit.data.building import build

GOLDEN = Path(__file__).parents[2] / "golden" / "sources"
DOWNLOADS = {
    "ChartQA": "chartqa",
    "PlotQA": "plotqa",
    "DVQA": "dvqa",
    "aokvqa": "aokvqa",
    "ScienceQA": "scienceqa",
    "ai2d": "ai2d",
    "CLEVR_v1.0": "clevr",
    "TallyQA": "tallyqa",
    "geometry3k": "geometry3k",
    "coco": "coco_detection",
    "docci": "docci",
}
"""Folder that the recipe names -> fixture in the raw form of that download."""

ABSENT = (
    "geoqa", "refcoco", "refcocoplus", "refcocog", "chartqa_val", "aokvqa_val", "geometry3k_val", "refcoco_val",
    "chartqa_test", "mmmu", "refcoco_test_a", "refcoco_test_b", "refcocog_test",
)  # fmt: skip


def test_the_45k_recipe_adds_up() -> None:
    recipe = build_settings(compose(["data=mixed_45k", "data.recipe.raw=/raw"])).data.recipe
    assert recipe is not None
    assert sum(recipe.select.quotas.values()) == 45_000
    assert set(recipe.select.bands) == set(recipe.select.quotas)
    assert {source.role for source in recipe.sources.values()} == {"train", "held_out", "guard"}


def test_the_45k_recipe_builds_from_raw_downloads(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    for name, fixture in DOWNLOADS.items():
        (tmp_path / "raw" / name).symlink_to(GOLDEN / fixture)
    make_tiny_model(tmp_path / "model", corpus=["how tall is the bar?"] * 3)
    config = build_settings(
        compose(
            [
                "data=mixed_45k",
                f"data.recipe.raw={tmp_path / 'raw'}",
                f"data.recipe.out={tmp_path / 'out'}",
                f"run_dir={tmp_path / 'run'}",
                f"cache_dir={tmp_path / 'cache'}",
                "data.recipe.limits.min_side=4",
                "data.recipe.difficulty.enabled=false",
                "rollout.engine.max_model_len=4096",
                "rollout.engine.max_images_per_prompt=4",
                *(f"~data.recipe.sources.{name}" for name in ABSENT),
            ]
        )
    )
    build(plan_build(config, tmp_path / "model"), is_tried=False)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    train = SampleTable(tmp_path / "out" / "train")
    rows = [train[index] for index in range(len(train))]

    assert {row.source.split("/")[0] for row in rows} == {
        "chartqa", "plotqa", "dvqa", "aokvqa", "scienceqa", "ai2d", "clevr", "tallyqa", "geometry3k", "coco", "docci",
    }  # fmt: skip
    assert set(manifest["result"]["train"]["by"]["function"]) == {
        "matching", "chart", "grounding", "open_ended", "math",
    }  # fmt: skip
    assert all(entry["missing"] > 0 for entry in manifest["quotas"] if entry["kind"] == "function")
    lettered = next(row for row in rows if row.task == "match_mcq")
    assert "A. " in lettered.question
    assert lettered.answer in "ABCDEF"
    assert all(row.license for row in rows)


def test_missing_downloads_are_named_together(tmp_path: Path) -> None:
    recipe = build_settings(compose(["data=mixed_45k", f"data.recipe.raw={tmp_path}"])).data.recipe
    assert recipe is not None
    with pytest.raises(DataError) as error:
        plan_sources(recipe, tmp_path, FileDigests(tmp_path / "files.json"))
    for name in recipe.sources:
        assert f"~data.recipe.sources.{name}" in str(error.value)
    assert "qa_pairs_v1.json" in str(error.value)


@pytest.mark.parametrize("key", ["quotas", "bands"])
def test_every_reward_function_may_have_a_quota_and_a_band(key: str) -> None:
    value: Any = 5 if key == "quotas" else dataclasses.asdict(BandConfig())
    values = compose(["reward.functions.mine=mine.py:score", "reward.routes.chart={chart: 0.7, mine: 0.3}"])
    for name in (*FUNCTIONS, "mine", "chart+mine"):
        values["data"]["recipe"]["select"] = {key: {name: value}}
        assert not list(settings_errors(build_settings(values), is_for_training=False))
    values["data"]["recipe"]["select"] = {key: {"maths": value}}
    [error] = settings_errors(build_settings(values), is_for_training=False)
    assert str(error).startswith(f"data.recipe.select.{key} names maths; reward functions are matching, chart")
