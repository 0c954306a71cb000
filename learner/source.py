"""Where a backend gets a policy from: its shape, then its weights, a tensor or some rows of one at a time."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from transformers import AutoConfig

from learner.attention.registry import AttentionKernel
from learner.errors import LearnerError
from learner.families.registry import get_family
from learner.model import Policy, build_skeleton
from learner.pretrained import PretrainedWeights, checkpoint_names, has_own_output_head
from learner.random_state import derive_seed


class Weights(Protocol):
    """Tensors by the names of the module's parameters."""

    def full(self, name: str) -> torch.Tensor:
        """Give a whole tensor."""
        ...

    def dtype(self, name: str) -> torch.dtype:
        """Return the type in which a tensor is stored."""
        ...

    def rows(self, name: str, start: int, stop: int | None) -> torch.Tensor:
        """Give some rows (of the first axis) of a tensor."""
        ...


class PolicySource(Protocol):
    """Gives as many equal policies as are asked for: one to train, one as reference."""

    def skeleton(self) -> Policy:
        """Build a policy whose parameters are on the meta device; its buffers are real."""
        ...

    def weights(self, policy: Policy) -> Weights:
        """Open the weights of a skeleton that nothing has renamed yet."""
        ...

    def checkpoint_names(self, policy: Policy) -> Mapping[str, str]:
        """Map each parameter's name to the one that engines and exported folders want."""
        ...


class FolderSource:
    """A Hugging Face folder."""

    def __init__(
        self,
        model_path: str | Path,
        kernel: AttentionKernel,
        *,
        temperature: float,
        banned_token_ids: Sequence[int] = (),
    ) -> None:
        """Read the configuration.

        Args:
            model_path: the folder.
            kernel: attention of the language model.
            temperature: sampling temperature of the rollout.
            banned_token_ids: tokens that the rollout never samples.

        Raises:
            LearnerError: there is no configuration.
        """
        if not (Path(model_path) / "config.json").is_file():
            raise LearnerError(
                f"learner.model_path={model_path} holds no config.json; point it at a Hugging Face folder"
            )
        self._model_path = model_path
        self._config = AutoConfig.from_pretrained(str(model_path))
        self._kernel = kernel
        self._temperature = temperature
        self._banned_token_ids = banned_token_ids

    def skeleton(self) -> Policy:
        """See PolicySource.

        Raises:
            LearnerError: the model is of a family that the learner does not know, or there are no safetensors.
        """
        get_family(self._config)  # before the weights are looked for, which it may not have at all
        if has_own_output_head(Path(self._model_path)):
            self._config.tie_word_embeddings = False
            self._config.get_text_config().tie_word_embeddings = False
        return self._build()

    def _build(self) -> Policy:
        return build_skeleton(
            self._config, self._kernel, temperature=self._temperature, banned_token_ids=self._banned_token_ids
        )

    def weights(self, policy: Policy) -> Weights:
        """See PolicySource.

        Raises:
            LearnerError: there are no safetensors, or tensors are missing.
        """
        return PretrainedWeights(self._model_path, policy.hf_model)

    def checkpoint_names(self, policy: Policy) -> dict[str, str]:
        """See PolicySource.

        Raises:
            LearnerError: transformers merges tensors of this model while loading, so names are not one to one.
        """
        return checkpoint_names(policy.hf_model)


class RandomSource(FolderSource):
    """A Hugging Face folder of which the weights are not read: they are drawn, always the same ones."""

    def skeleton(self) -> Policy:
        """See PolicySource; whether the output head is tied is what the configuration says."""
        return self._build()

    def weights(self, policy: Policy) -> "RandomWeights":
        """See PolicySource."""
        shapes = {name: tuple(parameter.shape) for name, parameter in policy.hf_model.named_parameters()}
        return RandomWeights(shapes, self._config.dtype or torch.float32)


class RandomWeights:
    """Tensors that are a function of their names: matrices keep the size of what goes through them, norms are 1."""

    BLOCK_ROWS = 4096
    """Rows that are drawn at once, so that some rows of a tensor are those of the whole one."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> None:
        """Draw tensors of these shapes, by name, in one type."""
        self._shapes = shapes
        self._dtype = dtype

    def full(self, name: str) -> torch.Tensor:
        """See Weights."""
        return self.rows(name, 0, None)

    def dtype(self, name: str) -> torch.dtype:
        """See Weights."""
        return self._dtype

    def rows(self, name: str, start: int, stop: int | None) -> torch.Tensor:
        """See Weights."""
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
            return drawn / math.sqrt(math.prod(shape[1:]))
        return 1.0 + 0.1 * drawn if name.endswith("weight") else 0.1 * drawn
