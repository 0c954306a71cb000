"""Settings of the rollout: engines, how they sample, how weights reach them, in which order prompts come."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from rollout.errors import RolloutError

MIN_TEMPERATURE = 0.01
"""vLLM takes a lower one for this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingConfig:
    """How training completions are sampled."""

    group_size: int
    """G, completions per prompt; advantages compare these with one another, so at least 2."""
    temperature: float
    max_completion_tokens: int
    top_p: float = 1.0
    """Share of the probability that is sampled from, most likely tokens first; a run that trains takes all, 1."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.group_size < 2:
            raise RolloutError(f"rollout.sampling.group_size is {self.group_size}; GRPO compares completions: use >= 2")
        if not MIN_TEMPERATURE <= self.temperature < math.inf:
            raise RolloutError(
                f"rollout.sampling.temperature is {self.temperature}; sampling needs a finite value of at least "
                f"{MIN_TEMPERATURE}, below which vLLM samples at another one"
            )
        if self.max_completion_tokens < 1:
            raise RolloutError("rollout.sampling.max_completion_tokens must be at least 1")
        if not 0.0 < self.top_p <= 1.0:
            raise RolloutError(f"rollout.sampling.top_p is {self.top_p}; use a value above 0 and at most 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """What each vLLM engine is built with."""

    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    max_model_len: int
    """Prompt plus completion tokens; longer prompts are refused, never cut."""
    max_num_seqs: int
    """Completions decoded at once."""
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    kv_cache_bytes: int | None = None
    """Bytes of key-value cache; null lets vLLM size it from gpu_memory_utilization."""
    block_size: int | None = None
    """Tokens per cache block; null is vLLM's default."""
    max_images_per_prompt: int = 1
    enforce_eager: bool = False
    """True on CPU: no compilation, no graphs."""
    threads: int = 1
    """OpenMP threads of a CPU engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightChannelConfig:
    """How new weights travel from the learner into the engines."""

    backend: Literal["nccl", "ipc", "gloo"]
    """nccl between GPUs, ipc between an engine and a learner rank that share a GPU (cluster.layout=colocated), gloo
    where there is no GPU."""
    timeout_s: float = 60.0
    """A peer that is silent for longer ends the transfer with an error."""
    bucket_bytes: int = 64 * 1024 * 1024
    """Bytes sent in one broadcast (gloo) or held by one packed buffer (nccl, which has two of them on either side; ipc,
    where both sides see the same one, at least as large as the largest tensor)."""
    in_flight: Literal["keep", "keep_cache", "wait", "abort"] = "keep"
    """What becomes of completions that are being sampled when new weights arrive. keep: they stop at a token boundary
    and go on under the new weights, their prompts and tokens computed again. keep_cache: the same, but with the keys
    and values that the old weights gave them, so nothing is computed twice. wait: the transfer waits for them. abort:
    they are sampled again from the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutConfig:
    """The rollout room: how many engines, what they are, how they sample and receive weights."""

    engines: int
    """Engines that sample at the same time."""
    sampling: SamplingConfig
    engine: EngineConfig
    weight_channel: WeightChannelConfig
    system_prompt: str = ""
    """System turn of every prompt; empty for none."""
    max_engines: int | None = None
    """A run waits for `engines`; further ones, up to so many, join whenever the cluster has room for them, and leave
    with their machines. null is `engines`."""

    @property
    def most_engines(self) -> int:
        """Engines that there may be at once."""
        return self.engines if self.max_engines is None else self.max_engines

    def __post_init__(self) -> None:
        """Check the numbers of engines and that a whole prompt can be scheduled."""
        if self.engines < 1:
            raise RolloutError(f"rollout.engines is {self.engines}; at least one engine must generate")
        if self.most_engines < self.engines:
            raise RolloutError(
                f"rollout.max_engines is {self.max_engines}, fewer than rollout.engines={self.engines}, for which a "
                "run waits; raise it, or use null for no further engines"
            )
        if self.engine.device == "cpu" and self.weight_channel.backend != "gloo":
            raise RolloutError(
                f"rollout.weight_channel.backend is {self.weight_channel.backend} with rollout.engine.device=cpu; "
                "use gloo"
            )
        if self.sampling.max_completion_tokens >= self.engine.max_model_len:
            raise RolloutError(
                f"rollout.sampling.max_completion_tokens ({self.sampling.max_completion_tokens}) leaves no room for a "
                f"prompt in rollout.engine.max_model_len ({self.engine.max_model_len})"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class CurriculumConfig:
    """How much of a step each stratum (difficulty class of the dataset) gets; rows without one are `unmeasured`."""

    kind: Literal["none", "static", "adaptive"] = "none"
    """static: shares move from `start` to `end`. adaptive: shares follow recent rewards."""
    start: Mapping[str, float] = field(default_factory=dict)
    """static: share of every stratum at step 0; any positive scale."""
    end: Mapping[str, float] = field(default_factory=dict)
    """static: share of every stratum from step `num_steps` on."""
    num_steps: int = 100
    """static: training steps over which the shares move, in a straight line."""
    target: float = 0.5
    """adaptive: mean task reward that is favoured; half right, half wrong tells a group most."""
    temperature: float = 0.1
    """adaptive: distance from the target, in reward, at which a stratum's share falls by e."""
    floor_share: float = 0.05
    """adaptive: what every stratum gets of its task or source in any case, so that it is still measured."""
    decay: float = 0.98
    """adaptive: weight that an estimate keeps with every further group; 0.98 looks back on about 50."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.kind == "static":
            check_shares("data.stream.curriculum.start", self.start)
            check_shares("data.stream.curriculum.end", self.end)
        if self.num_steps < 1:
            raise RolloutError(f"data.stream.curriculum.num_steps is {self.num_steps}; use at least 1")
        if self.temperature <= 0.0:
            raise RolloutError(f"data.stream.curriculum.temperature is {self.temperature}; use a value above 0")
        for name, value in (("target", self.target), ("floor_share", self.floor_share), ("decay", self.decay)):
            if not 0.0 <= value <= 1.0:
                raise RolloutError(f"data.stream.curriculum.{name} is {value}; use 0 to 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """Which prompts come, and how often; by default every row once an epoch."""

    mixture_by: Literal["none", "task", "source"] = "none"
    """What `weights` speaks of; none takes tasks and sources as often as they have rows."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Share of every task or source of the dataset, in any positive scale; 0 leaves its rows out."""
    tasks: tuple[str, ...] = ()
    """Tasks that are trained on, those of them that the dataset has; empty takes all."""
    curriculum: CurriculumConfig = CurriculumConfig()

    def __post_init__(self) -> None:
        """Check that weights and what they speak of come together."""
        if self.mixture_by != "none":
            check_shares("data.stream.weights", self.weights)
        elif self.weights:
            raise RolloutError("data.stream.weights needs data.stream.mixture_by=task or source to say what it weighs")

    @property
    def is_plain(self) -> bool:
        """Whether every row comes once an epoch."""
        return self.mixture_by == "none" and self.curriculum.kind == "none" and not self.tasks


def check_shares(key: str, shares: Mapping[str, float]) -> None:
    """Refuse shares of which none is positive, or one is negative or no number."""
    for name, share in shares.items():
        if not math.isfinite(share) or share < 0.0:
            raise RolloutError(f"{key}.{name} is {share}; use 0 or more")
    if not any(shares.values()):
        raise RolloutError(f"{key} has no positive share; name every one of the dataset with its share")
