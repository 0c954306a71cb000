"""This machine: whether a run can start on it, and where the model and the rows of the run are."""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

from conf.gpu_driver import driver_fault
from orchestration.demo.prepare import model_folder
from orchestration.inputs.hub import hub_name, with_hub_folders
from orchestration.models.adapter import check_adapter
from orchestration.models.box_frame import with_box_frame
from orchestration.models.model_folder import check_model
from orchestration.settings.errors import ConfigError, DataError
from orchestration.settings.experiment import (
    POINT_IT,
    ExperimentConfig,
    build_settings,
    check_inputs_named,
    check_writable,
    settings_errors,
)
from orchestration.settings.model import NOT_SET
from orchestration.settings.own_code import check_own_code
from orchestration.settings.tracking import missing_key, missing_packages
from orchestration.storage.push import check_place


def build_config(
    values: dict[str, Any], *, is_for_training: bool = True, is_for_check: bool = False
) -> ExperimentConfig:
    """Build the settings from composed YAML, and check them together and against this machine.

    Models and datasets that are named by their names on a hub are downloaded, and files of the user's own in data.train
    become sources of data.recipe.

    Args:
        values: Composed settings.
        is_for_training: Whether there is a learner; False for commands that have none.
        is_for_check: Whether it is for `mixed-r1 check`, which reads no dataset and may use random weights.

    Raises:
        ConfigError: naming the dotted key, its value and the remedy.
    """
    config = build_settings(values)
    for error in settings_errors(config, is_for_training=is_for_training):
        raise error
    if is_for_training and not is_for_check:
        check_inputs_named(config)
    config = with_box_frame(with_hub_folders(config))
    if not is_for_check:
        config = with_own_files(config)
    draws_weights = is_for_check and config.check.random_weights
    is_tracked = is_for_training and not is_for_check
    check_machine(config, needs_data=not is_for_check, needs_weights=not draws_weights, needs_trackers=is_tracked)
    return config


def with_own_files(config: ExperimentConfig) -> ExperimentConfig:
    """Return settings in which files of the user's own in data.train are sources of data.recipe.

    Raises:
        ConfigError: they cannot be read, or their columns are not recognised.
    """
    if config.data.train is None:
        return config
    from orchestration.inputs.own_data import with_own_data  # readers of all formats

    return with_own_data(config)


def check_machine(
    config: ExperimentConfig, *, needs_data: bool = True, needs_weights: bool = True, needs_trackers: bool = False
) -> None:
    """Check that all inputs and own code exist, with one error for all, and that the run folder can be written.

    Raises:
        ConfigError: an input is missing or cannot be used, or run_dir cannot be written.
    """
    refused: list[str] = []
    data = {"data.train": config.data.train, "data.held_out": config.data.held_out} if needs_data else {}
    if needs_data and config.evaluation.enabled:
        data |= {f"evaluation.sets.{name}.path": one.path for name, one in config.evaluation.sets.items()}
    for key, value in data.items():
        if value == NOT_SET:
            refused.append(f"{key} is not set; {POINT_IT}")
        elif value is not None and not Path(value).exists():
            refused.append(f"{key}={value} does not exist; correct the path, or build it (mixed-r1 data build)")
    if config.model.folder is not None:
        try:
            check_model(config.model, config.reward, config.rollout.prompt_spec, needs_weights=needs_weights)
        except ConfigError as error:
            refused.append(str(error))
    elif config.model.tiny is None:
        refused.append("model.path is not set; point it at a Hugging Face folder with the model's weights")
    if needs_weights and not refused:  # what it is added to must be known
        try:
            check_adapter(config)
        except ConfigError as error:
            refused.append(str(error))
    lora = config.learner.lora
    if not needs_weights and lora is not None and lora.publish == "adapter":
        refused.append(
            "check.random_weights is true with learner.lora.publish=adapter, where engines read the weights of "
            "model.path; set check.random_weights=false, or learner.lora.publish=merged"
        )
    try:
        check_own_code(config)
    except ConfigError as error:
        refused.append(str(error))
    # Where Ray runs already, the GPUs are on other machines; actors check there.
    is_on_gpus_here = config.rollout.engine.device == "cuda" and config.cluster.address is None
    if is_on_gpus_here and (fault := driver_fault()) is not None:
        refused.append(f"rollout.engine.device is cuda, but {fault}")
    if needs_trackers:
        refused += missing_packages(config.trackers, config.tracking) or filter(
            None, [missing_key(config.trackers, config.tracking)]
        )
    if refused:
        raise ConfigError("; ".join(refused))
    if not config.run_path.is_absolute():
        raise ConfigError(f"run_dir={config.run_dir} must be absolute: workers run in folders of their own")
    check_writable("run_dir", config.run_path)
    if (place := config.training.push_to) is not None:
        check_place("training.push_to", place)
        if "://" not in place:
            check_writable("training.push_to", Path(place))


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """Where the rows are, or how to make them."""

    train: Path | None
    """File or folder of shards; None where there is none yet."""
    held_out: Path | None
    note: str
    """What to do where it is not there; else empty."""


