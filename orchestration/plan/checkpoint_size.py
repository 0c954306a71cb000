"""How large a checkpoint and an exported model are.

Source of the overheads: files written by torch 2.13 and DeepSpeed 0.19.8 of models whose tensors are known.
"""

import json
from dataclasses import replace
from pathlib import Path

from learner.config import LearnerConfig
from orchestration.models.shapes import ModelShape
from orchestration.models.tensors import model_tensors
from orchestration.plan.activations import FLOAT32, element_bytes
from orchestration.plan.trained import TrainedTensors, trained_tensors
from orchestration.settings.experiment import ExperimentConfig
from orchestration.settings.model import ModelConfig

STORED_TENSOR_BYTES = 1_725
"""A tensor's own archive inside a file of torch.distributed.checkpoint, beside its values."""
INDEX_ENTRY_BYTES = 382
"""Its entry in `.metadata`."""
RANDOM_STATE_BYTES = 13_389
"""random_<rank>.pt without a GPU; with one it is a few kilobytes more."""
SCRIPTS_BYTES = 41_070
"""Scripts that DeepSpeed copies into every checkpoint."""
EXPORT_HEADER_BYTES = 110
"""A tensor's entry in the header of a safetensors file."""


def checkpoint_bytes(config: ExperimentConfig, shape: ModelShape) -> int:
    """Give the bytes of one checkpoint, all ranks together.

    Float32 weights and AdamW's two averages are 12 bytes a trained parameter; FSDP adds each fixed one in the type of
    forward and backward (with adapters none), DeepSpeed what its own files repeat.
    """
    learner = replace(config.learner, algorithm=config.algorithm)
    split = trained_tensors(shape, learner.freeze, learner.lora)
    states = RANDOM_STATE_BYTES * learner.num_ranks
    if learner.backend == "fsdp":
        return _fsdp(learner, split) + states
    return _deepspeed(learner, split) + states


def share_bytes(config: ExperimentConfig, shape: ModelShape) -> int:
    """Give what one rank stages on its machine's disk on the way to the checkpoint directory."""
    return -(-checkpoint_bytes(config, shape) // config.learner.num_ranks)


def export_bytes(config: ExperimentConfig, shape: ModelShape) -> int:
    """Return the bytes of the weight files of an exported folder; tokenizer and processor are a few megabytes more.

    An export has the types of the model that it began from: of model.path as its config.json says; published weights
    are bfloat16; the demo's are float32.
    """
    size = stored_element_bytes(config.model)
    return sum(size * tensor.numel + EXPORT_HEADER_BYTES for tensor in model_tensors(shape))


def stored_element_bytes(model: ModelConfig) -> int:
    """Return the bytes of a weight in the folder that the run begins from."""
    if model.path is not None and (file := Path(model.path) / "config.json").is_file():
        saved = json.loads(file.read_text())
        text = saved.get("text_config", {})
        found = [part[key] for part in (saved, text) for key in ("dtype", "torch_dtype") if part.get(key)]
        return 2 if found and found[0] in ("bfloat16", "float16") else FLOAT32
    return 2 if model.path is not None or model.hf_config is not None else FLOAT32


def _fsdp(learner: LearnerConfig, split: TrainedTensors) -> int:
    trained = sum(tensor.numel for tensor in split.trained)
    fixed = 0 if learner.lora else sum(tensor.numel for tensor in split.fixed)
    num_weights = len(split.trained) + (0 if learner.lora else len(split.fixed))
    # Weights and averages are cut into a piece a rank; the count of steps of each tensor stands once.
    pieces = (num_weights + 2 * len(split.trained)) * learner.num_ranks + len(split.trained)
    return 12 * trained + element_bytes(learner) * fixed + pieces * (STORED_TENSOR_BYTES + INDEX_ENTRY_BYTES)


def _deepspeed(learner: LearnerConfig, split: TrainedTensors) -> int:
    size = element_bytes(learner)
    trained, fixed = (sum(tensor.numel for tensor in part) for part in (split.trained, split.fixed))
    # Stages 1 and 2 write the copy of forward and backward once more; stage 3 of it only what is fixed.
    copy = fixed if learner.deepspeed.zero_stage == 3 else trained + fixed
    return 12 * trained + size * copy + SCRIPTS_BYTES
