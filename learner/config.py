"""LearnerConfig, AlgorithmConfig, OptimizerConfig: what a user may set of the learner."""

import math
from dataclasses import dataclass, field
from typing import Literal

from learner.errors import LearnerError


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmConfig:
    """How rewards become a gradient; read by learner/algorithms."""

    name: str = "grpo"
    """Entry of learner/algorithms/registry.py."""
    clip_low: float = 0.2
    """The importance ratio is clipped at 1 - clip_low."""
    clip_high: float = 0.28
    """... and at 1 + clip_high. The asymmetric pair 0.2, 0.28 is DAPO's (arXiv:2503.14476)."""
    kl_coef: float = 0.0
    """Weight of the KL estimate to the frozen start model; 0 loads no reference model."""
    normalize_std: bool = True
    """Divide centred rewards by the group's standard deviation; false is Dr. GRPO (arXiv:2503.20783)."""
    std_floor: float = 0.0
    """Least standard deviation to divide by, so that tiny differences of a dense reward are not blown up."""
    range_epsilon: float = 1e-6
    """A group whose rewards span less than this has zero advantage: its differences are rounding."""
    loss: Literal["token"] = "token"
    """token: mean over all completion tokens of the step."""
    temperature: float = 1.0
    """Sampling temperature of the rollout, which behaviour logprobs refer to."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _require_in("algorithm.clip_low", self.clip_low, 0.0, 1.0)
        _require_in("algorithm.clip_high", self.clip_high, 0.0, math.inf)
        _require_in("algorithm.kl_coef", self.kl_coef, 0.0, math.inf)
        _require_in("algorithm.std_floor", self.std_floor, 0.0, math.inf)
        _require_positive("algorithm.range_epsilon", self.range_epsilon)
        _require_positive("algorithm.temperature", self.temperature)


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """AdamW and its learning-rate schedule."""

    name: Literal["adamw"] = "adamw"
    learning_rate: float
    """Peak, reached after the warm-up; 0 leaves the weights as they are, a control run."""
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    """On matrices only; vectors (biases, norms) are not decayed."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """After the warm-up: stay, or fall to 0 at total_steps."""
    warmup_steps: int = 0
    """Optimiser steps of linear rise."""
    total_steps: int | None = None
    """Optimiser steps of the run; needed by linear and cosine."""

    def __post_init__(self) -> None:
        """Check ranges, and that a falling schedule knows its end."""
        _require_in("optimizer.learning_rate", self.learning_rate, 0.0, math.inf)
        _require_positive("optimizer.eps", self.eps)
        _require_in("optimizer.weight_decay", self.weight_decay, 0.0, math.inf)
        _require_in("optimizer.warmup_steps", self.warmup_steps, 0, math.inf)
        for beta in self.betas:
            if not 0.0 <= beta < 1.0:
                raise LearnerError(f"optimizer.betas is {self.betas}; both must lie in [0, 1)")
        if self.schedule != "constant" and (self.total_steps is None or self.total_steps <= self.warmup_steps):
            raise LearnerError(
                f"optimizer.total_steps is {self.total_steps}; schedule {self.schedule} falls to 0 there, so set it "
                f"above warmup_steps={self.warmup_steps}, or use schedule constant"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerConfig:
    """Everything one learner needs."""

    optimizer: OptimizerConfig
    model_path: str = ""
    """Hugging Face folder of the policy; set by the conductor once the model exists."""
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    """Set by the conductor from the algorithm group."""
    device: Literal["cpu", "cuda"] = "cpu"
    num_ranks: int = 1
    """Learner processes; the weights are sharded between them."""
    threads_per_rank: int = 1
    """CPU threads of torch in each rank."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of forward and backward; weights, optimiser and reductions are float32 always."""
    micro_batch_tokens: int = 8192
    """Most tokens of one forward pass: prompts once a group, plus completions. A longer group is split."""
    activation_checkpointing: bool = False
    """Recompute block activations in the backward pass: less memory, about a third more time."""
    max_grad_norm: float = 1.0
    """The gradient's global 2-norm is scaled down to this."""
    freeze: tuple[str, ...] = ()
    """Shell patterns of parameter names that stay fixed, e.g. model.visual.*"""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("num_ranks", "threads_per_rank", "micro_batch_tokens"):
            if getattr(self, name) < 1:
                raise LearnerError(f"learner.{name} is {getattr(self, name)}; it must be at least 1")
        _require_positive("learner.max_grad_norm", self.max_grad_norm)


def _require_positive(key: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise LearnerError(f"{key} is {value}; it must be a finite number above 0")


def _require_in(key: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise LearnerError(f"{key} is {value}; it must lie in [{low}, {high}]")
