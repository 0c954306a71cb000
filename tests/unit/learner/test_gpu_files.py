"""What runs on a GPU machine needs torch, transformers and, for an engine, vLLM; not all that a training run needs."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FILES = [*sorted((ROOT / "tests" / "gpu").glob("*.py")), *sorted((ROOT / "tests" / "benchmarks").glob("gpu_*.py"))]
ABSENT = ("ray", "flash_attn", "deepspeed", "hydra")
ENGINE = ("vllm", "rollout.engine", "learner.weight_sender")
"""Only the test of an engine imports these, and it is skipped without vLLM."""

IMPORTER = """
import importlib, importlib.machinery, json, sys, traceback
absent, folders, names = json.loads(sys.argv[1])
find = importlib.machinery.PathFinder.find_spec
importlib.machinery.PathFinder.find_spec = classmethod(
    lambda cls, name, path=None, target=None: None if name.split(".")[0] in absent else find(name, path, target)
)
sys.path[:0] = folders
for name in names:
    try:
        importlib.import_module(name)
    except ImportError:
        sys.exit(f"{name}: {traceback.format_exc(limit=-3)}")
"""


def imported(files: list[Path]) -> set[str]:
    """Modules that files import anywhere, inside functions too, and those that helpers among the tests import."""
    found: set[str] = set()
    seen: set[Path] = set()
    waiting = list(files)
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(str(node.module))
        found |= names
        places = [ROOT / f"{name.replace('.', '/')}.py" for name in names if name.startswith("tests.")]
        places += [ROOT / "tests" / "unit" / "learner" / f"{name}.py" for name in names]
        waiting += [place for place in places if place.is_file()]
    return found


@pytest.mark.slow  # it imports transformers in a fresh process, and all that a step needs
def test_gpu_tests_and_benchmarks_import_without_ray_hydra_flash_attn_and_deepspeed() -> None:
    assert len(FILES) >= 4
    names = [name for name in sorted(imported(FILES)) if not name.startswith((*ABSENT, *ENGINE))]
    assert {
        "learner.training.trainer",
        "orchestration.workers.tickets",
        "orchestration.demo.tiny_model",
        "learner_scenarios",
    } <= {*names}
    folders = [str(ROOT), str(ROOT / "tests" / "unit" / "learner")]

    done = subprocess.run(
        [sys.executable, "-c", IMPORTER, json.dumps([ABSENT, folders, [*names, *map(module_of, FILES)]])],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )

    assert done.returncode == 0, done.stderr


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)
