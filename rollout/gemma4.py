"""Gemma 4 in vLLM, with the inputs of each layer at image tokens as transformers computes them."""

from typing import Any

import torch
from vllm.model_executor.models.gemma4_mm import Gemma4ForConditionalGeneration


class Gemma4(Gemma4ForConditionalGeneration):
    """vLLM's own, but for what the E2B and E4B sizes look up in `embed_tokens_per_layer` at image tokens.

    Transformers takes the row of `text_config.pad_token_id`; vLLM 0.32 takes row 0, whatever the configuration names.
    The two are equal where the padding token is 0, as transformers sets it for Gemma 4 unless told otherwise.
    """

    def embed_input_ids(
        self,
        input_ids: torch.Tensor,
        multimodal_embeddings: Any = None,
        *,
        is_multimodal: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the embeddings [L, D] of tokens and images, and keep the inputs of each layer for the forward pass."""
        embedded: torch.Tensor = super().embed_input_ids(input_ids, multimodal_embeddings, is_multimodal=is_multimodal)
        pad_token_id = self.config.text_config.pad_token_id
        if pad_token_id and is_multimodal is not None and self.per_layer_embeddings is not None:
            padding = self.language_model.model.get_per_layer_inputs(torch.full_like(input_ids[:1], pad_token_id))
            kept = self.per_layer_embeddings[: len(input_ids)]
            is_image = is_multimodal.to(kept.device, non_blocking=True)[:, None, None]
            kept.copy_(torch.where(is_image, padding, kept))
        return embedded
