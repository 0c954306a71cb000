"""Linters, types and import contracts are part of the default suite."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

CHECKS = {
    "lint": ["ruff", "check", "."],
    "format": ["ruff", "format", "--check", "."],
    "types": ["mypy"],
    "imports": ["lint-imports"],
}


@pytest.mark.parametrize("name", CHECKS)
def test_house_rule_holds(name: str) -> None:
    tool, *arguments = CHECKS[name]
    done = subprocess.run([BIN / tool, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        (
            "orchestration.loop orchestration.train.buffer orchestration.train.draws orchestration.train.steps "
            "orchestration.workers.dispatch orchestration.workers.tickets orchestration.storage.run_folder",
            "torch vllm ray",
        ),
        (
            "orchestration.storage.faults orchestration.settings.errors orchestration.cluster.local_ray",
            "torch vllm ray transformers hydra",
        ),
        (
            "orchestration.settings.experiment rollout.config learner.config rewards",
            "torch vllm ray transformers hydra",
        ),
        ("orchestration.cluster.layout orchestration.cluster.process", "torch vllm ray transformers hydra"),
        ("rollout.records learner.records rewards.core.base orchestration.cli", "torch vllm ray transformers hydra"),
        (
            "orchestration.plan.dataset orchestration.plan.seconds orchestration.data.plan",
            "torch vllm ray transformers hydra",
        ),
    ],
)
def test_light_modules_stay_light(modules: str, absent: str) -> None:
    code = f"""
import importlib, sys
for name in {modules.split()!r}:
    importlib.import_module(name)
found = [name for name in {absent.split()!r} if name in sys.modules]
sys.exit(f"imported: {{found}}" if found else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", ["conf", "learner", "orchestration", "rewards", "rollout"])
def test_package_names_resolve_to_this_project(package: str) -> None:
    module = __import__(package)
    assert Path(str(module.__file__)).is_relative_to(ROOT)
