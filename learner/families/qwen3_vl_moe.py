"""Qwen3-VL with a mixture of experts."""

from typing import Any

from learner.families.qwen3_vl import Qwen3VL


class Qwen3VLMoe(Qwen3VL):
    """Qwen3-VL-MoE, 30B-A3B and 235B-A22B: Qwen3-VL whose language model has experts in place of its MLPs."""

    def expert_layers(self, model: Any) -> list[Any]:
        """See ModelFamily; some layers may be dense."""
        from transformers.models.qwen3_vl_moe.modeling_qwen3_vl_moe import Qwen3VLMoeTextSparseMoeBlock

        layers = [block.mlp for block in self.language_blocks(model)]
        return [layer for layer in layers if isinstance(layer, Qwen3VLMoeTextSparseMoeBlock)]
