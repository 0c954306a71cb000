"""Check that the adapter from which training goes on fits, from its settings and the header of its file."""

from functools import partial
from pathlib import Path

from learner import adapter
from learner.errors import LearnerError
from orchestration.models.files import read_header
from orchestration.models.model_folder import parameter_name
from orchestration.models.shapes import shape_of
from orchestration.models.tensors import trained_tensors
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig


def check_adapter(config: ExperimentConfig) -> None:
    """Check that engines can adapt the layers of the adapter, and the one at learner.lora.start if there is one.

    Layers of a model family of the user's are first compared where the model is loaded.

    Raises:
        ConfigError: it is not there, cannot be represented, or is not the one of the settings.
    """
    lora = config.learner.lora
    if lora is None:
        return
    if lora.publish == "adapter" and config.model.own_family is None:
        check_adapted_parts(config)
    if lora.start is None:
        return
    folder = Path(lora.start)
    try:
        adapter.check_settings(folder, lora)
        if config.model.own_family is not None:
            return
        stored = {name: tensor.shape for name, tensor in read_header(folder / adapter.WEIGHTS_FILE).items()}
        shape = shape_of(config.model)
        wanted = {tensor.name: tensor.shape for tensor in trained_tensors(shape, config.learner.freeze, lora).trained}
        rename = partial(parameter_name, own={tensor.name for tensor in shape.tensors})
        adapter.match_factors(folder, stored, wanted, rename)
    except LearnerError as error:
        raise ConfigError(str(error)) from error


def check_adapted_parts(config: ExperimentConfig) -> None:
    """Check that only layers of the language model are adapted: vLLM adapts no others here.

    Raises:
        ConfigError: a layer of the vision tower or of the projector is.
    """
    trained = trained_tensors(shape_of(config.model), config.learner.freeze, config.learner.lora).trained
    others = [tensor for tensor in trained if tensor.part != "language_model"]
    if others:
        layer = others[0].name.split(".lora_")[0]
        parts = ", ".join(sorted({tensor.part for tensor in others}))
        raise ConfigError(
            f"learner.lora.publish is adapter, and engines add adapters to the language model alone; {layer} and "
            f"others of {parts} are trained: add {parts} to learner.freeze, or set learner.lora.publish=merged"
        )
