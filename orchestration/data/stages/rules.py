"""Which code decides the rows of each stage: a version and a few packages, so that a changed rule redoes its stage.

A chunk on disk is reused where its stage's version, the code of the packages named here and the libraries that decide
its rows are the same. Comments and docstrings do not count, nor does code that only moves rows: workers, progress,
logging. Whoever changes rows in code that no stage names raises the version of the stage.
"""

import ast
import functools
import hashlib
import importlib.metadata
import json
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRules:
    """What decides the rows of one stage."""

    version: int
    """Raised by hand where rows change and no code below does."""
    code: tuple[str, ...]
    """Packages, with everything below them, or modules, by their dotted names; `orchestration.data.rows` counts for
    every stage."""
    libraries: tuple[str, ...] = ()
    """Distributions whose releases change rows."""


STAGES = {
    "read": StageRules(
        version=2,  # counts in words are numbers, as rewards read them
        code=(
            "orchestration.data.read",
            "orchestration.data.sources",
            "orchestration.demo.drawn",
            "orchestration.settings.seeds",
        ),
        libraries=("ijson", "numpy", "pillow", "pyarrow"),
    ),
    "validate": StageRules(
        version=1,
        code=("orchestration.data.validation", "rewards.envelope", "rollout.prompt"),
        libraries=("numpy", "pillow"),
    ),
    "normalise": StageRules(
        version=1, code=("orchestration.data.normalisation", "rewards"), libraries=("math-verify", "numpy")
    ),
    "deduplicate": StageRules(version=1, code=("orchestration.data.duplicates",), libraries=("numpy",)),
    "measure": StageRules(
        version=1,
        code=("orchestration.data.measure", "rollout.prompt"),
        libraries=("pillow", "tokenizers", "transformers"),
    ),
    "sample": StageRules(
        version=1,
        code=(
            "orchestration.data.sample",
            "orchestration.settings.seeds",
            "orchestration.workers.summaries",
            "rewards",
            "rollout.prompt",
            "rollout.translation",
        ),
        libraries=("math-verify", "numpy", "pillow", "tokenizers", "transformers"),
    ),
    "select": StageRules(version=1, code=("orchestration.data.selection",), libraries=("numpy",)),
    "write": StageRules(
        version=1, code=("orchestration.data.write", "rollout.dataset", "rollout.schema"), libraries=("pyarrow",)
    ),
}
"""By stage, in the order in which rows pass through them."""


@functools.cache
def stage_code(stage: str) -> str:
    """Return the digest of what decides the rows of a stage: its version, its code and its libraries."""
    rules = STAGES[stage]
    hasher = hashlib.blake2b(f"{stage} {rules.version}".encode(), digest_size=10)
    for library in rules.libraries:
        hasher.update(f"\n{library}=={_installed(library)}".encode())
    for path in stage_files(stage):
        hasher.update(f"\n{path.relative_to(ROOT)}\n{_code(path)}".encode())
    return hasher.hexdigest()


def stage_files(stage: str) -> list[Path]:
    """Return the files of a stage's code, sorted.

    Raises:
        FileNotFoundError: A package or module that a stage names does not exist.
    """
    found: set[Path] = set()
    for module in ("orchestration.data.rows", *STAGES[stage].code):
        path = ROOT.joinpath(*module.split("."))
        files = [*path.rglob("*.py"), *path.rglob("*.yaml")] if path.is_dir() else [path.with_suffix(".py")]
        found.update(files)
    missing = sorted(str(path) for path in found if not path.is_file())
    if missing:
        raise FileNotFoundError(f"stage {stage} names {', '.join(missing)}, which is not there; correct STAGES")
    return sorted(found)


def _installed(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "none"


@functools.cache
def _code(path: Path) -> str:
    """Return a file without comments, docstrings and positions: the syntax tree of Python, the values of YAML."""
    if path.suffix == ".yaml":
        return json.dumps({**yaml.safe_load(path.read_bytes()), "description": ""}, default=str)
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            # A string that stands alone does nothing, above a body as well as below a field.
            node.body = [line for line in node.body if not _is_text(line)]
    return ast.dump(tree)


def _is_text(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)
