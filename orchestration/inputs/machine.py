"""Check that this machine can start a run: model, data, run folder and GPU driver."""

from pathlib import Path
from typing import Any

from conf.gpu_driver import driver_fault
from orchestration.models.model_folder import check_model
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import (
    ExperimentConfig,
    build_settings,
    check_inputs_named,
    check_writable,
    settings_errors,
)
from orchestration.settings.model import NOT_SET


def build_config(
    values: dict[str, Any], *, is_for_training: bool = True, is_for_check: bool = False
) -> ExperimentConfig:
    """Build the settings from composed YAML, and check them together and against this machine.

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
    draws_weights = is_for_check and config.check.random_weights
    check_machine(config, needs_data=not is_for_check, needs_weights=not draws_weights)
    return config


def check_machine(config: ExperimentConfig, *, needs_data: bool = True, needs_weights: bool = True) -> None:
    """Check that all inputs exist, with one error for all, and that the run folder can be written.

    Raises:
        ConfigError: an input is missing or cannot be used, or run_dir cannot be written.
    """
    refused: list[str] = []
    data = {"data.train": config.data.train, "data.held_out": config.data.held_out} if needs_data else {}
    for key, value in data.items():
        if value == NOT_SET:
            refused.append(f"{key} is not set; point it at a Parquet file or a folder of them (mixed-r1 data build)")
        elif value is not None and not Path(value).exists():
            refused.append(f"{key}={value} does not exist; build it (mixed-r1 data build) or correct the path")
    if config.model.folder is not None:
        try:
            check_model(config.model, config.reward, needs_weights=needs_weights)
        except ConfigError as error:
            refused.append(str(error))
    elif config.model.family is None:
        refused.append("model.path is not set; point it at a Hugging Face folder with the model's weights")
    # Where Ray runs already, the GPUs are on other machines; actors check there.
    is_on_gpus_here = config.rollout.engine.device == "cuda" and config.cluster.address is None
    if is_on_gpus_here and (fault := driver_fault()) is not None:
        refused.append(f"rollout.engine.device is cuda, but {fault}")
    if refused:
        raise ConfigError("; ".join(refused))
    if not config.run_path.is_absolute():
        raise ConfigError(f"run_dir={config.run_dir} must be absolute: workers run in folders of their own")
    check_writable("run_dir", config.run_path)
