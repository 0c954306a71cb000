"""Which code makes what: a digest of everything a stage imports, so that a changed rule is never answered from disk."""

import ast
import functools
import hashlib
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
OWN_PACKAGES = ("orchestration", "rewards", "rollout")
LIBRARIES = ("numpy", "pillow", "pyarrow")
HERE = "orchestration.data"
STAGES = {
    "read": (f"{HERE}.stages.read",),
    "validate": (f"{HERE}.checking.validate",),
    "normalise": (f"{HERE}.checking.normalise", f"{HERE}.checking.verify"),
    "deduplicate": (f"{HERE}.duplicates.deduplicate",),
    "measure": (f"{HERE}.stages.measure",),
    "sample": (f"{HERE}.stages.sample", "rewards.mixed", "rollout.engine"),
    "select": (f"{HERE}.selection.select",),
    "write": (f"{HERE}.stages.write", f"{HERE}.publish"),
}
"""The modules that a stage begins with; what they import of ours is found."""


@functools.cache
def stage_code(stage: str) -> str:
    """Give the digest of a stage's code and of the libraries under it."""
    hasher = hashlib.blake2b(digest_size=10)
    for library in LIBRARIES:
        hasher.update(f"{library}=={importlib.metadata.version(library)}".encode())
    for path in sorted(closure(STAGES[stage])):
        hasher.update(str(path.relative_to(ROOT)).encode())
        hasher.update(path.read_bytes())
    return hasher.hexdigest()


def closure(modules: tuple[str, ...]) -> set[Path]:
    """Give the files of some modules and of everything of ours that they import, at whatever depth."""
    found: set[Path] = set()
    waiting = list(modules)
    while waiting:
        path = _file_of(waiting.pop())
        if path is not None and path not in found:
            found.add(path)
            waiting.extend(_imports(path))
    return found


@functools.cache
def _imports(path: Path) -> tuple[str, ...]:
    """Names of modules that a file imports, those inside of functions and from packages included."""

    def names() -> Iterator[str]:
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module
                yield from (f"{node.module}.{alias.name}" for alias in node.names)

    return tuple(name for name in names() if name.split(".")[0] in OWN_PACKAGES)


def _file_of(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    if path.with_suffix(".py").is_file():
        return path.with_suffix(".py")
    return path / "__init__.py" if (path / "__init__.py").is_file() else None
