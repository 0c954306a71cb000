"""The end of a build: shards, manifest and page, in a folder that appears whole."""

import importlib.metadata
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestration.data.plan import MANIFEST, BuildJob, SourcePlan
from orchestration.data.report.manifest import CodeVersion, ShardFacts, SourceFacts, build_manifest, canonical_json
from orchestration.data.report.page import dataset_page
from orchestration.data.report.tally import LAST_STAGE, Count, CountTask, count_chunk
from orchestration.data.rows.chunks import Chunk, ImageReader, digest_of, to_sample
from orchestration.data.stages.rules import STAGES, stage_code
from orchestration.data.stages.runner import Advance, Map
from orchestration.data.write import plan_shards, write_shard
from orchestration.storage.commit import project_commit

PAGE = "page.html"


def publish(
    job: BuildJob, stages: Mapping[str, Sequence[Chunk]], seconds: Mapping[str, float], run: Map,
    advance: Advance,
) -> None:  # fmt: skip
    """Write the dataset beside its name and rename it; shards that an earlier build finished stay.

    Args:
        job: What was built.
        stages: Chunks that came out of each stage, in the order in which rows pass them.
        seconds: What each stage took, in this sitting.
        run: Applies a function to many items: writes shards and counts.
        advance: Told of written rows.
    """
    started = time.perf_counter()
    partial = job.out.with_name(f"{job.out.name}.partial-{job.key}")
    last = {role: of_role(stages[stage], role) for role, stage in LAST_STAGE.items()}
    shards: list[ShardFacts] = []
    for role in ("train", "held_out"):
        for shard in run(write_shard, plan_shards(job.store, last[role], partial / role, role, job.recipe.shards)):
            advance(shard.num_rows)
            name = str(shard.path.relative_to(partial))
            shards.append(
                ShardFacts(
                    name=name, role=role, num_rows=shard.num_rows, size_bytes=shard.num_bytes, sha256=shard.sha256
                )
            )
    count = _count(job, stages, last, run)
    manifest = {
        **build_manifest(
            job.recipe,
            stages=list(stages),
            code=_code(),
            sources={plan.name: _facts(plan) for plan in job.plans},
            tally=count.tally,
            shards=shards,
            times={**seconds, "write": time.perf_counter() - started, "finished_unix": time.time()},
        ),
        "key": job.key,
        "processor": job.processor,
        "policy": job.policy,
    }
    partial.mkdir(parents=True, exist_ok=True)
    _write(partial / MANIFEST, canonical_json(manifest))
    images = ImageReader(job.store)
    cards = [to_sample(row, images) for function in sorted(count.cards) for _, row in count.cards[function]]
    _write(partial / PAGE, dataset_page(manifest, cards))
    partial.rename(job.out)


def of_role(chunks: Sequence[Chunk], *roles: str) -> list[Chunk]:
    """Return the chunks whose source has one of the roles."""
    return [chunk for chunk in chunks if chunk.origin["role"] in roles]


def _write(path: Path, text: str) -> None:
    """Write a text; halves of characters, as quarantined rows may quote, become question marks."""
    path.write_bytes(text.encode("utf-8", "replace"))


def _count(
    job: BuildJob, stages: Mapping[str, Sequence[Chunk]], last: Mapping[str, Sequence[Chunk]], run: Map
) -> Count:
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
    whole = Count()
    for count in run(count_chunk, tasks):
        whole.merge(count)
    return whole


def _facts(plan: SourcePlan) -> SourceFacts:
    root = plan.tasks[0].root if plan.tasks else Path()
    files = {
        str(Path(path).relative_to(root)) if Path(path).is_relative_to(root) else path: digest
        for path, digest in plan.files.items()
    }
    return SourceFacts(license=plan.licence.name, license_note=plan.licence.note, files=files)


def _code() -> CodeVersion:
    return CodeVersion(
        package=importlib.metadata.version("mixed-r1"),
        commit=project_commit(),
        digest=digest_of([stage_code(stage) for stage in STAGES]),
    )
