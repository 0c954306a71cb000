"""ModelFamily: what differs between families of vision-language models; everything else is the same for all.

Axes: P prompt tokens, A position axes, L tokens of a stream, D hidden size.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from learner.attention.kernel import StreamLayout

PARTS = ("vision_tower", "projector", "language_model")
"""Names under which a part of any family can be frozen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInputs:
    """One or more images as a vision tower takes them."""

    pixel_values: torch.Tensor
    """float32, rows of whatever the family's tower takes: patches or tiles."""
    grids: torch.Tensor
    """int64 [images, 3] shape of each image in those rows; the family says what the three numbers are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInputs:
    """What a model reads in one forward pass over a stream: tensors on the rank's device."""

    input_ids: torch.Tensor
    """int64 [1, L]"""
    position_ids: torch.Tensor
    """int64, shaped as the family's language model takes them."""
    pixel_values: torch.Tensor
    """float32 of all images, each once; of the dummy image where there is none."""
    grids: torch.Tensor
    """int64 [images, 3]"""
    image_rows: torch.Tensor
    """int64 [image tokens] stream rows that take image features; empty with a dummy image."""
    feature_rows: torch.Tensor
    """int64 [image tokens] which feature each takes: a prompt that occurs twice takes the same ones twice."""
    arguments: Mapping[str, Any]
    """Further keyword arguments of the language model, which hands them to its layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddedInputs:
    """What a model reads in one forward pass over right-padded rows: tensors on the rank's device."""

    input_ids: torch.Tensor
    """int64 [S, T]"""
    arguments: Mapping[str, torch.Tensor]
    """Further keyword arguments of the model's own forward: mask, token types, and tensors of images."""


def join_images(inputs: Sequence[ImageInputs]) -> ImageInputs:
    """Concatenate images."""
    return ImageInputs(
        pixel_values=torch.cat([image.pixel_values for image in inputs]),
        grids=torch.cat([image.grids for image in inputs]),
    )


class BaseFamily(ABC):
    """What any family says, whether its micro-batches are streams or padded."""

    parts: Mapping[str, tuple[str, ...]]
    """Part of PARTS -> beginnings of the names of its parameters."""
    is_padded: bool = False
    """Whether micro-batches are right-padded rows, `learner.policy.padding`, instead of a stream."""
    is_text_only: bool = False
    """Whether the model is a language model of AutoModelForCausalLM, which takes no images."""
    logit_scale: float = 1.0
    """Factor between the output head and the logits."""
    logit_cap: float | None = None
    """Bound c of soft-capped logits, c * tanh(logit / c); None where they are not capped."""

    def prepare(self, model: Any) -> None:  # noqa: B027 - most families change nothing
        """Change a new model whose parameters are still on the meta device; nothing by default.

        For layers of the language model that mix tokens otherwise than by transformers' attention interface.
        """

    def set_attention(self, model: Any, *, text: str, tower: str) -> None:
        """Set the attention implementations, by their names in transformers, of language model and vision tower."""
        model.set_attn_implementation({"text_config": text, "vision_config": tower})

    @abstractmethod
    def hidden_states(self, model: Any, inputs: Any) -> torch.Tensor:
        """Return the last hidden states [rows, D] of a micro-batch, after the final norm."""

    @abstractmethod
    def vision_blocks(self, model: Any) -> list[torch.nn.Module]:
        """Transformer blocks of the tower."""

    @abstractmethod
    def language_blocks(self, model: Any) -> list[torch.nn.Module]:
        """Transformer blocks of the language model."""

    def expert_layers(self, model: Any) -> list[Any]:
        """Return the layers of experts of the language model; none by default.

        Each has the modules `experts`, with stacked weights, and `gate`, which returns the logits [L, E] of the router,
        the weights [L, K] of the chosen experts and their indices [L, K].
        """
        return []


class ModelFamily(BaseFamily):
    """A family whose micro-batches are streams, built from a model's configuration."""

    def __init__(self, config: Any) -> None:
        self.image_token_id: int = config.image_token_id
        """Placeholder of an image's features in a prompt."""

    @abstractmethod
    def encode(self, image_processor: Any, images: Sequence[Image.Image]) -> list[ImageInputs]:
        """Process RGB images as the engine's processor does; one entry an image."""

    @abstractmethod
    def dummy_image(self) -> ImageInputs:
        """Return the smallest black image that the tower takes."""

    @abstractmethod
    def num_tokens(self, grid: Sequence[int]) -> int:
        """Count the prompt tokens of an image."""

    @abstractmethod
    def prompt_positions(
        self, is_image: NDArray[np.bool_], grids: Sequence[Sequence[int]]
    ) -> tuple[NDArray[np.int64], int]:
        """Return rotary positions [A, P] of a prompt, and the position of the token after it.

        Args:
            is_image: [P] True at image tokens.
            grids: of its images, in order.

        Raises:
            ValueError: an image's tokens are not contiguous.
        """

    @abstractmethod
    def position_ids(self, positions: torch.Tensor) -> torch.Tensor:
        """Shape positions [A, L] of a stream as the language model takes them."""

    @abstractmethod
    def image_features(self, model: Any, pixel_values: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
        """Run vision tower and projector; [image tokens, D], image after image."""

    def stream_arguments(self, layout: "StreamLayout", device: torch.device) -> dict[str, Any]:
        """Return what such layers need to know of a stream, as keyword arguments; nothing by default."""
        return {}

    def hidden_states(self, model: Any, inputs: StreamInputs) -> torch.Tensor:
        """Return the last hidden states [L, D] of a stream, after the final norm."""
        embeddings = model.get_input_embeddings()(inputs.input_ids)[0]
        features = self.image_features(model, inputs.pixel_values, inputs.grids).to(embeddings.dtype)
        embeddings = embeddings.index_copy(0, inputs.image_rows, features.index_select(0, inputs.feature_rows))
        # A dummy image has no rows; adding zero times its features keeps the vision tower in the graph of every rank.
        if len(inputs.image_rows) == 0:
            embeddings = embeddings + 0.0 * features.sum()
        hidden: torch.Tensor = model.model.language_model(
            inputs_embeds=embeddings[None], position_ids=inputs.position_ids, use_cache=False, **inputs.arguments
        ).last_hidden_state[0]
        return hidden

    def language_blocks(self, model: Any) -> list[torch.nn.Module]:
        return list(model.model.language_model.layers)
