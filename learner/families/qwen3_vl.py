"""Qwen3-VL."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch

from learner.families.base import StreamInputs
from learner.families.qwen2_5_vl import Qwen25VL


class Qwen3VL(Qwen25VL):
    """Qwen3-VL, dense, 2B to 32B: positions of Qwen2.5-VL, image features in several layers, boxes in 0..1000.

    Source: arXiv:2511.21631; features of several tower blocks in several layers (DeepStack), arXiv:2406.04334.

    A grid is that of Qwen2.5-VL; a still image always has one frame.
    """

    parts: Mapping[str, tuple[str, ...]] = MappingProxyType(
        {
            "vision_tower": ("model.visual.patch_embed.", "model.visual.pos_embed.", "model.visual.blocks."),
            "projector": ("model.visual.merger.", "model.visual.deepstack_merger_list."),
            "language_model": ("model.language_model.", "lm_head."),
        }
    )

    def hidden_states(self, model: Any, inputs: StreamInputs) -> torch.Tensor:
        """See ModelFamily; the first layers add features of earlier tower blocks at the rows of image tokens."""
        embeddings = model.get_input_embeddings()(inputs.input_ids)[0]
        vision = model.model.get_image_features(inputs.pixel_values, inputs.grids, return_dict=True)
        levels = [
            torch.cat(images).to(embeddings.dtype) for images in (vision.pooler_output, *vision.deepstack_features)
        ]
        first, *deeper = [features.index_select(0, inputs.feature_rows) for features in levels]
        embeddings = embeddings.index_copy(0, inputs.image_rows, first)
        # As in ModelFamily, for every rank to reach the whole tower.
        if len(inputs.image_rows) == 0:
            embeddings = embeddings + 0.0 * sum(features.sum() for features in levels)
        # Rows are in ascending order, so the mask takes features in the order of `feature_rows`.
        is_image = torch.zeros_like(inputs.input_ids, dtype=torch.bool)
        is_image[0, inputs.image_rows] = True
        hidden: torch.Tensor = model.model.language_model(
            inputs_embeds=embeddings[None],
            position_ids=inputs.position_ids,
            use_cache=False,
            visual_pos_masks=is_image,
            deepstack_visual_embeds=deeper,
            **inputs.arguments,
        ).last_hidden_state[0]
        return hidden
