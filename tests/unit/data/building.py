"""A whole build in the test's own process: drawn rows, a real processor, a policy that needs no engine."""

import asyncio
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from orchestration.cli import compose
from orchestration.data.build import build_dataset
from orchestration.data.chunks import Chunk, ImageReader
from orchestration.data.plan import BuildJob, plan_build
from orchestration.data.sample import sample_chunks
from orchestration.data.stages import Advance, result_folder
from orchestration.inputs.machine import build_config
from orchestration.workers.tickets import GroupSummary, RecordedCompletion
from rewards.core.base import Reason, RewardResult
from rollout.records import Sample, SamplingSpec
from tests.unit.train.run_records import SUMMARY


@contextmanager
def silent_bar(stage: str, total: int | None) -> Iterator[Advance]:
    """Shows nothing."""
    yield lambda rows: None


async def hashed_policy(group_id: str, sample: Sample, spec: SamplingSpec) -> GroupSummary:
    """Is right as often as a hash of the sample says: never, always, or in some of the completions."""
    num_right = hashlib.sha256(sample.sample_id.encode()).digest()[0] % (spec.group_size + 1)
    rewards = [1.0] * num_right + [0.0] * (spec.group_size - num_right)
    return replace(SUMMARY, completions=tuple(map(completion, rewards, range(len(rewards)))))


def completion(reward: float, index: int) -> RecordedCompletion:
    result = RewardResult(
        reward=reward,
        task_reward=reward,
        format_reward=1.0,
        breakdown={},
        parsed_answer="right" if reward else f"wrong {index}",
        reason=Reason.OK,
    )
    return RecordedCompletion(text="t", result=result, num_tokens=3, truncated=False)


def plan(model: Path, root: Path, *overrides: str) -> BuildJob:
    """The demo's recipe with few rows in small chunks."""
    config = build_config(
        compose(
            [
                f"run_dir={root / 'run'}",
                f"cache_dir={root / 'cache'}",
                f"data.recipe.out={root / 'out'}",
                "data.recipe.chunk_rows=16",
                "data.recipe.sources.demo.options.num_rows=48",
                "data.recipe.sources.demo_held_out.options.num_rows=16",
                "data.recipe.shards.rows_per_shard=20",
                *overrides,
            ]
        )
    )
    return plan_build(config, model)


def build(job: BuildJob, *, is_tried: bool = True) -> None:
    spec = SamplingSpec(group_size=4, temperature=1.0, max_completion_tokens=8)

    def attempt(chunks: Sequence[Chunk], key: str, advance: Advance) -> list[Chunk]:
        targets = [(chunk, result_folder(job.store, "sample", key, chunk)) for chunk in chunks]
        images = ImageReader(job.store)
        return asyncio.run(
            sample_chunks(targets, hashed_policy, spec=spec, seed=0, images=images, advance=lambda rows: None)
        )

    build_dataset(job, map, attempt if is_tried else None, silent_bar)


def content(out: Path) -> dict[str, bytes]:
    """Every file of a dataset; of the manifest, what is not a time."""
    found = {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    manifest = json.loads(found["manifest.json"])
    del manifest["times"]
    found["manifest.json"] = json.dumps(manifest).encode()
    return found
