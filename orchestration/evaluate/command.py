"""`mixed-r1 evaluate`: scores of a checkpoint on a dataset, as tables, a page and files for other toolkits."""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from textwrap import shorten

from conf.own_code import digest_of
from learner import checkpoint
from learner.store import FileStore
from orchestration.cluster.machines import has_gpu
from orchestration.cluster.reservations import Reservations, actors_reserved
from orchestration.evaluate.benchmarks import preset_of
from orchestration.evaluate.checkpoint import Weights, differences, find_weights
from orchestration.evaluate.publish import list_files, publish, publish_comparison, say
from orchestration.evaluate.store import (
    MANIFEST,
    Manifest,
    PartialAnswers,
    check_comparable,
    read_evaluation,
    write_evaluation,
)
from orchestration.inputs.prepare import check_box_frame, check_images, check_rewards, model_folder, prepare_inputs
from orchestration.models.box_frame import family_frame, with_box_frame
from orchestration.page.formatting import progress_bars
from orchestration.settings.errors import ConfigError, DataError
from orchestration.settings.experiment import ExperimentConfig
from orchestration.settings.model import NOT_SET
from orchestration.settings.own_code import check_own_code, own_code
from orchestration.settings.seeds import derive_seed
from orchestration.storage.faults import FaultLog
from orchestration.storage.files import exclusive
from orchestration.storage.run_folder import RunFolder, flatten, read_inputs
from orchestration.workers.answers import EvaluatedSample
from orchestration.workers.collect import EvaluationRows, EvaluationSampling, collect, open_rows
from orchestration.workers.engine_pool import start_engines
from orchestration.workers.learner_group import start_learner
from orchestration.workers.reward_pool import start_reward_pool
from rollout.config import SamplingConfig
from rollout.conversation import PromptSpec
from rollout.dataset import is_dataset


def run_evaluation(config: ExperimentConfig, run: RunFolder | None) -> None:
    """Evaluate as configured; answers of an interrupted evaluation are reused.

    All checks come before anything is written or any actor is started. Without a run, the checkpoint is a model
    folder.

    Raises:
        ConfigError: The checkpoint, the preset, the device or the folder to compare with cannot be used.
        DataError: The data, or the earlier evaluation, cannot be used; or no row has a score.
        ResumeError: Another process is evaluating into the same folder.
    """
    check_own_code(config)
    settings = config.evaluate
    preset = preset_of(settings.preset)
    earlier = None if settings.against is None else read_evaluation(Path(settings.against).expanduser())
    weights = find_weights(config, run)
    data = find_data(config, run)
    _check_devices(config, needs_learner=weights.store is not None)
    config = with_weights(config, weights, run)
    model = Path(str(config.model.path))
    _print_conditions(config, run, weights.folder)
    if data is None:
        data = prepare_inputs(config, print).held_out
    check_images(config, data)
    check_box_frame(config, data)
    check_rewards(config.reward, model, data)
    dataset = open_rows(data, seed=config.seed, max_samples=settings.max_samples)
    folder = Path(settings.out).expanduser().absolute() if settings.out else _folder(config, weights.folder, data)
    manifest = _manifest(config, model, data, dataset)
    if earlier is not None:
        check_comparable(earlier[0], manifest)
    busy = f"another process is evaluating into {folder}; wait for it, or name another folder with out=..."
    with exclusive(folder, refusal=busy):
        samples = _answers(config, model, dataset, folder, manifest)
        publish(config, folder, manifest, dataset, samples, preset)
        if earlier is not None:
            publish_comparison(config, folder, dataset, earlier, (manifest, samples))
    list_files(folder)


def find_data(config: ExperimentConfig, run: RunFolder | None) -> Path | None:
    """Return the dataset to evaluate on; None if it is the result of the recipe, built or not.

    Raises:
        ConfigError: It is not on this machine.
    """
    held_out = config.data.held_out
    if config.evaluate.data:
        data = Path(config.evaluate.data).expanduser().absolute()
        if not data.exists():
            raise ConfigError(f"data={data} does not exist; correct the path, or build it (mixed-r1 data build)")
        if not is_dataset(data):
            raise ConfigError(
                f"data={data} is no dataset that was built, or a damaged one; build one from raw files (mixed-r1 data "
                f"build data.train={data} data.recipe.out=FOLDER), and set data=FOLDER/train"
            )
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
            raise ConfigError(f"data is not given, and {named} belongs to no run that names it; set data=...")
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


