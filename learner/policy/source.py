"""Where a policy comes from: its shape and weights in a Hugging Face folder, read by tensor or by rows."""

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig

from learner.adapter import WEIGHTS_FILE, check_settings, match_factors
from learner.attention.kernel import AttentionKernel
from learner.config import LoraConfig
from learner.errors import LearnerError
from learner.families.registry import get_family, load_family
from learner.policy.conversion import (
    EXPERT_AXES,
    are_swapped,
    buffer_names,
    checkpoint_names,
    parameter_naming,
    swapped_names,
)
from learner.policy.model import Policy, build_skeleton
from learner.ranks import derive_seed

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}
"""Types of weights by their names in a safetensors header."""
COMPARED_ROWS = 256
"""Rows that are compared to see whether an output head is a copy."""
STACKED_AXES = 3
"""Axes of stacked matrices; a kernel of a convolution over one axis is summed over its last one too, by channels."""


class PretrainedWeights:
    """The tensors of a checkpoint under the names of the module's parameters. Files are mapped, not loaded."""

    def __init__(self, model_path: str | Path, hf_model: Any) -> None:
        """Open the folder's safetensors files and match their names with the parameters of `hf_model`.

        Raises:
            LearnerError: there are no safetensors, or tensors of a parameter are missing.
        """
        folder = Path(model_path)
        self._files = {path: safe_open(str(path), framework="pt") for path in _weight_files(folder)}
        self._places: dict[str, tuple[Path, str]] = {}
        self._stacks: dict[str, dict[tuple[int, int], tuple[Path, str]]] = {}
        """Of a parameter that stacks matrices of a tensor each: by its number and part of it."""
        self._locate = parameter_naming(hf_model)
        for path, file in self._files.items():
            for key in file.keys():  # noqa: SIM118
                place = self._locate(key)
                if place.expert is None:
                    self._places[place.name] = (path, key)
                else:
                    self._stacks.setdefault(place.name, {})[place.expert, place.part] = (path, key)
        missing = [name for name, parameter in hf_model.named_parameters() if not self._holds(name, parameter.shape)]
        if missing:
            raise LearnerError(
                f"{folder}: the weight files lack {len(missing)} parameters of this architecture, one is {missing[0]}; "
                "the folder is incomplete or of another model"
            )
        own = {
            name: tuple(hf_model.get_parameter(name).shape)
            for name in swapped_names(hf_model, checkpoint_names(hf_model))
        }
        stored = {name: tuple(self._slice(self._places[name]).get_shape()) for name in own}
        self._swapped: Collection[str] = own if are_swapped(stored, own, folder) else ()

    def add_adapter(self, config: LoraConfig, factors: Mapping[str, tuple[int, ...]]) -> None:
        """Open the adapter at `config.start`, whose tensors are then among the weights.

        Args:
            config: of the run's adapters.
            factors: name and shape of each of their parameters.

        Raises:
            LearnerError: the adapter is not that of the settings.
        """
        folder = Path(str(config.start))
        check_settings(folder, config)
        path = folder / WEIGHTS_FILE
        file = self._files[path] = safe_open(str(path), framework="pt")
        stored = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        for name, key in match_factors(folder, stored, factors, lambda key: self._locate(key).name).items():
            self._places[name] = (path, key)
            self.dtype(name)  # refuses what is quantised

    def __contains__(self, name: str) -> bool:
        return name in self._places or name in self._stacks

    def dtype(self, name: str) -> torch.dtype:
        """Return the type in which a parameter's tensor is stored.

        Raises:
            LearnerError: it is not a floating-point type.
        """
        place = self._places[name] if name in self._places else next(iter(self._stacks[name].values()))
        stored = self._slice(place).get_dtype()
        if stored not in DTYPES:
            path, key = place
            raise LearnerError(
                f"{path}: {key} is stored as {stored}, which is no type to train from; point model.path at the "
                f"checkpoint that is not quantised ({', '.join(DTYPES)})"
            )
        return DTYPES[stored]

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Return some rows of a parameter's tensor in the type in which it is stored; only these are read."""
        if name in self._stacks:
            return self._stacked(self._stacks[name], start, stop)
        stored = self._slice(self._places[name])
        tensor: torch.Tensor = stored[start:stop] if stored.get_shape() else stored[...]
        return tensor.transpose(*EXPERT_AXES).contiguous() if name in self._swapped else tensor

    def _stacked(self, stack: Mapping[tuple[int, int], tuple[Path, str]], start: int, stop: int | None) -> torch.Tensor:
        num_parts = 1 + max(part for _, part in stack)
        numbers = range(len(stack) // num_parts)[start:stop]
        matrices = [torch.cat([self._slice(stack[number, part])[:] for part in range(num_parts)]) for number in numbers]
        one = [self._slice(stack[0, part]).get_shape() for part in range(num_parts)]
        return torch.stack(matrices) if matrices else torch.empty(0, sum(rows for rows, _ in one), one[0][1])

    def _holds(self, name: str, shape: Sequence[int]) -> bool:
        """Whether a parameter of this shape is in the files, each part of each matrix that it stacks included."""
        if name not in self._stacks:
            return name in self._places
        numbers = {number for number, _ in self._stacks[name]}
        num_parts = len({part for _, part in self._stacks[name]})
        return numbers == set(range(shape[0])) and len(self._stacks[name]) == len(numbers) * num_parts

    def _slice(self, place: tuple[Path, str]) -> Any:
        path, key = place
        return self._files[path].get_slice(key)


def has_own_output_head(folder: Path) -> bool:
    """Return whether a checkpoint stores an output head that is not a copy of its embedding table.

    Its config.json may say, or leave transformers' default to say, that the two are tied; the weights decide, as they
    do where transformers itself loads a model.

    Raises:
        LearnerError: there are no safetensors.
    """
    found = {}
    for path in _weight_files(folder):
        with safe_open(str(path), framework="pt") as file:
            for key in file.keys():  # noqa: SIM118
                for name in ("lm_head.weight", "embed_tokens.weight"):
                    if key.endswith(name):
                        found[name] = file.get_slice(key)[:COMPARED_ROWS]
    return len(found) == 2 and not torch.equal(found["lm_head.weight"], found["embed_tokens.weight"])


def _weight_files(folder: Path) -> list[Path]:
    if (folder / INDEX_FILE).is_file():
        weight_map: dict[str, str] = json.loads((folder / INDEX_FILE).read_text())["weight_map"]
        files = [folder / name for name in sorted(set(weight_map.values()))]
    else:
        files = [folder / SINGLE_FILE]
    for file in files:
        if not file.is_file():
            raise LearnerError(
                f"{folder} lacks {file.name}; download the whole checkpoint, or convert its weights to safetensors"
            )
    return files


class RandomWeights:
    """Random tensors, a function of their names: matrices keep the scale of their inputs, norm weights are near 1."""

    BLOCK_ROWS = 4096
    """Rows that are drawn at once, so that some rows of a tensor are those of the whole one."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> None:
        self._shapes = shapes
        self._dtype = dtype

    def __contains__(self, name: str) -> bool:
        return name in self._shapes

    def dtype(self, name: str) -> torch.dtype:
        """Return the type of all tensors."""
        return self._dtype

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Return some rows of a parameter's tensor; only their blocks are drawn."""
        shape = self._shapes[name] or (1,)
        first, last, _ = slice(start, stop).indices(shape[0])
        blocks = range(first // self.BLOCK_ROWS, -(-last // self.BLOCK_ROWS))
        drawn = [self._block(name, block, shape) for block in blocks] or [torch.empty(0, *shape[1:])]
        offset = blocks.start * self.BLOCK_ROWS
        rows = torch.cat(drawn)[first - offset : last - offset]
        return rows.to(self._dtype) if self._shapes[name] else rows[0].to(self._dtype)

    def _block(self, name: str, block: int, shape: tuple[int, ...]) -> torch.Tensor:
        num_rows = min(self.BLOCK_ROWS, shape[0] - block * self.BLOCK_ROWS)
        generator = torch.Generator().manual_seed(derive_seed(0, name, block))
        drawn = torch.randn(num_rows, *shape[1:], generator=generator)
        if len(shape) > 1:
            # Of stacked experts, one matrix each, the last axis alone is summed over.
            return drawn / math.sqrt(shape[-1] if len(shape) == STACKED_AXES else math.prod(shape[1:]))
        return 1.0 + 0.1 * drawn if name.endswith("weight") else 0.1 * drawn


Weights = PretrainedWeights | RandomWeights
"""Tensors by the names of the module's parameters."""


class FolderSource:
    """A Hugging Face folder, from which equal policies are built: one to train, one as reference."""

    def __init__(
        self,
        model_path: str | Path,
        kernel: AttentionKernel,
        *,
        temperature: float,
        banned_token_ids: Sequence[int] = (),
        random_weights: bool = False,
        own_family: str | None = None,
    ) -> None:
        """Read the configuration.

        Args:
            model_path: the folder.
            kernel: attention of the language model.
            temperature: sampling temperature of the rollout.
            banned_token_ids: tokens that the rollout never samples.
            random_weights: draw the weights, always the same ones, instead of reading them.
            own_family: the user's class of the model's family, FILE.py:NAME; its file may register an architecture
                with transformers.

        Raises:
            LearnerError: there is no configuration, or the user's class cannot be used.
        """
        self._own_family = None if own_family is None else load_family(own_family)
        if not (Path(model_path) / "config.json").is_file():
            raise LearnerError(
                f"learner.model_path={model_path} holds no config.json; point it at a Hugging Face folder"
            )
        self._model_path = model_path
        self._config = AutoConfig.from_pretrained(str(model_path))
        self._kernel = kernel
        self._temperature = temperature
        self._banned_token_ids = banned_token_ids
        self._is_random = random_weights

    def skeleton(self) -> Policy:
        """Build a policy whose parameters are on the meta device; its buffers are real, and read where they are stored.

        Whether the output head is tied is decided by the weights, and by the configuration where they are drawn.

        Raises:
            LearnerError: the model is of a family that the learner does not know, or there are no safetensors.
        """
        family = get_family(self._config, self._own_family)  # before the search for weights, which may not be there
        if not self._is_random and has_own_output_head(Path(self._model_path)):
            self._config.tie_word_embeddings = False
            self._config.get_text_config().tie_word_embeddings = False
        policy = build_skeleton(
            self._config, family, self._kernel, temperature=self._temperature, banned_token_ids=self._banned_token_ids
        )
        buffers = buffer_names(policy.hf_model)
        if buffers and not self._is_random:
            weights = PretrainedWeights(self._model_path, policy.hf_model)
            optional = policy.hf_model._keys_to_ignore_on_load_missing or ()
            missing = [n for n in buffers if n not in weights and not any(re.search(key, n) for key in optional)]
            if missing:
                raise LearnerError(
                    f"the weight files in {self._model_path} lack {len(missing)} buffers of this architecture, such as "
                    f"{missing[0]}; the folder is incomplete: download the whole checkpoint"
                )
            for name in buffers:
                if name in weights:
                    policy.hf_model.get_buffer(name).copy_(weights.rows(name))
        return policy

    def weights(self, policy: Policy) -> Weights:
        """Open the weights of a skeleton that has no adapters yet, as they change parameter names.

        Raises:
            LearnerError: there are no safetensors, or tensors are missing.
        """
        if not self._is_random:
            return PretrainedWeights(self._model_path, policy.hf_model)
        shapes = {name: tuple(parameter.shape) for name, parameter in policy.hf_model.named_parameters()}
        return RandomWeights(shapes, self._config.dtype or torch.float32)
