"""Settings of the rollout: engines, sampling, weight transfer, and the order of prompts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MinLen

from rollout.conversation import PromptSpec
from rollout.errors import RolloutError
from rollout.records import SamplingSpec

CPU_BATCHED_TOKENS = 8192
"""Tokens that an engine on CPU computes in one step, where prompts are not cut; longer ones raise it."""
OF_THE_CALL = {
    *("add_generation_prompt", "chat_template", "continue_final_message", "conversation", "messages", "tokenize"),
    *("processor_kwargs", "return_dict", "return_tensors"),
}
"""Arguments of a chat template, and of the call that renders it, which the run sets itself."""
MIN_TEMPERATURE = 0.01
"""vLLM raises lower temperatures to this value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSamplingConfig:
    """Sampling of one task; null is what holds for all."""

    group_size: Annotated[int, Ge(2), Le(10_000)] | None = None
    """Completions of a prompt of the task."""
    temperature: Annotated[float, Ge(MIN_TEMPERATURE)] | None = None
    """Of the task's completions, and of all of the learner's logprobs of them."""
    max_completion_tokens: Annotated[int, Ge(1)] | None = None
    """Length at which a completion of the task is cut; the overlong penalty goes by it too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingConfig:
    """Sampling of completions.

    Example:
        >>> chart = TaskSamplingConfig(max_completion_tokens=64)
        >>> sampling = SamplingConfig(group_size=8, temperature=1.0, max_completion_tokens=2048, tasks={"chart": chart})
        >>> sampling.spec("chart").max_completion_tokens, sampling.spec("math").max_completion_tokens
        (64, 2048)
    """

    group_size: Annotated[int, Ge(2), Le(10_000)]
    """G, completions per prompt; advantages compare these with one another, so at least 2."""
    temperature: Annotated[float, Ge(MIN_TEMPERATURE)]
    """Logits are divided by it before sampling; the learner divides by the same. Greedy scores do not use it."""
    max_completion_tokens: Annotated[int, Ge(1)]
    """A completion that reaches it is cut and counts as truncated."""
    top_p: Annotated[float, Gt(0), Le(1)] = 1.0
    """Share of the probability that is sampled from, most likely tokens first; a run that trains takes all, 1."""
    top_k: Annotated[int, Ge(0)] = 0
    """Most likely tokens that are sampled from; 0 is all of them, which a run that trains takes."""
    min_p: Annotated[float, Ge(0), Le(1)] = 0.0
    """Least probability of a token that is sampled from, as a share of the most likely one's; a run that trains takes
    0."""
    stop: tuple[Annotated[str, MinLen(1)], ...] = ()
    """Texts that end a completion and are cut from it, greedy or sampled; a run that trains has none."""
    keeps_stop: bool = False
    """Leave the text of `stop` in the completion, as `</answer>` must be to be read."""
    tasks: Mapping[str, TaskSamplingConfig] = field(default_factory=dict)
    """Group size, temperature and length of single tasks: {chart: {max_completion_tokens: 64, temperature: 0.7}}."""

    @property
    def largest_group(self) -> int:
        """Most completions of a prompt of any task."""
        return max([self.group_size, *(task.group_size or 0 for task in self.tasks.values())])

    @property
    def smallest_group(self) -> int:
        """Fewest completions of a prompt of any task."""
        return min([self.group_size, *(task.group_size or self.group_size for task in self.tasks.values())])

    @property
    def longest_completion(self) -> int:
        """Most tokens of a completion of any task."""
        return max([self.max_completion_tokens, *(task.max_completion_tokens or 0 for task in self.tasks.values())])

    def spec(self, task: str, *, group_size: int | None = None, greedy: bool = False, seed: int = 0) -> SamplingSpec:
        """Return how a group of a task is sampled.

        Args:
            task: Of the row.
            group_size: Completions; None takes the task's own.
            greedy: Take the most likely token always.
            seed: Of the group.
        """
        own = self.tasks.get(task, TaskSamplingConfig())
        return SamplingSpec(
            group_size=group_size or own.group_size or self.group_size,
            temperature=0.0 if greedy else own.temperature or self.temperature,
            max_completion_tokens=own.max_completion_tokens or self.max_completion_tokens,
            top_p=1.0 if greedy else self.top_p,
            top_k=0 if greedy else self.top_k,
            min_p=0.0 if greedy else self.min_p,
            stop=self.stop,
            keeps_stop=self.keeps_stop,
            seed=seed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Settings of each vLLM engine."""

    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    max_model_len: Annotated[int, Ge(2), Le(10_000_000)]
    """Prompt plus completion tokens; longer prompts are refused, never cut."""
    max_num_seqs: Annotated[int, Ge(1)]
    """Completions decoded at once."""
    max_num_batched_tokens: Annotated[int, Ge(1)] | None = None
    """Tokens computed in one step, those of prompts and one of each completion; on a GPU also the image tokens whose
    features wait for their prompts. null is what vLLM's server takes on such a GPU: 8,192 on an H100 or H200, 2,048 on
    an A100 or below 70 GiB, 16,384 from 160 GiB on."""
    tensor_parallel_size: Annotated[int, Ge(1)] = 1
    gpu_memory_utilization: Annotated[float, Gt(0), Le(1)] = 0.9
    kv_cache_bytes: Annotated[int, Ge(1)] | None = None
    """Bytes of key-value cache; null lets vLLM size it from gpu_memory_utilization."""
    block_size: Annotated[int, Ge(1)] | None = None
    """Tokens per cache block; null is vLLM's default."""
    max_images_per_prompt: Annotated[int, Ge(1)] = 1
    enforce_eager: bool = False
    """True on CPU: no compilation, no graphs."""
    threads: Annotated[int, Ge(1)] = 1
    """OpenMP threads of a CPU engine."""

    def __post_init__(self) -> None:
        tokens = self.max_num_batched_tokens
        if tokens is not None and tokens < self.max_num_seqs:
            raise RolloutError(
                f"rollout.engine.max_num_batched_tokens is {tokens}, fewer than rollout.engine.max_num_seqs="
                f"{self.max_num_seqs}, each of which takes a token of a step; raise the one or lower the other"
            )
        if tokens is not None and self.device == "cpu" and tokens < self.max_model_len:
            raise RolloutError(
                f"rollout.engine.max_num_batched_tokens is {tokens} with rollout.engine.device=cpu, where a prompt is "
                f"computed in one step; use rollout.engine.max_model_len={self.max_model_len} or more, or null"
            )

    def batched_tokens(self, server_default: int) -> int:
        """Return how many tokens the engine computes in one step.

        Args:
            server_default: what vLLM's server takes on the engine's GPU; not read on CPU.
        """
        if self.max_num_batched_tokens is not None:
            return self.max_num_batched_tokens
        if self.device == "cpu":
            return max(CPU_BATCHED_TOKENS, self.max_model_len, self.max_num_seqs)
        return min(max(server_default, self.max_num_seqs), self.max_num_seqs * self.max_model_len)


