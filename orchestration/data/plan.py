"""What there is to read: the parts of every source, and the digests that say whether an earlier reading still holds."""

import heapq
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from orchestration.data.rows.chunks import Chunk, digest_of
from orchestration.data.rows.code import stage_code
from orchestration.data.rows.files import FileDigests
from orchestration.data.rows.progress import Advance
from orchestration.data.rows.workers import Workers
from orchestration.data.sources.base import Adapter, Licence, Part
from orchestration.data.sources.registry import find_adapter
from orchestration.data.stages.read import STAGE, PartTask, lots, read_part
from orchestration.settings.errors import ConfigError, DataError
from orchestration.settings.recipe import RecipeConfig, SourceConfig

ROLE_ORDER = ("guard", "held_out", "train")
"""Evaluation sets come first, so that of two equal rows the one for training goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePlan:
    """One source, ready to be read."""

    name: str
    config: SourceConfig
    licence: Licence
    tasks: tuple[PartTask, ...]
    files: dict[str, str]
    """SHA-256 of every annotation file."""


def plan_sources(recipe: RecipeConfig, store: Path, digests: FileDigests) -> list[SourcePlan]:
    """Find the parts of all sources, evaluation sets first, then in the order of the recipe.

    Raises:
        ConfigError: a source has no such adapter, or options that its adapter does not know.
        DataError: files that sources' formats need are missing; all such sources are named.
    """
    plans, missing = [], []
    for name, source in sorted(recipe.sources.items(), key=lambda item: ROLE_ORDER.index(item[1].role)):
        try:
            plans.append(_plan_source(name, source, recipe, store, digests))
        except DataError as error:
            missing.append(f"  {name}: {error}; to leave it out: ~data.recipe.sources.{name}")
    digests.save()
    if missing:
        raise DataError("these sources are not there as their formats need them:\n" + "\n".join(missing))
    return plans


def _plan_source(
    name: str, source: SourceConfig, recipe: RecipeConfig, store: Path, digests: FileDigests
) -> SourcePlan:
    adapter = find_adapter(source.adapter)
    licence = replace(adapter.licence, name=source.license) if source.license else adapter.licence
    root = store if source.path is None else Path(recipe.raw or ".").expanduser().absolute() / source.path
    tasks, files = [], {}
    for part in _parts(adapter, root, name, source):
        own = {str(path): digests.of(path) for path in part.files}
        files.update(own)
        shape = {**asdict(source), "path": None, "quota": None}
        key = digest_of(name, shape, recipe.seed, recipe.chunk_rows, recipe.limits.max_image_bytes, part.name,
                        part.arguments, list(own.values()), stage_code(STAGE))  # fmt: skip
        tasks.append(
            PartTask(
                store=store,
                name=name,
                source=source,
                license=licence.name,
                root=root,
                part=part,
                key=key,
                chunk_rows=recipe.chunk_rows,
                max_image_bytes=recipe.limits.max_image_bytes,
                seed=recipe.seed,
            )
        )
    return SourcePlan(name=name, config=source, licence=licence, tasks=tuple(tasks), files=files)


def _parts(adapter: Adapter, root: Path, name: str, source: SourceConfig) -> list[Part]:
    try:
        return adapter.parts(root, source)
    except ConfigError as error:  # the adapter knows its options, not under which name the recipe gives them
        raise ConfigError(f"data.recipe.sources.{name}: {error}") from error


def read_sources(plans: Sequence[SourcePlan], workers: Workers, advance: Advance) -> list[Chunk]:
    """Read all parts, several at a time, and give the chunks in the order of the plans."""
    tasks = [task for plan in plans for task in _with_cutoff(plan, workers)]
    chunks = []
    for folders in workers.map(read_part, tasks):
        for folder in folders:
            chunk = Chunk.open(folder)
            assert chunk is not None, folder
            advance(chunk.num_rows + chunk.num_rejected)
            chunks.append(chunk)
    return chunks


def _with_cutoff(plan: SourcePlan, workers: Workers) -> list[PartTask]:
    """Where a source is cut to `max_rows`, find the lot up to which rows are drawn; over all parts, so two passes."""
    limit = plan.config.max_rows
    if limit is None or not plan.tasks:
        return list(plan.tasks)
    memory = plan.tasks[0].store / STAGE / f"cutoff-{digest_of([task.key for task in plan.tasks])}.json"
    if not memory.is_file():
        smallest = heapq.nsmallest(limit, (lot for found in workers.map(lots, plan.tasks) for lot in found))
        memory.parent.mkdir(parents=True, exist_ok=True)
        partial = memory.with_name(memory.name + ".partial")
        partial.write_text(json.dumps(smallest[-1] if smallest else 0))
        partial.replace(memory)
    cutoff = json.loads(memory.read_text())
    # Other files of the source move the cutoff, so it is part of what a part's chunks are kept under.
    return [replace(task, cutoff=cutoff, key=digest_of(task.key, cutoff)) for task in plan.tasks]