def known_model_folder(config: ExperimentConfig) -> Path | None:
    """Return the model's folder if it is there: the configured one, or the one that the demo has made."""
    folder = config.model.folder
    if folder is None and config.model.tiny is not None:
        try:
            folder = model_folder(Path(config.cache_dir), config.demo, config.model, config.reward.format)
        except PackageNotFoundError:  # its name holds torch's version; where torch is not installed it was never made
            return None
    return folder if folder is not None and folder.is_dir() else None


def locate(config: ExperimentConfig) -> Located:
    """Find the dataset without building it; only cached digests of its raw files are written."""
    if config.data.train is not None:
        return _of_files(config.data.train, config.data.held_out)
    recipe = config.data.recipe
    assert recipe is not None  # checked where the configuration was built
    built = Path(config.cache_dir) / "data" / "built"
    out = Path(recipe.out).expanduser().absolute() if recipe.out else None
    candidates = [out] if out else sorted(built.glob(f"{recipe.name}-*"))
    if not any(folder.is_dir() for folder in candidates):
        return _absent(recipe.name)
    folder = known_model_folder(config)
    if folder is None:
        return _absent(recipe.name, "datasets are kept by the model's processor, and the model is not there; ")
    from orchestration.data.plan import Dataset, is_built, plan_build  # adapters of all formats, seldom needed here

    try:
        job = plan_build(config, folder)
        if not is_built(job):
            return _absent(recipe.name)
    except (ConfigError, DataError, OSError) as error:
        return _absent(recipe.name, f"{str(error).splitlines()[0]}; ")
    dataset = Dataset(job.out)
    return Located(train=dataset.train, held_out=dataset.held_out if dataset.held_out.is_dir() else None, note="")


def _of_files(train: str, held_out: str | None) -> Located:
    files = {"data.train": train} | ({} if held_out is None else {"data.held_out": held_out})
    found = {key: Path(value) if value != NOT_SET and Path(value).exists() else None for key, value in files.items()}
    missing = [key for key, path in found.items() if path is None]
    on_hub = [key for key in missing if hub_name(files[key]) is not None]
    notes = [
        f"{key} is not set" if files[key] == NOT_SET else f"{key}={files[key]} is not there"
        for key in missing
        if key not in on_hub
    ]
    note = f"{'; '.join(notes)}. mixed-r1 data build makes such files" if notes else ""
    if on_hub:
        names = "; ".join(f"{key}={files[key]}" for key in on_hub)
        note = (
            f"{note}. " * bool(note) + f"{names}: no path here; as a name on the Hugging Face Hub, train downloads it"
        )
    return Located(train=found["data.train"], held_out=found.get("data.held_out"), note=note)


def _absent(name: str, why: str = "") -> Located:
    note = f"{why}the first `mixed-r1 train` draws the rows, in seconds"
    if name != "demo":
        note = (
            f"{why}recipe {name} is not built: mixed-r1 data build with the same settings, before or as the first step "
            "of train"
        )
    return Located(train=None, held_out=None, note=note)
