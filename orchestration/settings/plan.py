"""PlanConfig: what `mixed-r1 plan` assumes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Le

from orchestration.settings.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuConfig:
    """What one kind of GPU can do."""

    memory_gib: Annotated[float, Gt(0), Le(1_000_000)]
    bf16_tflops: Annotated[float, Gt(0)]
    """Dense, without sparsity."""
    memory_gb_s: Annotated[float, Gt(0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class AssumeConfig:
    """What nobody has measured before a run; every figure of time, and lengths where no dataset tells them."""

    prompt_tokens: Annotated[int, Ge(1)]
    """Of a prompt, images included, where the dataset is not there."""
    image_tokens: Annotated[int, Ge(0)]
    """Among them."""
    completion_frac: Annotated[float, Gt(0), Le(1)]
    """Mean completion as a share of rollout.sampling.max_completion_tokens."""
    learner_mfu: Annotated[float, Gt(0), Le(1)]
    """Share of a GPU's peak flop/s that forward and backward reach, communication included."""
    prefill_mfu: Annotated[float, Gt(0), Le(1)]
    """The same of an engine that reads prompts and pictures."""
    decode_bandwidth_frac: Annotated[float, Gt(0), Le(1)]
    """Share of a GPU's peak memory bandwidth that decoding reaches."""
    transfer_gb_s: Annotated[float, Gt(0)]
    """At which the learner's weights reach all engines on GPUs."""
    host_link_gb_s: Annotated[float, Gt(0)]
    """Between a GPU and the host's memory, for what is kept there."""
    reward_group_s: Annotated[float, Ge(0)]
    """Core seconds that a group costs a reward actor, whatever its length."""
    reward_token_s: Annotated[float, Ge(0)]
    """Core seconds that scoring a completion token takes."""
    pause_s: Annotated[float, Ge(0)]
    """For which a publication of weights stops the engines, beside the transfer."""
    cpu_engine_gflop_s: Annotated[float, Gt(0)]
    """Of one engine on CPU, decoding."""
    cpu_learner_gflop_s: Annotated[float, Gt(0)]
    """Of one learner rank on CPU."""
    cpu_transfer_gb_s: Annotated[float, Gt(0)]
    """At which the learner's weights reach all engines on CPU."""

    def __post_init__(self) -> None:
        """Check that no more of a prompt is pictures than there is."""
        if self.image_tokens > self.prompt_tokens:
            raise ConfigError(
                f"plan.assume.image_tokens is {self.image_tokens}, more than plan.assume.prompt_tokens="
                f"{self.prompt_tokens}, of which they are a part; lower one or raise the other"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanConfig:
    """Assumptions of `mixed-r1 plan`, and what a run makes of its verdict."""

    enforce: bool
    """`mixed-r1 train` refuses, before anything starts, what the plan says cannot fit."""
    gpus: Mapping[str, GpuConfig]
    """Kinds of GPU, by the names that `cluster.nodes` uses."""
    assume: AssumeConfig
