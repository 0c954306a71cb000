"""The extras of pyproject.toml install with pip in an empty environment; needs a package index."""

import json
import subprocess
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILT_FROM_SOURCE = {"gpu": {"antlr4-python3-runtime"}, "deepspeed": {"antlr4-python3-runtime", "deepspeed"}}
"""Packages without a wheel; both build without torch."""


@pytest.fixture(scope="module")
def pip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pip of an environment that has nothing else."""
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder, with_pip=True)
    found = folder / "bin" / "pip"
    # Older ones fetch whole wheels to read what they ask for.
    upgraded = subprocess.run([found, "install", "-q", "-U", "pip"], capture_output=True, text=True, check=False)
    if upgraded.returncode:
        pytest.skip("no package index is reached")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("extra", sorted(BUILT_FROM_SOURCE))
def test_an_extra_is_resolved_and_builds_nothing_that_needs_torch(extra: str, pip: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [pip, "install", "-q", "--dry-run", "--ignore-installed", "--report", report]
    ran = subprocess.run([*command, f"{ROOT}[{extra}]"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    found = json.loads(report.read_text())["install"]
    sources = {
        one["metadata"]["name"]
        for one in found
        if not one["download_info"]["url"].endswith(".whl") and one["metadata"]["name"] != "mixed-r1"
    }
    assert sources == BUILT_FROM_SOURCE[extra]
    assert "torch" in {one["metadata"]["name"] for one in found}