def with_weights(config: ExperimentConfig, weights: Weights, run: RunFolder | None) -> ExperimentConfig:
    """Return settings whose `model.path` is what engines load; a run's own checkpoint is exported first.

    Boxes are read in the frame of the run, or of the family of a model folder.

    Raises:
        CheckpointError: A file of the checkpoint was changed or damaged.
    """
    if weights.store is not None:
        assert run is not None  # only a run has checkpoints
        _export(config, weights.store, weights.step, weights.folder, run)
    frame = config.model.coord_mode
    if run is None and config.evaluate.checkpoint:  # the settings may be of another model
        frame = family_frame(replace(config.model, path=str(weights.folder))) or frame
    # Descriptions of the base model may be wrong for these weights, unless nothing else says its sizes; limits of image
    # sizes are kept.
    model, own = config.model, config.model.own_family
    sizes = model.hf_config if own else None
    model = replace(model, path=str(weights.folder), family=own, coord_mode=frame, hf_config=sizes, hf_processor=None)
    config = with_box_frame(replace(config, model=model))
    return replace(config, model=replace(model, path=str(model_folder(config))))


def _export(config: ExperimentConfig, store: FileStore, step: int, target: Path, run: RunFolder) -> None:
    """Export a checkpoint of the run as a Hugging Face folder, with a learner of the run's settings."""
    checkpoint.verify(store, checkpoint.read(store, step))
    base = model_folder(config)
    if config.learner.lora is not None:  # the checkpoint holds its adapters, wherever they began
        lora = replace(config.learner.lora, start=None)
        config = replace(config, learner=replace(config.learner, lora=lora))
    with actors_reserved(config, run.logs, roles=("learner",)) as reservations:
        learner = start_learner(config, base, reservations, run.logs)

        async def load_and_export() -> None:
            await learner.build(derive_seed(config.seed, "learner"))
            try:
                await learner.on_each("load", store, step)
                await learner.on_each("export", target)
            finally:
                await learner.close()

        asyncio.run(load_and_export())


def _check_devices(config: ExperimentConfig, *, needs_learner: bool) -> None:
    """Refuse an engine, or a learner that exports a checkpoint, on GPUs if this machine has none."""
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


def _print_conditions(config: ExperimentConfig, run: RunFolder | None, model: Path) -> None:
    """Print prompt, lengths and device of the evaluation, and differences from the run."""
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
            f"{model} belongs to no run and is evaluated with {how}; to change that: rollout.system_prompt=..., "
            "rollout.sampling.max_completion_tokens=..., rollout.engine.max_model_len=..., rollout.engine.device=..., "
            "or experiment=... for all of a recipe's"
        )
        return
    say(f"{model} is evaluated with the settings of its run {run.root}: {how}")
    for line in differences(run, config):
        say(f"  differs from the run: {line}")
    if config.evaluate.data:
        say(f"  differs from the run: data={config.evaluate.data}")


def _folder(config: ExperimentConfig, model: Path, data: Path) -> Path:
    name = model.parent.name if model.name == "export" else model.name
    dataset = data.parent.name if data.name in ("train", "held_out") else data.stem
    return config.run_path / "evaluations" / f"{name}-on-{dataset}"


def _manifest(config: ExperimentConfig, model: Path, data: Path, dataset: EvaluationRows) -> Manifest:
    settings, sampling = config.evaluate, config.rollout.sampling
    return Manifest(
        model=str(model),
        data=str(data),
        data_digest=dataset.digest,
        num_rows=len(dataset.ids),
        sampling={
            "greedy": int(settings.greedy),
            "num_completions": settings.num_completions,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_completion_tokens": sampling.max_completion_tokens,
            "system_prompt": config.rollout.system_prompt,
            "coord_mode": config.model.box_frame,
            "max_model_len": config.rollout.engine.max_model_len,
            "max_images_per_prompt": config.rollout.engine.max_images_per_prompt,
            "dtype": config.rollout.engine.dtype,
            "seed": config.seed,
            "reward": _reward_stamp(config),
            "weights": _weights_stamp(model),
            **_optional_prompt(config.rollout.prompt_spec),
            **_optional_sampling(sampling),
        },
    )


