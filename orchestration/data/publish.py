"""Stage 8, write: writes shards, manifest and page into a folder that is renamed when complete."""

import hashlib
import importlib.metadata
import itertools
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from orchestration.data.chunks import Chunk, ImageReader, digest_of, to_sample
from orchestration.data.manifest import LAST_STAGE, CountTask, Shard, Tally, build_manifest, canonical_json, count_chunk
from orchestration.data.page import dataset_page
from orchestration.data.plan import MANIFEST, BuildJob
from orchestration.data.sources.rows import Candidate, candidate_from_json
from orchestration.data.stages import STAGES, Advance, Map, stage_code
from orchestration.settings.recipe import ShardsConfig
from orchestration.storage.commit import project_commit
from orchestration.storage.files import whole_file
from rollout.dataset import to_row, write_rows

PAGE = "page.html"
SUFFIXES = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"RIFF": ".webp", b"GIF8": ".gif", b"BM": ".bmp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """One shard: a range of the rows of some chunks, in order."""

    store: Path
    chunks: tuple[Path, ...]
    first: int
    """Rows of the first chunk that belong to the previous shard."""
    num_rows: int
    root: Path
    """Folder of the dataset."""
    role: str
    name: str
    images: Literal["bytes", "paths"]
    measured_with: str
    """Record of what measured the prompts."""


def plan_shards(
    store: Path, chunks: Sequence[Chunk], root: Path, role: str, config: ShardsConfig, measured_with: str
) -> list[ShardTask]:
    """Divide the rows of chunks into shards of `rows_per_shard`; the last one may be shorter."""
    rows_per_shard = config.rows_per_shard
    starts = [0]
    for chunk in chunks:
        starts.append(starts[-1] + chunk.num_rows)
    num_shards = -(-starts[-1] // rows_per_shard)
    tasks = []
    for number in range(num_shards):
        begin, end = number * rows_per_shard, min((number + 1) * rows_per_shard, starts[-1])
        members = [i for i in range(len(chunks)) if starts[i] < end and starts[i + 1] > begin]
        tasks.append(
            ShardTask(
                store=store,
                chunks=tuple(chunks[i].folder for i in members),
                first=begin - starts[members[0]],
                num_rows=end - begin,
                root=root,
                role=role,
                name=f"{role}/{role}-{number:05d}-of-{num_shards:05d}.parquet",
                images=config.images,
                measured_with=measured_with,
            )
        )
    return tasks


def write_shard(task: ShardTask) -> Shard:
    """Write a shard unless it exists, and return it with its digest."""
    path = task.root / task.name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        reader = ImageReader(task.store)
        with whole_file(path) as partial:
            rows = (_row(row, reader, task, path.parent) for row in _rows(task))
            write_rows(partial, rows, measured_with=task.measured_with)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Shard(name=task.name, role=task.role, num_rows=task.num_rows, size_bytes=path.stat().st_size, sha256=digest)


def _rows(task: ShardTask) -> Iterator[Candidate]:
    rows = (values for folder in task.chunks for values in Chunk.of(folder).rows())
    for values in itertools.islice(rows, task.first, task.first + task.num_rows):
        yield candidate_from_json(values)


def _row(row: Candidate, reader: ImageReader, task: ShardTask, folder: Path) -> dict[str, Any]:
    values = to_row(to_sample(row, reader))
    if task.images == "paths":
        for image in values["images"]:
            image["path"] = _store_image(image["bytes"], image["sha256"], folder)
            image["bytes"] = None
    return values


def _store_image(data: bytes, sha256: str, folder: Path) -> str:
    """Write an image under its digest unless it exists, and return its path relative to the shards."""
    suffix = next((suffix for start, suffix in SUFFIXES.items() if data.startswith(start)), ".tif")
    path = Path("images") / sha256[:2] / f"{sha256}{suffix}"
    target = folder / path
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.partial-{os.getpid()}")  # another shard may hold the same image
        partial.write_bytes(data)
        partial.replace(target)
    return str(path)


def publish(
    job: BuildJob, stages: Mapping[str, Sequence[Chunk]], seconds: Mapping[str, float], run: Map, advance: Advance
) -> None:
    """Write the dataset under a temporary name and rename it; shards of an interrupted build are reused.

    Args:
        job: What was built.
        stages: Resulting chunks of each stage, in order.
        seconds: Time of each stage in this process.
        run: Applies a function to items in worker processes; writes shards and counts rows.
        advance: Called with the number of rows written.
    """
    started = time.perf_counter()
    partial = job.out.with_name(f"{job.out.name}.partial-{job.key}")
    last = {role: of_role(stages[stage], role) for role, stage in LAST_STAGE.items()}
    shards: list[Shard] = []
    for role in ("train", "held_out"):
        record = job.measured_with.record
        for shard in run(write_shard, plan_shards(job.store, last[role], partial, role, job.recipe.shards, record)):
            advance(shard.num_rows)
            shards.append(shard)
    tally = _count(job, stages, last, run)
    manifest = {
        **build_manifest(
            job.recipe,
            job.plans,
            stages=list(stages),
            code={
                "package": importlib.metadata.version("mixed-r1"),
                "commit": project_commit(),
                "digest": digest_of([stage_code(stage) for stage in STAGES]),
            },
            tally=tally,
            shards=shards,
            times={**seconds, "write": time.perf_counter() - started, "finished_unix": time.time()},
        ),
        "key": job.key,
        "processor": job.processor,
        "measured_with": asdict(job.measured_with),
        "policy": job.policy,
    }
    partial.mkdir(parents=True, exist_ok=True)
    _write(partial / MANIFEST, canonical_json(manifest))
    images = ImageReader(job.store)
    cards = [to_sample(row, images) for function in sorted(tally.cards) for _, row in tally.cards[function]]
    _write(partial / PAGE, dataset_page(manifest, cards))
    partial.rename(job.out)


def of_role(chunks: Sequence[Chunk], *roles: str) -> list[Chunk]:
    """Return the chunks whose source has one of the roles."""
    return [chunk for chunk in chunks if chunk.origin["role"] in roles]


def _write(path: Path, text: str) -> None:
    """Write a text; lone surrogates, which rejected rows may quote, become question marks."""
    path.write_bytes(text.encode("utf-8", "replace"))


def _count(
    job: BuildJob, stages: Mapping[str, Sequence[Chunk]], last: Mapping[str, Sequence[Chunk]], run: Map
) -> Tally:
    results = {chunk.folder for chunks in last.values() for chunk in chunks}
    tasks = [
        CountTask(
            chunk=chunk.folder,
            reward=job.reward,
            seed=job.recipe.seed,
            stages=tuple(stages),
            is_result=chunk.folder in results,
            is_tried=stage == "sample",
        )
        for stage, chunks in stages.items()
        for chunk in chunks
    ]
    whole = Tally()
    for tally in run(count_chunk, tasks):
        whole.merge(tally)
    return whole
