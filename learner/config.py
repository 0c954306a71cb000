"""LearnerConfig and its parts: what a user may set of the learner."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen

from conf.own_code import OwnCode
from learner.errors import LearnerError


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectionConfig:
    """Correction where engine and learner disagree about tokens that the same weights sampled.

    The weight of a token (or sequence) is old probability / behaviour probability.

    Source: truncated importance sampling, IMPALA, arXiv:1802.01561, eq. 1; applied to engine-learner mismatch by
    Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training". Masking: IcePop, in
    arXiv:2510.18855.
    """

    level: Literal["none", "token", "sequence"] = "none"
    """none: no correction. sequence: one weight for all tokens of a completion, the product of theirs."""
    action: Literal["truncate", "mask"] = "truncate"
    """truncate: multiply the policy term by the weight, at most `high`. mask: by the weight where it lies in
    [low, high], by 0 elsewhere. KL and entropy terms are not touched."""
    low: Annotated[float, Ge(0), Le(1)] = 0.0
    """Read by mask only."""
    high: Annotated[float, Ge(1)] = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskConfig:
    """How much one task counts in the loss."""

    weight: Annotated[float, Gt(0)] = 1.0
    """All terms of the loss of this task's completions are multiplied by it. The denominator of the mean stays."""
    kl_coef: Annotated[float, Ge(0)] | None = None
    """In place of algorithm.kl_coef; null takes that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmConfig:
    """How rewards become a gradient; read by learner/algorithms."""

    name: Literal[
        "cispo",
        "dapo",
        "dr_grpo",
        "grpo",
        "gspo",
        "reinforce_plus_plus",
        "reinforce_plus_plus_baseline",
        "rloo",
    ] = "grpo"
    """Entry of learner/algorithms/registry.py."""
    advantage: Annotated[str, OwnCode(), MinLen(1)] | None = None
    """A function of your own from rewards to advantages, FILE.py:NAME or PACKAGE.MODULE:NAME, in place of baseline and
    scale; see "An algorithm of your own" in learner/README.md. null takes those of `name`."""
    objective: Annotated[str, OwnCode(), MinLen(1)] | None = None
    """A function of your own from tokens to their losses, in place of the clipped ratio; likewise. Aggregation,
    correction, KL and entropy are added to it as to those of `name`."""
    normalise: Literal["total", "parts"] = "total"
    """What becomes an advantage. total: the reward. parts: each part of the reward by itself; their weighted sum is
    then divided by its root mean square in the step, as in GDPO, arXiv:2601.05242."""
    scale: Literal["algorithm", "none", "group", "task", "batch"] = "algorithm"
    """Standard deviation that centred rewards are divided by: of the group, of all groups of the same task in the
    step, of the whole step, or none. algorithm: as the entry's paper has it. A group whose rewards are all equal
    counts with zeros in the deviation of its task or step."""
    aggregation: Literal["algorithm", "token", "sequence", "constant"] = "algorithm"
    """token: mean over all completion tokens of the step. sequence: mean of each completion's mean. constant: sum over
    tokens / (completions * max_completion_tokens). algorithm: as the entry's paper has it."""
    clip_low: Annotated[float, Ge(0), Le(1)] = 0.2
    """The importance ratio is clipped from below at 1 - clip_low. gspo clips the ratio of a whole sequence, a mean, so
    use values of the order 3e-4. cispo clips the importance weight; 1 means no lower bound."""
    clip_high: Annotated[float, Ge(0)] = 0.28
    """... and from above at 1 + clip_high. The asymmetric pair 0.2, 0.28 is DAPO's (arXiv:2503.14476)."""
    kl_coef: Annotated[float, Ge(0)] = 0.0
    """Weight of the KL estimate to the frozen start model; 0, with none for a task in `tasks`, loads no reference
    model."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    """In the loss k2 or k3: the gradient of k1 is zero on average, so it pulls nowhere. In the reward k1 or k3, whose
    values are unbiased. See learner/algorithms/losses.py."""
    kl_in: Literal["loss", "reward"] = "loss"
    """loss: the KL term is added to the loss. reward: it is subtracted from the reward before advantages, summed over
    the completion; reinforce_plus_plus subtracts from each token's return the KL of that token and all later ones."""
    entropy_coef: Annotated[float, Ge(0)] = 0.0
    """Weight of the mean entropy, which is added to the objective."""
    std_floor: Annotated[float, Ge(0)] = 0.0
    """Least standard deviation to divide by, so that tiny differences of a dense reward are not blown up; not read
    with scale none."""
    range_epsilon: Annotated[float, Gt(0)] = 1e-6
    """A group whose rewards span less than this has zero advantage: its differences are rounding. Where the baseline
    is the mean of the step (reinforce_plus_plus), that holds for the step and not for a group."""
    overlong_buffer_frac: Annotated[float, Ge(0), Le(1)] = 0.0
    """The reward falls linearly by `overlong_penalty` over this last share of max_completion_tokens; 0 switches it
    off. DAPO, arXiv:2503.14476, eq. 13."""
    overlong_penalty: Annotated[float, Ge(0)] = 1.0
    """Taken from the reward of a completion that reaches max_completion_tokens."""
    mask_truncated: bool = False
    """Leave completions that hit the length limit out of statistics and loss."""
    num_epochs: Annotated[int, Ge(1)] = 1
    """Passes over the groups of a step."""
    num_minibatches: Annotated[int, Ge(1)] = 1
    """Optimiser updates of one pass, each on another part of the step's groups."""
    old_logprobs: Literal["behaviour", "recomputed"] = "behaviour"
    """What the ratio divides by. behaviour: the engine's logprobs, so that it also corrects staleness and engine
    differences. recomputed: the learner's own before the first update; `correction` then weighs the rest."""
    correction: CorrectionConfig = field(default_factory=CorrectionConfig)
    temperature: Annotated[float, Gt(0)] = 1.0
    """Sampling temperature of the rollout, which all logprobs of a step refer to: current, behaviour, reference."""
    max_completion_tokens: Annotated[int, Ge(0)] = 0
    """The rollout's limit. Needed by aggregation constant and by the overlong penalty."""
    tasks: Mapping[str, TaskConfig] = field(default_factory=dict)
    """Task -> its weight in the loss and its KL. A task that is not named has weight 1 and algorithm.kl_coef."""
    task_temperatures: Mapping[str, Annotated[float, Gt(0)]] = field(default_factory=dict)
    """Temperatures of tasks that have their own; set by the run from rollout.sampling.tasks."""
    task_max_completion_tokens: Mapping[str, Annotated[int, Ge(1)]] = field(default_factory=dict)
    """Limits of tasks that have their own, for the overlong penalty; set by the run from rollout.sampling.tasks."""

    @property
    def uses_reference(self) -> bool:
        """Whether any task has a KL term, so that the frozen start model is loaded."""
        return self.kl_coef > 0 or any(task.kl_coef for task in self.tasks.values())

    def kl_coef_of(self, task: str) -> float:
        """Return the weight of the KL for a task."""
        own = self.tasks[task].kl_coef if task in self.tasks else None
        return self.kl_coef if own is None else own

    def weight_of(self, task: str) -> float:
        """Return the weight of a task in the loss."""
        return self.tasks[task].weight if task in self.tasks else 1.0

    def __post_init__(self) -> None:
        self._check_advantage()
        if self.max_completion_tokens == 0 and (self.aggregation == "constant" or self.overlong_buffer_frac > 0):
            raise LearnerError(
                "algorithm.max_completion_tokens is 0, but aggregation=constant or overlong_buffer_frac reads it; set "
                "it to rollout.sampling.max_completion_tokens"
            )
        if self.correction.level != "none" and self.old_logprobs == "behaviour":
            raise LearnerError(
                f"algorithm.correction.level is {self.correction.level}, but with algorithm.old_logprobs=behaviour the "
                "ratio itself holds the correction; set algorithm.old_logprobs=recomputed, or correction.level=none"
            )

    def _check_advantage(self) -> None:
        """Refuse settings that would not be read, or would be added to no part of the reward."""
        if self.advantage is not None and (self.scale != "algorithm" or self.normalise != "total"):
            raise LearnerError(
                f"algorithm.advantage is {self.advantage}, which reads neither algorithm.scale={self.scale} nor "
                f"normalise={self.normalise}; set scale=algorithm and normalise=total, or advantage=null"
            )
        if self.normalise == "parts" and self.overlong_buffer_frac > 0:
            raise LearnerError(
                f"algorithm.overlong_buffer_frac is {self.overlong_buffer_frac}, but with algorithm.normalise=parts "
                "its penalty belongs to no part of the reward; set it to 0, or normalise=total"
            )
        if self.normalise == "parts" and self.uses_reference and self.kl_in == "reward":
            raise LearnerError(
                "algorithm.kl_in is reward, but with algorithm.normalise=parts the KL belongs to no part of the "
                "reward; set algorithm.kl_in=loss, or normalise=total"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """AdamW and its learning-rate schedule."""

    name: Literal["adamw"] = "adamw"
    learning_rate: Annotated[float, Ge(0)]
    """Peak, reached after the warm-up; 0 leaves the weights as they are, a control run."""
    betas: tuple[Annotated[float, Ge(0), Lt(1)], Annotated[float, Ge(0), Lt(1)]] = (0.9, 0.999)
    eps: Annotated[float, Gt(0)] = 1e-8
    weight_decay: Annotated[float, Ge(0)] = 0.0
    """On matrices only; vectors (biases, norms) are not decayed."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """After the warm-up: constant, or falling to 0 at total_steps."""
    warmup_steps: Annotated[int, Ge(0)] = 0
    """Training steps of linear rise; all updates of a step use one rate."""
    total_steps: Annotated[int, Ge(1)] | None = None
    """Training steps of the run; needed by linear and cosine."""

    def __post_init__(self) -> None:
        if self.schedule != "constant" and (self.total_steps is None or self.total_steps <= self.warmup_steps):
            raise LearnerError(
                f"optimizer.total_steps is {self.total_steps}; schedule {self.schedule} falls to 0 there, so set it "
                f"above warmup_steps={self.warmup_steps}, or use schedule constant"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class FsdpConfig:
    """FSDP2: shards, each block gathered around its own forward and backward."""

    reshard_after_forward: bool = True
    """Free a block's gathered weights after its forward pass: less memory, one more gather in the backward pass."""
    cpu_offload: bool = False
    """Keep shards, gradients and optimiser state in host memory."""
    compile: bool = False
    """Compile each transformer block with torch.compile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepSpeedConfig:
    """DeepSpeed ZeRO, arXiv:1910.02054."""

    zero_stage: Literal[1, 2, 3] = 2
    """Sharded: 1 optimiser state, 2 and gradients, 3 and weights."""
    offload_optimizer: bool = False
    """Keep optimiser state in host memory; stages 1 to 3."""
    offload_params: bool = False
    """Keep weights in host memory; stage 3."""

    def __post_init__(self) -> None:
        if self.offload_params and self.zero_stage != 3:
            raise LearnerError(
                f"learner.deepspeed.offload_params needs zero_stage 3, which shards weights; it is {self.zero_stage}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertsConfig:
    """Mixture of experts; read where the model has experts."""

    balance_loss_coef: Annotated[float, Ge(0)] = 0.0
    """Weight of the load-balance loss of the routers, see learner/training/expert_balance.py; above 0 each update takes
    one more forward pass. 0, whatever the checkpoint's `router_aux_loss_coef`, computes none: that one is of
    pre-training, whose balance the few updates of post-training keep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters instead of whole matrices.

    Source: LoRA, arXiv:2106.09685.
    """

    rank: Annotated[int, Ge(1)] = 16
    alpha: Annotated[float, Gt(0)] = 32.0
    """The product of the two factors is multiplied by alpha / rank."""
    target_modules: Annotated[tuple[Annotated[str, MinLen(1)], ...], MinLen(1)] = (
        *("q_proj", "k_proj", "v_proj", "o_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    )
    """Last parts of module names; every one must occur."""
    start: Annotated[str, "path", MinLen(1)] | None = None
    """Folder of an adapter, as peft writes it or as this project exports it, or its name on the Hugging Face Hub, from
    which training goes on; null begins with new ones, which change nothing. Rank, alpha and layers must be those of the
    settings. A KL is to the model without it."""
    export: Literal["merged", "adapter", "both"] = "merged"
    """What the export of a run holds. merged: the model with its adapters added in. adapter: the adapter alone, in
    peft's format. both: the merged model, and the adapter in the folder `adapter` inside."""
    publish: Literal["merged", "adapter"] = "merged"
    """What engines are sent. merged: weights with the adapters added in. adapter: the adapters alone; engines read the
    model from its folder, keep it, and add the adapters in every layer as they compute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerConfig:
    """Settings of the learner."""

    optimizer: OptimizerConfig
    model_path: str = ""
    """Hugging Face folder of the policy; set by the run once the model exists."""
    family: Annotated[str, OwnCode(), MinLen(1)] | None = None
    """The user's class of the policy's family; set by the run from model.family."""
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    """Set by the run from the config group `algorithm`."""
    backend: Literal["fsdp", "deepspeed"] = "fsdp"
    fsdp: FsdpConfig = field(default_factory=FsdpConfig)
    """Read when backend is fsdp."""
    deepspeed: DeepSpeedConfig = field(default_factory=DeepSpeedConfig)
    """Read when backend is deepspeed."""
    device: Literal["cpu", "cuda"] = "cpu"
    num_ranks: Annotated[int, Ge(1)] = 1
    """Learner processes; the weights are sharded between them."""
    threads_per_rank: Annotated[int, Ge(1)] = 1
    """CPU threads of torch in each rank."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of forward and backward, and of weights that are not trained; trained ones, optimiser and reductions are
    float32 always."""
    attention: Literal["auto", "sdpa", "flex", "flash"] = "auto"
    """Kernel of the prefix-shared batch. auto: flash on a GPU that can in bfloat16, sdpa elsewhere. flash:
    by the flash-attn package where it is installed, by torch otherwise."""
    prefix_sharing: Literal["auto", "always", "never"] = "auto"
    """Whether a prompt is fed once for all of its completions. auto: where that feeds fewer tokens to the model."""
    micro_batch_tokens: Annotated[int, Ge(1)] = 8192
    """Most tokens of one forward pass: prompts once a group, plus completions. A longer group is split."""
    activation_checkpointing: bool = False
    """Recompute block activations in the backward pass: less memory, about a third more time."""
    max_grad_norm: Annotated[float, Gt(0)] = 1.0
    """The gradient's global 2-norm is scaled down to this."""
    abort_grad_norm: Annotated[float, Gt(0)] | None = None
    """A gradient norm above this ends the run before the update; null switches the check off."""
    freeze: tuple[Annotated[str, MinLen(1)], ...] = ()
    """Parameters not to train: vision_tower, projector, language_model, or shell patterns of parameter names."""
    lora: LoraConfig | None = None
    """null trains whole matrices."""
    experts: ExpertsConfig = field(default_factory=ExpertsConfig)
    """Read where the model has experts."""

    def __post_init__(self) -> None:
        if self.device == "cpu":
            self._check_without_gpu()
        if self.attention == "flash" and self.dtype != "bfloat16":
            raise LearnerError(f"learner.attention is flash, which needs learner.dtype=bfloat16; it is {self.dtype}")
        if self.abort_grad_norm is not None and self.abort_grad_norm <= self.max_grad_norm:
            raise LearnerError(
                f"learner.abort_grad_norm is {self.abort_grad_norm}; set it well above max_grad_norm="
                f"{self.max_grad_norm}, where clipping begins, or to null"
            )

    def _check_without_gpu(self) -> None:
        if self.attention in ("flex", "flash"):
            raise LearnerError(
                f"learner.attention is {self.attention}, which trains on GPUs only; use sdpa with learner.device=cpu"
            )
        if self.backend == "fsdp" and self.fsdp.cpu_offload:
            raise LearnerError(
                "learner.fsdp.cpu_offload needs learner.device=cuda; on a CPU everything is there already"
            )


BoxFrame = Literal["pixel", "pixel_resized", "norm1000", "norm1"]
"""Frame in which a model writes boxes and points: pixels of the original image, pixels of the image as the model sees
it, 0..1000 or 0..1 of its width and height."""

SUPPORTED_FAMILIES: Mapping[str, BoxFrame] = MappingProxyType(
    {
        "internvl": "norm1000",
        "qwen2_5_vl": "pixel_resized",
        "qwen2_vl": "norm1000",
        "qwen3_5": "norm1000",
        "qwen3_vl": "norm1000",
        "qwen3_vl_moe": "norm1000",
    }
)
"""`model_type` of the checkpoints that learner/families knows -> frame of their boxes; here, because its users may not
import torch.

Source: Qwen2-VL, arXiv:2409.12191 (0 to 1000); Qwen2.5-VL, arXiv:2502.13923 (absolute coordinates); Qwen3-VL, the
cookbook spatial_understanding of its repository (0 to 1000); InternVL3, arXiv:2504.10479.
"""

STREAMED_TEXT = ("llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3")
"""The same of language models without images whose stream is proved equal to their own forward pass."""
SLOWER = (
    "model_type {} has no family of its own and runs on the generic path: padded rows, with a prompt and its images "
    "repeated for every completion, by the model's own forward pass. It is exact, and slower than a stream"
)
"""What plan and log say of any other."""


def runs_padded(model_type: str) -> bool:
    """Return whether models of a type train in padded rows instead of streams.

    Example:
        >>> runs_padded("qwen3_vl"), runs_padded("gemma4")
        (False, True)
    """
    return model_type not in (*SUPPORTED_FAMILIES, *STREAMED_TEXT)


def learning_rate_at(num_steps_taken: int, config: OptimizerConfig) -> float:
    """Return the learning rate of the next training step.

    Args:
        num_steps_taken: training steps before this one.
        config: peak, warm-up and schedule.

    Example:
        Two steps of warm-up to 0.1, then constant: the first step uses half.

        >>> learning_rate_at(0, OptimizerConfig(learning_rate=0.1, warmup_steps=2))
        0.05
    """
    if num_steps_taken < config.warmup_steps:
        return config.learning_rate * (num_steps_taken + 1) / config.warmup_steps
    if config.schedule == "constant" or config.total_steps is None:
        return config.learning_rate
    progress = min(1.0, (num_steps_taken - config.warmup_steps) / (config.total_steps - config.warmup_steps))
    remaining = 1.0 - progress if config.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.learning_rate * remaining
