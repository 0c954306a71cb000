"""How a stage runs over chunks, and which code determines its rows, so that changed code runs the stage again.

A chunk on disk is reused if the version of its stage, the code named here and the libraries that determine its rows are
the same. Comments and docstrings do not count, nor does code that only moves rows: workers, progress, logging. Raise
the version of a stage after a change of rows in code that the stage does not name.
"""

import ast
import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from orchestration.data.chunks import Chunk, ChunkWriter, digest_of
from orchestration.data.sources.rows import EXCERPT_CHARS, Refused, Rejected
from rollout.records import readable

ROOT = Path(__file__).parents[2]

ROWS = ("orchestration.data.chunks", "orchestration.data.sources.rows")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRules:
    """Version, code and libraries that determine the rows of one stage."""

    version: int
    """Raised by hand if rows change and the code below does not."""
    code: tuple[str, ...]
    """Dotted names of packages (with all their modules) or modules; those of ROWS count for every stage."""
    libraries: tuple[str, ...] = ()
    """Distributions whose versions can change rows."""


STAGES = {
    "read": StageRules(
        version=2,  # counts in words are numbers, as rewards read them
        code=(
            "orchestration.data.hold_out",
            "orchestration.data.links",
            "orchestration.data.read",
            "orchestration.data.sources",
            "orchestration.demo.drawn",
            "orchestration.settings.seeds",
        ),
        libraries=("numpy", "pillow", "pyarrow"),
    ),
    "validate": StageRules(
        version=1,
        code=(
            "conf.pictures",
            "orchestration.data.images",
            "orchestration.data.validate",
            "rewards.core.envelope",
            "rollout.conversation",
            "rollout.prompt",
        ),
        libraries=("numpy", "pillow"),
    ),
    "normalise": StageRules(
        version=1,
        code=(
            "orchestration.data.normalise",
            "orchestration.data.options",
            "orchestration.data.sources.answers",
            "orchestration.data.sources.question_options",
            "rewards",
        ),
        libraries=("math-verify", "numpy"),
    ),
    "filter": StageRules(version=1, code=("orchestration.data.filter",)),
    "deduplicate": StageRules(
        version=1,
        code=("orchestration.data.bands", "orchestration.data.deduplicate", "orchestration.data.row_index"),
        libraries=("numpy",),
    ),
    "measure": StageRules(
        version=1,
        code=("orchestration.data.measure", "rollout.conversation", "rollout.prompt"),
        libraries=("pillow", "tokenizers", "transformers"),
    ),
    "sample": StageRules(
        version=1,
        code=(
            "orchestration.data.sample",
            "orchestration.settings.seeds",
            "orchestration.workers.summaries",
            "rewards",
            "rollout.conversation",
            "rollout.prompt",
            "rollout.translation",
        ),
        libraries=("math-verify", "numpy", "pillow", "tokenizers", "transformers"),
    ),
    "select": StageRules(version=1, code=("orchestration.data.select",), libraries=("numpy",)),
    "write": StageRules(version=1, code=("orchestration.data.publish", "rollout.dataset"), libraries=("pyarrow",)),
}
"""By stage, in the order in which rows pass through them."""


@functools.cache
def stage_code(stage: str) -> str:
    """Return the digest of a stage's version, code and libraries."""
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
    for module in (*ROWS, *STAGES[stage].code):
        path = ROOT.joinpath(*module.split("."))
        files = [*path.rglob("*.py"), *path.rglob("*.yaml")] if path.is_dir() else [path.with_suffix(".py")]
        found.update(files)
    missing = sorted(str(path) for path in found if not path.is_file())
    if missing:
        raise FileNotFoundError(f"stage {stage} names {', '.join(missing)}, which does not exist; correct STAGES")
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
        described = yaml.safe_load(path.read_bytes())
        return json.dumps({name: {**values, "description": ""} for name, values in described.items()}, default=str)
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            # A bare string is a docstring, of a body or of a field.
            node.body = [line for line in node.body if not _is_text(line)]
    return ast.dump(tree)


def _is_text(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)


