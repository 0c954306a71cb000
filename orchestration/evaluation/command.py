"""`mixed-r1 evaluate`: a checkpoint answers a dataset; tables, a page, and files for other toolkits come out."""

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

from orchestration.config.experiment import ExperimentConfig
from orchestration.errors import ConfigError
from orchestration.evaluation.bench import Bench, open_bench
from orchestration.evaluation.checkpoint import with_checkpoint
from orchestration.evaluation.collect import Questioning, collect
from orchestration.evaluation.partial import PartialAnswers
from orchestration.evaluation.presets.registry import preset_of
from orchestration.evaluation.publish import list_files, publish, publish_comparison, say
from orchestration.evaluation.records import EvaluatedSample
from orchestration.evaluation.store import MANIFEST, Manifest, check_comparable, read_evaluation, write_evaluation
from orchestration.faults import FaultLog
from orchestration.inputs import check_rewards, prepare_inputs
from orchestration.placement.seats import Seats, seated
from orchestration.pools.generators import start_generators
from orchestration.pools.rewards import start_reward_pool
from rollout.records import SamplingSpec


def run_evaluation(config: ExperimentConfig) -> None:
    """Evaluate as configured; what was answered before a stop is not asked again.

    Raises:
        ConfigError: The checkpoint, the preset or the folder to compare with cannot be used.
        DataError: The data, or the earlier evaluation, cannot be used.
    """
    settings = config.evaluate
    preset = preset_of(settings.preset)
    earlier = None if settings.against is None else read_evaluation(Path(settings.against).expanduser())
    config = with_checkpoint(config)
    assert config.model.path is not None
    model = Path(config.model.path)
    data = Path(settings.data).expanduser().absolute() if settings.data else prepare_inputs(config).held_out
    check_rewards(config.reward, model, data)
    bench = open_bench(data, seed=config.seed, max_samples=settings.max_samples)
    folder = Path(settings.out).expanduser().absolute() if settings.out else _folder(config, model, data)
    manifest = _manifest(config, model, data, bench)
    if earlier is not None:
        check_comparable(earlier[0], manifest)
    samples = _answers(config, model, bench, folder, manifest)
    publish(config, folder, manifest, bench, samples, preset)
    if earlier is not None:
        publish_comparison(config, folder, bench, earlier, (manifest, samples))
    list_files(folder)


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

    async def ask(seats: Seats, finished: Callable[[EvaluatedSample], None]) -> None:
        limits = config.cluster.faults
        log = FaultLog(limits, logs / "faults.jsonl")
        generators = start_generators(config.rollout, model, seats, logs, faults=limits, log=log)
        rewards = start_reward_pool(config, model, seats, logs, log)
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
    with seated(config, logs, roles=("engine", "reward")) as seats, Progress(*columns) as bars:
        bar = bars.add_task("", total=len(bench.ids), completed=len(answers.found))

        def finished(sample: EvaluatedSample) -> None:
            answers.add(sample)
            bars.update(bar, advance=1)

        asyncio.run(ask(seats, finished))
