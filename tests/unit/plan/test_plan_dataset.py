from pathlib import Path

import pytest

from orchestration.data import command
from orchestration.demo.families import FAMILIES
from orchestration.demo.tiny_model import make_tiny_model
from orchestration.inputs.dataset import locate
from orchestration.plan.plan import plan_run
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig
from tests.unit.data.building import build, plan
from tests.unit.plan.runs import settings

FEW_ROWS = (
    "data.recipe.chunk_rows=16",
    "data.recipe.sources.demo.options.num_rows=48",
    "data.recipe.sources.demo_held_out.options.num_rows=16",
    "data.recipe.shards.rows_per_shard=20",
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the demo's recipe was built with a model that stands beside it."""
    root = tmp_path_factory.mktemp("built")
    make_tiny_model(root / "model", FAMILIES["qwen2_5_vl"], corpus=["where is the red oval?"] * 3, seed=0)
    build(plan(root / "model", root, "data.recipe.out=null"), is_tried=False)
    return root


def run(root: Path, *overrides: str) -> ExperimentConfig:
    folders = (f"run_dir={root / 'run'}", f"cache_dir={root / 'cache'}", f"model.path={root / 'model'}")
    return settings(*folders, *FEW_ROWS, *overrides)


def test_a_built_recipe_is_found_and_read(built: Path) -> None:
    found = plan_run(run(built))

    assert found.data.train is not None
    assert found.data.train.is_relative_to(built / "cache" / "data" / "built")
    assert found.data.held_out is not None
    assert found.prompts is not None
    assert found.prompts.measured_by == "the data engine, when the dataset was built"
    assert 0 < found.prompts.num_rows <= 48
    assert sum(route.num_rows or 0 for route in found.routing.routes) == found.prompts.num_rows
    assert found.lengths.are_measured


def test_a_recipe_of_other_settings_is_not_the_one_that_was_built(built: Path) -> None:
    located = locate(run(built, "seed=5"))

    assert located.train is None
    assert "the first `mixed-r1 train` draws the rows" in located.note


def test_another_dataset_in_the_recipe_s_place_is_told(built: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "manifest.json").write_text('{"key": "of something else"}')

    located = locate(run(built, f"data.recipe.out={out}"))

    assert located.train is None
    assert "holds a dataset of other settings" in located.note


def test_a_result_that_cannot_be_written_is_refused_before_a_row_is_read(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    monkeypatch.setattr(command, "_build", lambda *_: pytest.fail("rows are read"))

    with pytest.raises(ConfigError, match=r"data\.recipe\.out=.*/file/x cannot be written"):
        command.build_from_config(run(built, f"data.recipe.out={file / 'x'}"), built / "model")
