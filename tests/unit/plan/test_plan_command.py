import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.cli import main
from tests.unit.plan.runs import GPU_RUN, NODE

HEAVY = ["torch", "vllm", "ray", "transformers", "deepspeed"]
ROOT = Path(__file__).parents[3]


def plan(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(["plan", *arguments])
    return int(left.value.code or 0)


def test_the_default_is_planned_from_end_to_end_without_heavy_libraries(tmp_path: Path) -> None:
    code = f"""
import sys
from orchestration.cli import main
try:
    main(["plan", "run_dir={tmp_path / "run"}", "cache_dir={tmp_path / "cache"}"])
except SystemExit as left:
    found = [name for name in {HEAVY!r} if name in sys.modules]
    assert not found, found
    raise
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("the demo's tiny Qwen2.5-VL, 1.08 million parameters: 3 CPU actors on 1 machine")
    assert "the first `mixed-r1 train` draws the rows" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_exit_codes_tell_what_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(*GPU_RUN, NODE) == 0
    assert plan(*GPU_RUN, NODE, "rollout.engines=5") == 3
    assert plan(*GPU_RUN, NODE, "learner.num_rank=5") == 2
    assert "did you mean learner.num_ranks" in capsys.readouterr().err


def test_json_is_all_that_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("--json", *GPU_RUN, NODE, "rollout.engines=5") == 3

    values = json.loads(capsys.readouterr().out)
    assert values["fits"] is False
    assert values["findings"][0]["severity"] == "error"
    assert values["layout"] is None


def test_data_that_is_not_there_is_told_and_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(*GPU_RUN, NODE) == 0
    assert "data.train is not set" in capsys.readouterr().out
    assert plan(*GPU_RUN, NODE, "data.train=/not/there", "data.held_out=/not/there") == 0
    assert "data.train=/not/there is not there; data.held_out=/not/there is not there" in capsys.readouterr().out
    assert plan(*GPU_RUN, NODE, "data=mixed_45k", "data.recipe.raw=/raw") == 0
    assert "recipe mixed_45k is not built" in capsys.readouterr().out
