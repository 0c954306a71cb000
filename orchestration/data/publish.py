"""The end of a build: shards, manifest and page, in a folder that appears whole."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestration.data.chunks import Chunk
from orchestration.data.progress import Advance
from orchestration.data.workers import Workers
from orchestration.data.write import Shard, plan_shards, write_shard

if TYPE_CHECKING:
    from orchestration.data.build import BuildJob

MANIFEST = "manifest.json"


def publish(
    job: "BuildJob",
    stages: Mapping[str, Sequence[Chunk]],
    train: Sequence[Chunk],
    held_out: Sequence[Chunk],
    workers: Workers,
    advance: Advance,
) -> None:
    """Write the dataset beside its name and rename it; shards that an earlier build finished stay."""
    partial = job.out.with_name(f"{job.out.name}.partial-{job.key}")
    shards: list[Shard] = []
    for name, chunks in (("train", train), ("held_out", held_out)):
        tasks = plan_shards(job.store, chunks, partial / name, name, job.recipe.shards)
        for shard in workers.map(write_shard, tasks):
            advance(shard.num_rows)
            shards.append(shard)
    (partial / MANIFEST).write_text(json.dumps({"key": job.key}))
    partial.rename(job.out)


def read_key(manifest: Path) -> str:
    """Give the key that a manifest states."""
    return str(json.loads(manifest.read_text())["key"])
