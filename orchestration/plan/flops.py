"""Floating-point operations of learner and engine, counted from shapes: 2 a parameter and token, and attention.

Left out, as small beside these: norms, activations, the optimiser, and attention inside the vision tower.
"""

from dataclasses import dataclass

from learner.config import LearnerConfig
from orchestration.models.image_tokens import vision_rows
from orchestration.models.parameters import count_parameters
from orchestration.models.shapes import ModelShape
from orchestration.plan.batches import BatchPlan
from orchestration.plan.lengths import Lengths
from orchestration.settings.experiment import ExperimentConfig

FORWARD = 2
"""Operations of a parameter and token: multiply and add."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardFlops:
    """Operations of a forward pass over something.

    Example:
        >>> ForwardFlops(language=3.0, vision=1.0).total
        4.0
    """

    language: float
    vision: float

    @property
    def total(self) -> float:
        """Both."""
        return self.language + self.vision


def block_parameters(shape: ModelShape) -> int:
    """Parameters that every token of the language model passes through: without table and output head."""
    return count_parameters(shape).language_model - head_parameters(shape)


def head_parameters(shape: ModelShape) -> int:
    """Parameters of the output head, which may be the embedding table."""
    return shape.text.vocab_size * shape.text.width


def attention_flops(shape: ModelShape, context: float) -> float:
    """Operations of one token's attention over `context` tokens, all layers: scores, and their sum of values."""
    text = shape.text
    return 2 * FORWARD * context * text.num_heads * text.head_dim * text.num_layers


def image_flops(shape: ModelShape, num_image_tokens: float) -> float:
    """Operations of tower and projector for a prompt's pictures."""
    if num_image_tokens <= 0:
        return 0.0
    counts = count_parameters(shape)
    rows = vision_rows(shape, round(num_image_tokens))
    return FORWARD * (counts.vision_tower * rows + counts.projector * num_image_tokens)


def step_forward(shape: ModelShape, lengths: Lengths, batches: BatchPlan, *, copies_of_prompt: int) -> ForwardFlops:
    """Operations of one forward pass over all groups of a step.

    Args:
        shape: of the model.
        lengths: expected.
        batches: of the step.
        copies_of_prompt: how often a group's prompt stands in the stream.
    """
    prompt = lengths.prompt * copies_of_prompt
    completions = lengths.completion * batches.group_size
    blocks = FORWARD * block_parameters(shape)
    per_group = (
        blocks * (prompt + completions)
        + prompt * attention_flops(shape, lengths.prompt / 2)
        + completions * attention_flops(shape, lengths.prompt + lengths.completion / 2)
        + FORWARD * head_parameters(shape) * completions
    )
    return ForwardFlops(language=per_group * batches.groups, vision=image_flops(shape, lengths.image) * batches.groups)


def train_flops(config: ExperimentConfig, shape: ModelShape, lengths: Lengths, batches: BatchPlan) -> float:
    """Operations of a training step, all ranks: every update's forward and backward, and passes before them."""
    algorithm, learner = config.algorithm, config.learner
    copies = 1 if batches.prefix_sharing else batches.group_size
    forward = step_forward(shape, lengths, batches, copies_of_prompt=copies)
    recompute = 1 if learner.activation_checkpointing else 0
    language = forward.language * (1 + recompute + backward_factor(learner, "language_model"))
    is_tower_trained = backward_factor(learner, "vision_tower") > 0
    vision = forward.vision * (1 + (recompute if is_tower_trained else 0) + backward_factor(learner, "vision_tower"))
    return algorithm.num_epochs * (language + vision) + num_scoring_passes(config) * forward.total


def backward_factor(learner: LearnerConfig, part: str) -> int:
    """Backward operations in units of a forward pass: 1 for gradients of inputs, 1 for those of weights."""
    is_fixed = part in learner.freeze or learner.lora is not None
    if part == "vision_tower":
        return 0 if is_fixed else 2
    return 1 if is_fixed else 2


def num_scoring_passes(config: ExperimentConfig) -> int:
    """Forward passes before the first update: of the policy where `old` is recomputed, of the reference for KL."""
    algorithm = config.algorithm
    recomputes = algorithm.old_logprobs == "recomputed" and algorithm.num_epochs * algorithm.num_minibatches > 1
    return int(recomputes) + int(algorithm.kl_coef > 0)
