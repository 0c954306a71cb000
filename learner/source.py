"""Where a backend gets a policy from: its shape, then its weights, a tensor or some rows of one at a time."""

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
        get_family(self._config)
        if has_own_output_head(Path(self._model_path)):
            self._config.tie_word_embeddings = False
            self._config.get_text_config().tie_word_embeddings = False
        return build_skeleton(
            self._config, self._kernel, temperature=self._temperature, banned_token_ids=self._banned_token_ids
        )

    def weights(self, policy: Policy) -> PretrainedWeights:
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
