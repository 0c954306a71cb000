"""`mixed-r1 evaluate`: a checkpoint answers a dataset; tables, a page, and files for other toolkits come out."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from textwrap import shorten

from orchestration.cluster.local import has_gpu
from orchestration.cluster.reservations import Seats, seated
from orchestration.evaluate.checkpoint import find_weights, with_weights
from orchestration.evaluate.of_run import differences
from orchestration.evaluate.partial import PartialAnswers
from orchestration.evaluate.presets.registry import preset_of
from orchestration.evaluate.publish import list_files, publish, publish_comparison, say
from orchestration.evaluate.store import MANIFEST, Manifest, check_comparable, read_evaluation, write_evaluation
from orchestration.inputs.prepare import check_rewards, prepare_inputs
from orchestration.settings.errors import ConfigError, DataError
from orchestration.settings.experiment import ExperimentConfig
from orchestration.settings.model import NOT_SET
from orchestration.storage.faults import FaultLog
from orchestration.storage.lock import exclusive
from orchestration.storage.run_folder import RunFolder, flatten, read_inputs
from orchestration.workers.answers import EvaluatedSample
from orchestration.workers.collect import Questioning, collect
from orchestration.workers.engine_pool import start_generators
from orchestration.workers.question_set import Bench, open_bench
from orchestration.workers.reward_pool import start_reward_pool
from rollout.records import SamplingSpec


def run_evaluation(config: ExperimentConfig, run: RunFolder | None) -> None:
    """Evaluate as configured; what was answered before a stop is not asked again.

    Nothing is written, and no actor started, before everything that can be checked has been.

    Args:
        config: Settings of the evaluation; of a run, as `settings_of_run` takes them over.
        run: What the checkpoint belongs to; None for a model folder.

    Raises:
        ConfigError: The checkpoint, the preset, the device or the folder to compare with cannot be used.
        DataError: The data, or the earlier evaluation, cannot be used; or not one row has a score.
        ResumeError: Another process evaluates into the same folder.
    """
    settings = config.evaluate
    preset = preset_of(settings.preset)
    earlier = None if settings.against is None else read_evaluation(Path(settings.against).expanduser())
    weights = find_weights(config, run)
    data = find_data(config, run)
    _check_devices(config, needs_learner=weights.store is not None)
    config = with_weights(config, weights, run)
    model = Path(str(config.model.path))
    _tell_how_it_is_asked(config, run, weights.folder)
    if data is None:
        data = prepare_inputs(config).held_out
    check_rewards(config.reward, model, data)
    bench = open_bench(data, seed=config.seed, max_samples=settings.max_samples)
    folder = Path(settings.out).expanduser().absolute() if settings.out else _folder(config, weights.folder, data)
    manifest = _manifest(config, model, data, bench)
    if earlier is not None:
        check_comparable(earlier[0], manifest)
    busy = f"another process evaluates into {folder}; wait for it, or name another folder with out=..."
    with exclusive(folder, refusal=busy):
        samples = _answers(config, model, bench, folder, manifest)
        publish(config, folder, manifest, bench, samples, preset)
        if earlier is not None:
            publish_comparison(config, folder, bench, earlier, (manifest, samples))
    list_files(folder)


def find_data(config: ExperimentConfig, run: RunFolder | None) -> Path | None:
    """Return the dataset that is asked; None where the recipe of the settings has to be built or found.

    Raises:
        ConfigError: It is not on this machine.
    """
    held_out = config.data.held_out
    if config.evaluate.data:
        data = Path(config.evaluate.data).expanduser().absolute()
        if not data.exists():
            raise ConfigError(f"data={data} does not exist; build it (mixed-r1 data build) or correct the path")
        return data
    if held_out == NOT_SET:
        raise ConfigError("data is not given; name a Parquet file or a folder of them: data=...")
    whose = "" if run is None else f", on which {run.root} was scored,"
    if held_out is not None:
        if not Path(held_out).exists():
            raise ConfigError(f"data.held_out={held_out}{whose} is not on this machine; name the data: data=...")
        return Path(held_out)
    if run is None:
        named = Path(config.evaluate.checkpoint or ".").expanduser().absolute()
        if config.evaluate.checkpoint and named.parent != Path(config.cache_dir):
            raise ConfigError(f"data is not given, and {named} belongs to no run that would name it; set data=...")
        return None  # the demo's model and drawings
    if (known := read_inputs(run).get("held_out")) and Path(known).exists():
        return Path(known)
    recipe = config.data.recipe
    assert recipe is not None  # checked where the configuration was built
    if any(source.path is not None for source in recipe.sources.values()):
        raise ConfigError(
            f"the data that recipe {recipe.name} made{whose} is not on this machine; name the data: data=..., or build "
            "it (mixed-r1 data build)"
        )
    return None


def _check_devices(config: ExperimentConfig, *, needs_learner: bool) -> None:
    """Refuse an engine, or a learner that exports a checkpoint, on GPUs where a Ray started here would find none.

    Raises:
        ConfigError: Naming what to set for this machine's CPU.
    """
    if config.cluster.address is not None or has_gpu():
        return
    engine = "rollout.engine.device=cpu rollout.engine.enforce_eager=true rollout.engine.tensor_parallel_size=1"
    if config.rollout.engine.device == "cuda":
        raise ConfigError(f"rollout.engine.device is cuda and this machine has no GPU; for its CPU, set {engine}")
    if needs_learner and config.learner.device == "cuda":
        raise ConfigError(
            "the checkpoint has to be exported first, learner.device is cuda and this machine has no GPU; for its CPU, "
            "set learner.device=cpu learner.num_ranks=1, or evaluate the run's export"
        )


def _tell_how_it_is_asked(config: ExperimentConfig, run: RunFolder | None, model: Path) -> None:
    """Say with which prompt, lengths and device the model is asked, and what of it is not as the run had it."""
    rollout = config.rollout
    engine, sampling = rollout.engine, rollout.sampling
    text = shorten(rollout.system_prompt, 60, placeholder=" ...")
    prompt = f"the system prompt {text!r}" if text else "no system prompt"
    how = (
        f"{prompt}, {sampling.max_completion_tokens} completion tokens of {engine.max_model_len}, "
        f"{engine.max_images_per_prompt} images at most, on {engine.device} in {engine.dtype}"
    )
    if run is None:
        say(
            f"{model} belongs to no run and is asked with {how}; other values: rollout.system_prompt=..., "
            "rollout.sampling.max_completion_tokens=..., rollout.engine.max_model_len=..., rollout.engine.device=..., "
            "or experiment=... for all of a recipe's"
        )
        return
    say(f"{model} is asked as its run {run.root} was trained: {how}")
    for line in differences(run, config):
        say(f"  not as in the run: {line}")
    if config.evaluate.data:
        say(f"  not as in the run: data={config.evaluate.data}")


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
            "max_model_len": config.rollout.engine.max_model_len,
            "max_images_per_prompt": config.rollout.engine.max_images_per_prompt,
            "dtype": config.rollout.engine.dtype,
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
            before, now = (dict(flatten(asdict(one))) for one in (found, manifest))
            changed = ", ".join(sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key)))
            raise ConfigError(
                f"{folder} holds an evaluation that differs in {changed}; name another folder with out=..., or "
                "remove it"
            )
        say(f"{folder} holds all {len(samples)} answers")
        return samples
    with PartialAnswers(folder, hashlib.sha256(repr(manifest).encode()).hexdigest()) as answers:
        if len(answers.found) < len(bench.ids):
            _ask(config, model, bench, answers, folder / "logs")
        samples = [answers.found[sample_id] for sample_id in bench.ids]
        check_any_scored(samples, answers)
        write_evaluation(folder, manifest, samples)
        answers.remove()
    return samples


def check_any_scored(samples: Sequence[EvaluatedSample], answers: PartialAnswers) -> None:
    """Refuse an evaluation of failures alone, and forget them, so that the same command asks again.

    Raises:
        DataError: Not one row has a score.
    """
    failures = Counter(sample.failure for sample in samples)
    if None in failures:
        return
    answers.remove()
    [(reason, count)] = failures.most_common(1)
    raise DataError(f"not one of {len(samples)} rows could be scored; {count} of them: {reason}")


def _ask(config: ExperimentConfig, model: Path, bench: Bench, answers: PartialAnswers, logs: Path) -> None:
    """Start engines and reward actors and ask everything that is not answered."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    settings, sampling = config.evaluate, config.rollout.sampling
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