Advance = Callable[[int], None]
"""Called with the number of rows finished since the last call."""
RowStep = Callable[[dict[str, Any]], dict[str, Any]]
"""Returns the values of a row for the next stage, or raises Refused."""
Verdict = Refused | dict[str, Any]
"""Why a row is rejected, or the values of it that change; a row without a verdict is unchanged."""
Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]
"""Applies a function to items in worker processes and yields the results in order; reads only a few items ahead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowStage:
    """A stage that takes one row at a time; pickled to the workers."""

    name: str
    key: Any
    """JSON values of everything besides the rows that determines the result."""
    opened: Callable[[Chunk, ChunkWriter], AbstractContextManager[RowStep]]
    """Context manager of the function that is applied to each row of a chunk."""


def run_chunk(stage: RowStage, store: Path, folder: Path) -> Chunk:
    """Run a stage over the chunk in a folder and return the result; a finished result is reused."""
    source = Chunk.of(folder)
    target = result_folder(store, stage.name, stage.key, source)
    done = Chunk.open(target)
    if done is not None:
        return done
    writer = ChunkWriter(target)
    with stage.opened(source, writer) as step:
        for values in source.rows():
            try:
                writer.add(step(values))
            except Refused as refusal:
                settle(writer, stage.name, values, refusal)
    return writer.finish(source.origin)


def settle(writer: ChunkWriter, stage: str, values: dict[str, Any], verdict: Verdict) -> None:
    """Write a row, raw or canonical, with its changed values, or as rejected."""
    if not isinstance(verdict, Refused):
        writer.add({**values, **verdict})
        return
    row = values.get("row", values)
    writer.reject(
        Rejected(
            stage=stage,
            source=values["source"],
            source_id=row["source_id"][:EXCERPT_CHARS],
            role=values["role"],
            reason=verdict.reason,
            detail=verdict.detail[:EXCERPT_CHARS],
            question=readable(row["question"][:EXCERPT_CHARS]),
            said=verdict.said,
        )
    )


def run_stage(stage: RowStage, chunks: Sequence[Chunk], store: Path, run: Map, advance: Advance) -> list[Chunk]:
    """Run a stage over all chunks, several at a time, and return the results in order."""
    results = []
    made = run(partial(run_chunk, stage, store), [chunk.folder for chunk in chunks])
    for chunk, result in zip(chunks, made, strict=True):
        advance(chunk.num_rows)
        results.append(result)
    return results


def result_folder(store: Path, stage: str, key: Any, chunk: Chunk) -> Path:
    """Return the folder of the result of a stage over a chunk."""
    return store / stage / digest_of(key, chunk.folder.parent.name, chunk.folder.name, chunk.digest)


def sift(
    stage: str, key: Any, chunks: Sequence[Chunk], store: Path, verdicts: Callable[[], Iterator[tuple[int, Verdict]]]
) -> list[Chunk]:
    """Run a stage that needs all rows before it can decide on any.

    Args:
        stage: Name of the stage.
        key: JSON values of its settings and code.
        chunks: In the order in which rows are numbered.
        store: Folder of all chunks.
        verdicts: Returns (row number, verdict) pairs in ascending order; called only if a result is missing.
    """
    whole = digest_of(key, *((chunk.folder.name, chunk.digest) for chunk in chunks))
    folders = [store / stage / f"{whole}-{number:06d}" for number in range(len(chunks))]
    found = [Chunk.open(folder) for folder in folders]
    if all(found):
        return [chunk for chunk in found if chunk is not None]
    coming = verdicts()
    upcoming = next(coming, None)
    number, results = 0, []
    for chunk, folder, done in zip(chunks, folders, found, strict=True):
        if done is not None:
            number += chunk.num_rows
            while upcoming is not None and upcoming[0] < number:
                upcoming = next(coming, None)
            results.append(done)
            continue
        writer = ChunkWriter(folder)
        for values in chunk.rows():
            verdict: Verdict = {}
            if upcoming is not None and upcoming[0] == number:
                verdict = upcoming[1]
                upcoming = next(coming, None)
            settle(writer, stage, values, verdict)
            number += 1
        results.append(writer.finish(chunk.origin))
    return results
