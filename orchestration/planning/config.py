"""PlanConfig: what `mixed-r1 plan` assumes."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from orchestration.errors import ConfigError

MAY_BE_ZERO = ("image_tokens", "pause_s", "reward_group_s", "reward_token_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuConfig:
    """What one kind of GPU can do."""

    memory_gib: float
    bf16_tflops: float
    """Dense, without sparsity."""
    memory_gb_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AssumeConfig:
    """What nobody has measured before a run; every figure of time, and lengths where no dataset tells them."""

    prompt_tokens: int
    """Of a prompt, images included, where the dataset is not there."""
    image_tokens: int
    """Among them."""
    completion_frac: float
    """Mean completion as a share of rollout.sampling.max_completion_tokens."""
    learner_mfu: float
    """Share of a GPU's peak flop/s that forward and backward reach, communication included."""
    prefill_mfu: float
    """The same of an engine that reads prompts and pictures."""
    decode_bandwidth_frac: float
    """Share of a GPU's peak memory bandwidth that decoding reaches."""
    transfer_gb_s: float
    """At which the learner's weights reach all engines on GPUs."""
    host_link_gb_s: float
    """Between a GPU and the host's memory, for what is kept there."""
    reward_group_s: float
    """Core seconds that a group costs a reward actor, whatever its length."""
    reward_token_s: float
    """Core seconds that scoring a completion token takes."""
    pause_s: float
    """For which a publication of weights stops the engines, beside the transfer."""
    cpu_engine_gflop_s: float
    """Of one engine on CPU, decoding."""
    cpu_learner_gflop_s: float
    """Of one learner rank on CPU."""
    cpu_transfer_gb_s: float
    """At which the learner's weights reach all engines on CPU."""

    def __post_init__(self) -> None:
        """Check that nothing divides by zero."""
        for field in fields(self):
            value = getattr(self, field.name)
            if value < 0 or (
                value == 0 and field.name not in ("image_tokens", "pause_s", "reward_group_s", "reward_token_s")
            ):
                raise ConfigError(f"plan.assume.{field.name} is {value}; use a value above 0")
            if field.name.endswith(("_frac", "_mfu")) and value > 1:
                raise ConfigError(f"plan.assume.{field.name} is {value}; it is a share, at most 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanConfig:
    """Assumptions of `mixed-r1 plan`."""

    gpus: Mapping[str, GpuConfig]
    """Kinds of GPU, by the names that `cluster.nodes` uses."""
    assume: AssumeConfig