ADAPTER_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks for which vLLM 0.32 allocates the buffers of an adapter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterConfig:
    """The adapter that an engine adds to its model; not set by the user: it follows from `learner.lora`.

    Example:
        >>> AdapterConfig(rank=24, target_modules=("q_proj",)).buffer_rank
        32
    """

    rank: Annotated[int, Ge(1), Le(ADAPTER_RANKS[-1])]
    target_modules: tuple[str, ...]
    """Last parts of the names of its layers."""

    def __post_init__(self) -> None:
        if self.rank > ADAPTER_RANKS[-1]:
            raise RolloutError(
                f"learner.lora.rank is {self.rank} with learner.lora.publish=adapter, and vLLM adds adapters of a rank "
                f"up to {ADAPTER_RANKS[-1]}; set a lower rank, or learner.lora.publish=merged"
            )

    @property
    def buffer_rank(self) -> int:
        """Rank of the buffers that hold it; what is left over is zero."""
        return next(rank for rank in ADAPTER_RANKS if rank >= self.rank)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightChannelConfig:
    """Transfer of new weights from the learner to the engines."""

    backend: Literal["nccl", "ipc", "gloo"]
    """nccl between GPUs, ipc between an engine and a learner rank that share a GPU (cluster.layout=colocated), gloo
    where there is no GPU."""
    timeout_s: Annotated[float, Gt(0), Le(10**9)] = 60.0
    """How long learner and engines wait for one another: to connect, for an answer to a call, for the next bytes. Then
    the transfer is given up on both sides and repeated with the engines that live. Keep it below
    cluster.faults.heartbeat_timeout_s: an engine that waits for tensors answers no heartbeat."""
    bucket_bytes: Annotated[int, Ge(1)] = 64 * 1024 * 1024
    """Bytes sent in one broadcast (gloo) or held by one packed buffer (nccl, which has two of them on either side; ipc,
    where both sides see the same one, at least as large as the largest tensor)."""
    differences: bool = False
    """gloo: of a tensor in which few elements changed send these alone; others, and a new engine's, come whole. Both
    sides keep all that was sent in host memory. It pays with engines in bfloat16 behind a slow network."""
    in_flight: Literal["keep", "keep_cache", "wait", "abort"] = "keep"
    """Treatment of completions that are being sampled when new weights arrive. keep: they stop at a token boundary
    and go on under the new weights, their prompts and tokens computed again. keep_cache: the same, but with the keys
    and values that the old weights gave them, so nothing is computed twice. wait: the transfer waits for them. abort:
    they are sampled again from the start."""

    def __post_init__(self) -> None:
        if self.differences and self.backend != "gloo":
            raise RolloutError(
                f"rollout.weight_channel.differences is true with rollout.weight_channel.backend={self.backend}, which "
                "sends whole tensors; set differences=false, or backend=gloo"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutConfig:
    """Settings of the rollout: engines, sampling, and how engines receive weights."""

    engines: Annotated[int, Ge(1)]
    """Engines that sample at the same time."""
    sampling: SamplingConfig
    engine: EngineConfig
    weight_channel: WeightChannelConfig
    system_prompt: str = ""
    """System turn of every prompt; empty for none. `{format}` in it stands for the sentence that asks for the form of
    `reward.format`, which reward and readers expect: "You read charts. {format}"."""
    task_prompts: Mapping[str, str] = field(default_factory=dict)
    """Task -> text that follows the question of its rows; "" for none. `{box_frame}` and `{point_frame}` in it stand
    for the sentences that say in which frame the model writes boxes and points (model.coord_mode), and as what."""
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Further variables of the chat template, by name: enable_thinking: false for models whose templates read it."""
    max_engines: Annotated[int, Ge(1)] | None = None
    """Most engines at once. A run waits for `engines`; more join whenever the cluster has room for them, and leave with
    their machines. null is `engines`."""

    @property
    def prompt_spec(self) -> PromptSpec:
        """What is added to the texts of every row."""
        return PromptSpec(
            system_prompt=self.system_prompt,
            task_prompts=self.task_prompts,
            template_kwargs=self.chat_template_kwargs,
        )

    @property
    def most_engines(self) -> int:
        """Most engines at once."""
        return self.engines if self.max_engines is None else self.max_engines

    def __post_init__(self) -> None:
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
        if taken := sorted(OF_THE_CALL & self.chat_template_kwargs.keys()):
            raise RolloutError(
                f"rollout.chat_template_kwargs names {taken[0]}, which the run sets itself; name variables of the "
                "model's own template, such as enable_thinking"
            )
        sampling = self.sampling
        lengths = {f"tasks.{name}.": task.max_completion_tokens or 0 for name, task in sampling.tasks.items()}
        for prefix, length in {"": sampling.max_completion_tokens, **lengths}.items():
            if length >= self.engine.max_model_len:
                raise RolloutError(
                    f"rollout.sampling.{prefix}max_completion_tokens ({length}) leaves no room for a prompt in "
                    f"rollout.engine.max_model_len ({self.engine.max_model_len})"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class CurriculumConfig:
    """Share of each stratum (difficulty class of the dataset) in a step; rows without one are `unmeasured`."""

    kind: Literal["none", "static", "adaptive"] = "none"
    """static: shares move from `start` to `end`. adaptive: shares follow recent rewards."""
    start: Mapping[str, Annotated[float, Ge(0)]] = field(default_factory=dict)
    """static: share of every stratum at step 0; any positive scale."""
    end: Mapping[str, Annotated[float, Ge(0)]] = field(default_factory=dict)
    """static: share of every stratum from step `num_steps` on."""
    num_steps: Annotated[int, Ge(1)] = 100
    """static: training steps over which the shares move, in a straight line."""
    target: Annotated[float, Ge(0), Le(1)] = 0.5
    """adaptive: mean task reward that is favoured; half right, half wrong is most informative."""
    temperature: Annotated[float, Gt(0)] = 0.1
    """adaptive: distance from the target, in reward, at which a stratum's share falls by e."""
    floor_share: Annotated[float, Ge(0), Le(1)] = 0.05
    """adaptive: least share of every stratum within its task or source, so that it is still measured."""
    decay: Annotated[float, Ge(0), Le(1)] = 0.98
    """adaptive: weight that an estimate keeps with every further group; 0.98 averages over about 50."""

    def __post_init__(self) -> None:
        if self.kind == "static":
            check_shares("data.stream.curriculum.start", self.start)
            check_shares("data.stream.curriculum.end", self.end)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """Selection and frequency of prompts; by default every row once an epoch."""

    mixture_by: Literal["none", "task", "source"] = "none"
    """Column to which `weights` refers; none takes tasks and sources as often as they have rows."""
    weights: Mapping[str, Annotated[float, Ge(0)]] = field(default_factory=dict)
    """Share of every task or source of the dataset, in any positive scale; 0 leaves its rows out."""
    tasks: tuple[Annotated[str, MinLen(1)], ...] = ()
    """Train on the rows of these tasks only, as far as the dataset has them; empty takes all."""
    curriculum: CurriculumConfig = CurriculumConfig()

    def __post_init__(self) -> None:
        if self.mixture_by != "none":
            check_shares("data.stream.weights", self.weights)
        elif self.weights:
            raise RolloutError("data.stream.weights needs data.stream.mixture_by=task or source to say what it weighs")

    @property
    def is_plain(self) -> bool:
        """Whether every row comes once an epoch."""
        return self.mixture_by == "none" and self.curriculum.kind == "none" and not self.tasks


def check_shares(key: str, shares: Mapping[str, float]) -> None:
    """Refuse shares of which none is positive."""
    if not any(shares.values()):
        raise RolloutError(f"{key} has no positive share; name every one of the dataset with its share")
