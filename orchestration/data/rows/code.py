"""Which rules made what: a version and a few modules for each stage; a changed rule is never answered from disk.

A chunk on disk is taken up where its stage's version, the code of the modules named here and the libraries that decide
its rows are the same. Comments and docstrings do not count, nor does code that only moves rows about: placement, pools,
progress, logging. Whoever changes rows in a module that no stage names raises the version of the stage.
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

HERE = "orchestration.data"
ROWS = (f"{HERE}.rows.records", f"{HERE}.rows.tables", f"{HERE}.rows.reasons", f"{HERE}.rows.chunks")
"""What a row is, and how it is written between two stages."""
CHECKED = (*ROWS, f"{HERE}.stages.row_stages")
REWARDS = ("rewards",)
"""What reads references and answers, and grades them."""
PROMPT = ("rollout.prompt",)
"""What a prompt is: turns, markers, pictures and their tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRules:
    """What decides the rows of one stage."""

    version: int
    """Raised by hand where rows change and no module below does."""
    modules: tuple[str, ...]
    """Modules, or packages with all of their modules, by their dotted names."""
    libraries: tuple[str, ...] = ()
    """Distributions whose releases change rows."""


STAGES = {
    "read": StageRules(
        version=2,  # counts in words are numbers, as rewards read them
        modules=(
            *ROWS,
            *(f"{HERE}.stages.read", f"{HERE}.sources", f"{HERE}.rows.files"),
            *("orchestration.demo.captions", "orchestration.demo.charts", "orchestration.demo.drawing"),
            *("orchestration.demo.grounding", "orchestration.demo.matching", "orchestration.demo.samples"),
            *("orchestration.demo.scenes", "orchestration.demo.tasks", "orchestration.settings.seeds"),
        ),
        libraries=("ijson", "numpy", "pillow", "pyarrow"),
    ),
    "validate": StageRules(
        version=1,
        modules=(
            *CHECKED,
            *(f"{HERE}.checking.validate", f"{HERE}.checking.images"),
            *(f"{HERE}.checking.containers", f"{HERE}.duplicates.fingerprints"),
            *("rewards.envelope", *PROMPT),
        ),
        libraries=("numpy", "pillow"),
    ),
    "normalise": StageRules(
        version=1,
        modules=(
            *CHECKED,
            *(f"{HERE}.checking.normalise", f"{HERE}.checking.options"),
            *(f"{HERE}.checking.boxes", f"{HERE}.checking.verify"),
            *REWARDS,
        ),
        libraries=("math-verify", "numpy"),
    ),
    "deduplicate": StageRules(version=1, modules=(*ROWS, f"{HERE}.duplicates"), libraries=("numpy",)),
    "measure": StageRules(
        version=1,
        modules=(*CHECKED, f"{HERE}.stages.measure", *PROMPT),
        libraries=("pillow", "tokenizers", "transformers"),
    ),
    "sample": StageRules(
        version=1,
        modules=(
            *(*ROWS, *PROMPT, *REWARDS),
            *(
                f"{HERE}.stages.sample",
                "orchestration.workers.summaries",
                "orchestration.settings.seeds",
                "rollout.translation",
            ),
        ),
        libraries=("math-verify", "numpy", "pillow", "tokenizers", "transformers"),
    ),
    "select": StageRules(version=1, modules=(*ROWS, f"{HERE}.selection"), libraries=("numpy",)),
    "write": StageRules(
        version=1,
        modules=(*ROWS, f"{HERE}.stages.write", "rollout.schema", "rollout.dataset"),
        libraries=("pyarrow",),
    ),
}
"""By stage, in the order in which rows pass through them."""


@functools.cache
def stage_code(stage: str) -> str:
    """Return the digest of what decides the rows of a stage: its version, its modules' code and its libraries."""
    rules = STAGES[stage]
    hasher = hashlib.blake2b(f"{stage} {rules.version}".encode(), digest_size=10)
    for library in rules.libraries:
        hasher.update(f"\n{library}=={_installed(library)}".encode())
    for path in stage_files(stage):
        hasher.update(f"\n{path.relative_to(ROOT)}\n{_code(path)}".encode())
    return hasher.hexdigest()


def stage_files(stage: str) -> list[Path]:
    """Return the files of a stage's modules, sorted; those of a package are all below it.

    Raises:
        FileNotFoundError: a module that a stage names is not there.
    """
    found: set[Path] = set()
    for module in STAGES[stage].modules:
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
