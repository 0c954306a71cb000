"""`mixed-r1 data build` as a user runs it: Ray tasks, a real engine that tries the rows; killed and continued."""

import json
import signal
from pathlib import Path

import pytest

from rollout.dataset import SampleTable
from tests.integration.driver import Driver
from tests.integration.tiny import save_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_tiny_model(folder)
    return folder


# An engine that tries the rows takes half a minute to start.
@pytest.mark.parametrize("is_tried", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_killed_build_leaves_nothing_behind_and_continues_where_it_was(
    tmp_path: Path, model: Path, is_tried: bool
) -> None:
    arguments = [
        "data",
        "build",
        "experiment=cpu_smoke",
        "model=qwen2_5_vl",
        f"model.path={model}",
        f"run_dir={tmp_path / 'run'}",
        f"cache_dir={tmp_path / 'cache'}",
        f"data.recipe.out={tmp_path / 'out'}",
        "data.recipe.chunk_rows=16",
        "data.recipe.sources.demo.options.num_rows=32",
        "data.recipe.sources.demo_held_out.options.num_rows=16",
        f"data.recipe.difficulty.enabled={str(is_tried).lower()}",
        "data.recipe.difficulty.num_completions=2",
    ]
    if is_tried:
        bands = "{matching: {}, chart: {}, grounding: {}, open_ended: {drop_all_wrong: false}}"
        arguments.append(f"+data.recipe.select.bands={bands}")
    killed = Driver(tmp_path, *arguments)
    killed.wait_for_any(tmp_path / "cache" / "data" / "measure", "*/info.json")
    killed.send(signal.SIGKILL)
    assert killed.finish() == -signal.SIGKILL
    assert killed.leftovers() == []
    assert not (tmp_path / "out").exists()
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "data").glob("*/*/info.json")}

    resumed = Driver(tmp_path, *arguments)
    assert resumed.finish() == 0, resumed.output
    assert resumed.leftovers() == []
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert not list((tmp_path / "cache" / "data").glob("*/*.partial-*"))
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    # The model is random: what it says is wrong, and all it says of captions is a little right.
    reasons = {entry["reason"] for entry in manifest["rejected"] if entry["stage"] == "select"}
    assert reasons <= {"all_wrong", "reference_doubted", "all_right"}
    assert ("all_wrong" in reasons) == is_tried
    assert len(SampleTable(tmp_path / "out" / "held_out")) == manifest["result"]["held_out"]["num_rows"]


def test_what_a_build_lacks_is_said_in_a_few_lines(tmp_path: Path) -> None:
    driver = Driver(
        tmp_path, "data", "build", "data=mixed_45k", f"data.recipe.raw={tmp_path}", f"run_dir={tmp_path / 'run'}",
        f"cache_dir={tmp_path / 'cache'}", "model=qwen2_5_vl", f"model.path={tmp_path}",
    )  # fmt: skip
    assert driver.finish() == 2
    assert "model.path" in driver.output
    assert "Traceback" not in driver.output
