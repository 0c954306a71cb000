"""How many parameters a model has, by part."""

from dataclasses import dataclass

from orchestration.models.shapes import ModelShape
from orchestration.models.tensors import model_tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterCounts:
    """Parameters by part.

    Example:
        >>> ParameterCounts(vision_tower=3, projector=2, language_model=10, lm_head=1).total
        16
    """

    vision_tower: int
    projector: int
    language_model: int
    """Embedding table, blocks and last norm; without an output head of its own."""
    lm_head: int
    """0 where the output head is the embedding table."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.vision_tower + self.projector + self.language_model + self.lm_head


def count_parameters(shape: ModelShape) -> ParameterCounts:
    """Count exactly."""
    counts = {"vision_tower": 0, "projector": 0, "language_model": 0, "lm_head": 0}
    for tensor in model_tensors(shape):
        counts["lm_head" if tensor.name == "lm_head.weight" else tensor.part] += tensor.numel
    return ParameterCounts(**counts)