def _reward_stamp(config: ExperimentConfig) -> str:
    """Return a digest of the reward settings; own code counts by what it holds, not by where it lies."""
    text = repr(config.reward)
    for key, code in own_code(config.reward).items():
        text = text.replace(repr(code), digest_of(f"reward.{key}", code))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _optional_prompt(spec: PromptSpec) -> dict[str, int | float | str]:
    """Return what is added to the prompts of tasks or given to the chat template, if anything is."""
    added = {"task_prompts": spec.task_prompts, "chat_template_kwargs": spec.template_kwargs}
    return {key: json.dumps(dict(values), sort_keys=True) for key, values in added.items() if values}


def _optional_sampling(sampling: SamplingConfig) -> dict[str, int | float | str]:
    """Return those settings of sampling that are not at their defaults; an evaluation without them has no such keys."""
    changed: dict[str, int | float | str] = {}
    if sampling.top_k:
        changed["top_k"] = sampling.top_k
    if sampling.min_p:
        changed["min_p"] = sampling.min_p
    if sampling.stop:
        changed |= {"stop": json.dumps(sampling.stop), "keeps_stop": int(sampling.keeps_stop)}
    if sampling.tasks:
        changed["tasks"] = json.dumps({name: asdict(own) for name, own in sampling.tasks.items()}, sort_keys=True)
    return changed


def _weights_stamp(model: Path) -> str:
    """Return a digest of the sizes and times of weight files, so that a rewritten checkpoint is evaluated again."""
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(model.glob("*.safetensors"))]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:16]


def _answers(
    config: ExperimentConfig, model: Path, dataset: EvaluationRows, folder: Path, manifest: Manifest
) -> list[EvaluatedSample]:
    """Return the evaluated rows in order: those of a complete folder, else answers of the engines."""
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
        if len(answers.found) < len(dataset.ids):
            _ask(config, model, dataset, answers, folder / "logs")
        samples = [answers.found[sample_id] for sample_id in dataset.ids]
        check_any_scored(samples, answers)
        write_evaluation(folder, manifest, samples)
        answers.remove()
    return samples


def check_any_scored(samples: Sequence[EvaluatedSample], answers: PartialAnswers) -> None:
    """Refuse an evaluation in which all rows failed, and delete its answers, so that the same command retries them.

    Raises:
        DataError: No row has a score.
    """
    failures = Counter(sample.failure for sample in samples)
    if None in failures:
        return
    answers.remove()
    [(reason, count)] = failures.most_common(1)
    raise DataError(f"none of {len(samples)} rows could be scored; {count} of them: {reason}")


def _ask(config: ExperimentConfig, model: Path, dataset: EvaluationRows, answers: PartialAnswers, logs: Path) -> None:
    """Start engines and reward actors, and answer all rows that are not answered yet."""
    settings = config.evaluate
    sampling = EvaluationSampling(
        greedy=settings.greedy,
        num_sampled=settings.num_completions,
        sampling=config.rollout.sampling,
        seed=config.seed,
        coord_mode=config.model.box_frame,
    )

    async def ask(reservations: Reservations, finished: Callable[[EvaluatedSample], None]) -> None:
        limits = config.cluster.faults
        log = FaultLog(limits, logs / "faults.jsonl")
        engines = start_engines(config.rollout, model, reservations, logs, faults=limits, log=log)
        rewards = start_reward_pool(config, model, reservations, logs, log)
        try:
            await asyncio.gather(engines.ready(), rewards.ready())
            await collect(
                dataset.samples(answers.found),
                engines=engines,
                rewards=rewards,
                sampling=sampling,
                function_of=lambda task, source: config.reward.route(task, source).function,
                finished=finished,
            )
        finally:
            rewards.close()
            await engines.close()

    with actors_reserved(config, logs, roles=("engine", "reward")) as reservations, progress_bars() as bars:
        bar = bars.add_task("answering", total=len(dataset.ids), completed=len(answers.found))

        def finished(sample: EvaluatedSample) -> None:
            answers.add(sample)
            bars.update(bar, advance=1)

        asyncio.run(ask(reservations, finished))
