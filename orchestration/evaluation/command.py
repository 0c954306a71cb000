"""`mixed-r1 evaluate`: a checkpoint answers a dataset; tables, a page, and files for other toolkits come out."""

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestration import cluster
from orchestration.config import ExperimentConfig, check_model_folder
from orchestration.errors import ConfigError, DataError
from orchestration.evaluation.checkpoint import resolve_checkpoint
from orchestration.evaluation.collect import Questioning, collect
from orchestration.evaluation.compare import compare
from orchestration.evaluation.page import comparison_page, evaluation_page
from orchestration.evaluation.partial import PartialAnswers
from orchestration.evaluation.predictions import write_lmms_eval, write_vlmevalkit
from orchestration.evaluation.presets.base import Preset, PresetResult, apply_preset
from orchestration.evaluation.presets.registry import preset_of
from orchestration.evaluation.records import EvaluatedSample
from orchestration.evaluation.statistics import Resampling
from orchestration.evaluation.store import (
    MANIFEST,
    Manifest,
    check_comparable,
    read_evaluation,
    write_evaluation,
    write_json,
    write_whole,
)
from orchestration.evaluation.summary import SummarySettings, summarise
from orchestration.evaluation.table import comparison_table, preset_table, summary_table
from orchestration.guard import guarded
from orchestration.inputs import check_rewards, prepare_inputs
from orchestration.pools.generators import GeneratorPool
from orchestration.pools.rewards import start_reward_pool
from orchestration.seeds import derive_seed
from rollout.dataset import SampleTable
from rollout.records import ImageBytes, Sample, SamplingSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A dataset as one evaluation asks it."""

    table: SampleTable
    rows: tuple[int, ...]
    """Which rows, in their order."""
    ids: dict[str, int]
    """Row of each sample id asked for."""
    digest: str
    """Of questions and references; equal digests may be compared."""

    def samples(self, done: dict[str, EvaluatedSample]) -> Iterator[Sample]:
        """Read those that are not answered yet."""
        for sample_id, row in self.ids.items():
            if sample_id not in done:
                yield self.table[row]

    def images_of(self, sample_id: str) -> Sequence[ImageBytes]:
        """Give the images of one row."""
        return self.table[self.ids[sample_id]].images


def run_evaluation(config: ExperimentConfig) -> None:
    """Evaluate as configured; what was answered before a stop is not asked again.

    Raises:
        ConfigError: The checkpoint, the preset or the folder to compare with cannot be used.
        DataError: The data, or the earlier evaluation, cannot be used.
    """
    settings = config.evaluate
    preset = preset_of(settings.preset)
    earlier = None if settings.against is None else read_evaluation(Path(settings.against).expanduser())
    model = resolve_checkpoint(config)
    check_model_folder(model)
    data = Path(settings.data).expanduser().absolute() if settings.data else prepare_inputs(config).held_out
    check_rewards(config.reward, model, data)
    bench = open_bench(data, seed=config.seed, max_samples=settings.max_samples)
    folder = Path(settings.out).expanduser().absolute() if settings.out else _folder(config, model, data)
    manifest = _manifest(config, model, data, bench)
    if earlier is not None:
        check_comparable(earlier[0], manifest)
    samples = _answers(config, model, bench, folder, manifest)
    _conclude(config, folder, manifest, bench, samples, preset)
    if earlier is not None:
        _compare(config, folder, bench, earlier, (manifest, samples))
    _list_files(folder)


def open_bench(data: Path, *, seed: int, max_samples: int | None) -> Bench:
    """Open a dataset and choose its rows.

    Raises:
        DataError: Two rows share an id.
    """
    table = SampleTable(data)
    columns = table.columns("sample_id", "question", "answer")
    rows = range(len(columns))
    if max_samples is not None and max_samples < len(columns):
        drawn = sorted(rows, key=lambda row: derive_seed(seed, "evaluate", columns[row][0]))[:max_samples]
        chosen = tuple(sorted(drawn))
    else:
        chosen = tuple(rows)
    ids = {str(columns[row][0]): row for row in chosen}
    if len(ids) < len(chosen):
        raise DataError(f"{data} holds a sample_id twice; every row needs an id of its own: build the data again")
    hasher = hashlib.sha256()
    for row in chosen:
        hasher.update("\x1f".join(map(str, columns[row])).encode(errors="replace") + b"\x1e")
    return Bench(table=table, rows=chosen, ids=ids, digest=hasher.hexdigest())


def _folder(config: ExperimentConfig, model: Path, data: Path) -> Path:
    name = model.parent.name if model.name == "export" else model.name
    bench = data.parent.name if data.name in ("train", "held_out") else data.stem
    return config.run_path / "evaluations" / f"{name}-on-{bench}"


def _manifest(config: ExperimentConfig, model: Path, data: Path, bench: Bench) -> Manifest:
    settings, sampling = config.evaluate, config.rollout.sampling
    return Manifest(
        model=str(model),
        data=str(data),
        data_digest=bench.digest,
        num_rows=len(bench.rows),
        sampling={
            "greedy": int(settings.greedy),
            "num_completions": settings.num_completions,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_completion_tokens": sampling.max_completion_tokens,
            "system_prompt": config.rollout.system_prompt,
            "coord_mode": config.model.coord_mode,
            "seed": config.seed,
            "reward": hashlib.sha256(repr(config.reward).encode()).hexdigest()[:16],
            "weights": _weights_stamp(model),
        },
    )


def _weights_stamp(model: Path) -> str:
    """Say which weight files these are, by size and time; a rewritten checkpoint is asked again."""
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(model.glob("*.safetensors"))]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:16]


def _answers(
    config: ExperimentConfig, model: Path, bench: Bench, folder: Path, manifest: Manifest
) -> list[EvaluatedSample]:
    """Give the evaluated rows in order: from the folder where they are there, else from the engines."""
    if (folder / MANIFEST).is_file():
        found, samples = read_evaluation(folder)
        if found != manifest:
            raise ConfigError(
                f"{folder} holds an evaluation of another checkpoint, other data or settings; name another folder with "
                "out=..., or remove it"
            )
        say(f"{folder} holds all {len(samples)} answers")
        return samples
    with PartialAnswers(folder, hashlib.sha256(repr(manifest).encode()).hexdigest()) as answers:
        if len(answers.found) < len(bench.ids):
            _ask(config, model, bench, answers)
        samples = [answers.found[sample_id] for sample_id in bench.ids]
        write_evaluation(folder, manifest, samples)
        answers.remove()
    return samples


def _ask(config: ExperimentConfig, model: Path, bench: Bench, answers: PartialAnswers) -> None:
    """Start engines and reward actors and ask everything that is not answered."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    settings, sampling = config.evaluate, config.rollout.sampling
    plan = replace(cluster.plan(config, cores=cluster.available_cores()), learner_ranks=())
    logs = config.run_path / "logs"
    questioning = Questioning(
        greedy=settings.greedy,
        sampled=SamplingSpec(
            group_size=settings.num_completions,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_completion_tokens=sampling.max_completion_tokens,
        )
        if settings.num_completions
        else None,
        max_completion_tokens=sampling.max_completion_tokens,
        seed=config.seed,
        coord_mode=config.model.coord_mode,
    )

    async def ask(finished: Callable[[EvaluatedSample], None]) -> None:
        generators = GeneratorPool(config.rollout, model, plan.engines, logs)
        rewards = start_reward_pool(config, model, plan.rewards, logs)
        try:
            await asyncio.gather(generators.ready(), rewards.ready())
            await collect(
                bench.samples(answers.found),
                generators=generators,
                rewards=rewards,
                questioning=questioning,
                function_of=lambda task, source: config.reward.route(task, source).function,
                finished=finished,
            )
        finally:
            rewards.close()
            await generators.close()

    columns = (TextColumn("answering"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn())
    with guarded(), cluster.ray_session(config.cluster, plan, logs), Progress(*columns) as bars:
        bar = bars.add_task("", total=len(bench.ids), completed=len(answers.found))

        def finished(sample: EvaluatedSample) -> None:
            answers.add(sample)
            bars.update(bar, advance=1)

        asyncio.run(ask(finished))


def _conclude(
    config: ExperimentConfig,
    folder: Path,
    manifest: Manifest,
    bench: Bench,
    samples: Sequence[EvaluatedSample],
    preset: Preset,
) -> None:
    settings = config.evaluate
    summary = summarise(samples, _summary_settings(config))
    result: PresetResult | None = None
    if preset.name != "mixed":
        result = apply_preset(
            preset, samples, cluster_key=settings.cluster_key, resampling=_summary_settings(config).resampling
        )
    write_json(folder / "summary.json", {**summary.to_json(), "preset": None if result is None else result.to_json()})
    title = f"{Path(manifest.model).name} on {Path(manifest.data).name}"
    write_whole(
        folder / "page.html",
        evaluation_page(
            title=title,
            summary=summary,
            preset=result,
            samples=samples,
            image_of=bench.images_of,
            num_worst=settings.num_worst,
        ),
    )
    if settings.greedy:
        _write_for_toolkits(config, folder, samples)
    say(summary_table(summary))
    if result is not None:
        say("")
        say(preset_table(result))


def _write_for_toolkits(config: ExperimentConfig, folder: Path, samples: Sequence[EvaluatedSample]) -> None:
    boxes = config.evaluate.boxes
    for source in sorted({sample.source for sample in samples}):
        rows = [sample for sample in samples if sample.source == source]
        name = source.replace("/", "-")
        write_vlmevalkit(folder / "vlmevalkit", rows, model="mixed-r1", dataset=name, boxes=boxes)
        if all(row.source_id.isdigit() for row in rows):  # lmms-eval knows rows by their place in a split alone
            write_lmms_eval(folder / "lmms_eval", rows, model="mixed-r1", task=name, boxes=boxes)


def _compare(
    config: ExperimentConfig,
    folder: Path,
    bench: Bench,
    earlier: tuple[Manifest, list[EvaluatedSample]],
    later: tuple[Manifest, list[EvaluatedSample]],
) -> None:
    comparisons = compare(earlier[1], later[1], settings=_summary_settings(config), allow_unmatched=True)
    write_json(
        folder / "comparison.json",
        {"before": earlier[0].model, "after": later[0].model, "metrics": [c.to_json() for c in comparisons]},
    )
    write_whole(
        folder / "comparison.html",
        comparison_page(
            title=f"{Path(earlier[0].model).name} and {Path(later[0].model).name} on {Path(later[0].data).name}",
            comparisons=comparisons,
            before=earlier[1],
            after=later[1],
            image_of=bench.images_of,
        ),
    )
    for comparison in comparisons:
        say("")
        say(comparison_table(comparison))


def _summary_settings(config: ExperimentConfig) -> SummarySettings:
    settings = config.evaluate
    return SummarySettings(
        pass_ks=settings.pass_ks if settings.num_completions else (),
        cluster_key=settings.cluster_key,
        resampling=Resampling(seed=config.seed, num_resamples=settings.num_resamples, level=settings.level),
    )


def _list_files(folder: Path) -> None:
    say("")
    for path in sorted(folder.iterdir()):
        say(f"{path}")


def say(line: str) -> None:
    """Print one line to the user, at once."""
    print(line, flush=True)
