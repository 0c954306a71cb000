"""The data engine on one screen: raw sources in, a proven and selected dataset out, resumable at every chunk."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestration.data.chunks import Chunk, digest_of
from orchestration.data.code import STAGE_FILES, stage_code
from orchestration.data.config import RecipeConfig
from orchestration.data.deduplicate import Deduplicator
from orchestration.data.measure import Ruler
from orchestration.data.plan import SourcePlan, read_sources
from orchestration.data.progress import Advance, StageBars
from orchestration.data.publish import Publication, publish
from orchestration.data.reasons import Refused
from orchestration.data.row_stages import MeasureStage, NormaliseStage, ValidateStage
from orchestration.data.rows import candidate_from_json
from orchestration.data.stages import Verdict, rows_in_order, run_stage, sift
from orchestration.data.workers import Workers
from rewards.config import RewardConfig

Attempt = Callable[[Sequence[Chunk], str, Advance], list[Chunk]]
"""Lets the policy try the rows of some chunks; takes the chunks, the key of their results, and a progress bar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildJob:
    """Everything that shapes a dataset."""

    recipe: RecipeConfig
    plans: Sequence[SourcePlan]
    reward: RewardConfig
    ruler: Ruler
    processor: str
    """Digest of the files that decide how long a prompt is."""
    policy: str
    """Digest of the model that tries the rows, and of how it samples; empty where it does not."""
    store: Path
    """Folder of all chunks: shared by every machine that has workers."""
    out: Path

    @property
    def key(self) -> str:
        """Digest of all that, code included: equal keys are equal datasets."""
        recipe = {**asdict(self.recipe), "raw": None, "out": None, "num_workers": None}
        for source in recipe["sources"].values():
            source["path"] = None
        parts = [task.key for plan in self.plans for task in plan.tasks]
        code = {stage: stage_code(stage) for stage in STAGE_FILES}
        return digest_of(recipe, parts, asdict(self.reward), self.ruler.settings, self.processor, self.policy, code)


def build_dataset(job: BuildJob, workers: Workers, attempt: Attempt | None, bars: StageBars) -> None:
    """Take the sources through all stages and publish the result as `job.out`.

    Each stage finds by key the chunks that an earlier, perhaps killed, build has finished.

    Args:
        job: What to build.
        workers: Run the stages that take one row at a time.
        attempt: Lets the current policy try the rows; None leaves their difficulty unknown.
        bars: Shows how far the build is.
    """
    recipe, store = job.recipe, job.store
    stages: dict[str, list[Chunk]] = {}

    chunks = stages["read"] = read_sources(job.plans, workers, bars.begin("read", None))
    for stage in (ValidateStage(recipe.limits, store), NormaliseStage(recipe.normalise, recipe.limits, job.reward, recipe.seed)):
        chunks = stages[stage.name] = run_stage(stage, chunks, store, workers, bars.begin(stage.name, total(chunks)))
    chunks = stages["deduplicate"] = deduplicate(job, chunks, bars.begin("deduplicate", total(chunks)))

    kept = [chunk for chunk in chunks if role_of(chunk) != "guard"]
    measure = MeasureStage(job.ruler, job.processor)
    chunks = stages["measure"] = run_stage(measure, kept, store, workers, bars.begin("measure", total(kept)))

    held_out = [chunk for chunk in chunks if role_of(chunk) == "held_out"]
    train = [chunk for chunk in chunks if role_of(chunk) == "train"]
    if attempt is not None:
        train = stages["sample"] = attempt(train, job.policy, bars.begin("sample", total(train)))
    train, quotas = select(job, train, bars.begin("select", total(train)))
    stages["select"] = train
    publish(
        Publication(job=job, stages=stages, train=train, held_out=held_out, quotas=quotas),
        workers,
        bars.begin("write", total(train) + total(held_out)),
    )


def total(chunks: Sequence[Chunk]) -> int:
    """Rows of some chunks."""
    return sum(chunk.num_rows for chunk in chunks)


def role_of(chunk: Chunk) -> str:
    """The role of a chunk's source; a chunk holds rows of one source."""
    return str(chunk.facts["role"])


def deduplicate(job: BuildJob, chunks: Sequence[Chunk], advance: Advance) -> list[Chunk]:
    """Stage 4: rows that another row makes superfluous, wrong or a leak."""
    settings = job.recipe.deduplicate

    def verdicts() -> Iterator[tuple[int, Verdict]]:
        with Deduplicator(settings, job.store / "deduplicate" / "scratch") as seen:
            for number, values in rows_in_order(chunks):
                seen.add(candidate_from_json(values), number)
                advance(1)
            for number, reason, detail in seen.decide():
                yield number, Refused(reason, detail)

    return sift("deduplicate", [asdict(settings), stage_code("deduplicate")], chunks, job.store, verdicts)
