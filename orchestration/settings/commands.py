"""Settings that one command reads: check, plan, evaluate, submit."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen

from orchestration.settings.cluster import VARIABLE_NAME
from orchestration.settings.errors import ConfigError
from orchestration.settings.strict import is_secret_name


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckConfig:
    """What `mixed-r1 check` begins with."""

    random_weights: bool
    """Begin with random weights of the model's shape: model.path then needs config, tokenizer and processor alone."""


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
    """Tokens of a prompt, images included, where the dataset is not there."""
    image_tokens: Annotated[int, Ge(0)]
    """Image tokens of a prompt; prompt_tokens includes them."""
    completion_frac: Annotated[float, Gt(0), Le(1)]
    """Mean completion as a share of rollout.sampling.max_completion_tokens."""
    learner_mfu: Annotated[float, Gt(0), Le(1)]
    """Share of a GPU's peak flop/s that forward and backward reach, communication included."""
    prefill_mfu: Annotated[float, Gt(0), Le(1)]
    """The same for the prefill of an engine: prompts and pictures."""
    decode_bandwidth_frac: Annotated[float, Gt(0), Le(1)]
    """Share of a GPU's peak memory bandwidth that decoding reaches."""
    transfer_gb_s: Annotated[float, Gt(0)]
    """Rate at which the learner's weights reach all engines on GPUs."""
    host_link_gb_s: Annotated[float, Gt(0)]
    """Rate between a GPU and the host's memory, for what is kept there."""
    reward_group_s: Annotated[float, Ge(0)]
    """Core seconds that a group costs a reward actor, whatever its length."""
    reward_token_s: Annotated[float, Ge(0)]
    """Core seconds that scoring a completion token takes."""
    pause_s: Annotated[float, Ge(0)]
    """Time for which a publication of weights stops the engines, beside the transfer."""
    cpu_engine_gflop_s: Annotated[float, Gt(0)]
    """Compute rate of one engine on CPU while it decodes."""
    cpu_learner_gflop_s: Annotated[float, Gt(0)]
    """Compute rate of one learner rank on CPU."""
    cpu_transfer_gb_s: Annotated[float, Gt(0)]
    """Rate at which the learner's weights reach all engines on CPU."""

    def __post_init__(self) -> None:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateConfig:
    """What is evaluated, how it is asked, and what is made of the answers."""

    checkpoint: Annotated[str, "path", MinLen(1)] | None
    """Hugging Face folder, run folder, or checkpoint of a run; null takes the model of the other settings."""
    data: Annotated[str, "path", MinLen(1)] | None
    """Parquet file or folder of shards; null takes the held-out data of the other settings."""
    preset: Annotated[str, MinLen(1)]
    """Scoring rules of a benchmark; see orchestration/evaluate/benchmarks.py."""
    greedy: bool
    """Whether every row gets one completion at temperature 0."""
    num_completions: Annotated[int, Ge(0)]
    """Completions a row at rollout.sampling.temperature; 0 for none."""
    pass_ks: tuple[Annotated[int, Ge(1)], ...]
    """Each k of pass@k; none may exceed num_completions."""
    max_samples: Annotated[int, Ge(1)] | None
    """Rows, drawn at random from the seed; null takes all."""
    cluster_key: str
    """Metadata key whose equal values are resampled together; empty: rows are independent."""
    num_resamples: Annotated[int, Ge(1)]
    """Resamples of the bootstrap and of the permutation test."""
    level: Annotated[float, Gt(0), Lt(1)]
    """Confidence level of the intervals."""
    num_worst: Annotated[int, Ge(0)]
    """Samples shown of each reward function, lowest score first."""
    boxes: Literal["as_given", "pixel", "norm1", "norm1000"]
    """Frame of boxes in the files for other toolkits."""
    out: Annotated[str, "path", MinLen(1)] | None
    """Folder of the result; null puts it under run_dir/evaluations."""
    against: Annotated[str, "path", MinLen(1)] | None
    """Folder of an earlier evaluation of the same data, to compare with."""

    def __post_init__(self) -> None:
        if not self.greedy and self.num_completions == 0:
            raise ConfigError("evaluate.greedy is false and evaluate.num_completions is 0; nothing would be asked")
        if self.num_completions and max(self.pass_ks, default=1) > self.num_completions:
            raise ConfigError(
                f"evaluate.pass_ks holds {max(self.pass_ks)}, more than evaluate.num_completions="
                f"{self.num_completions}; sample more, or ask for a smaller k"
            )


JOB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverConfig:
    """Where the job's driver, which needs no GPU, may run; with nothing set it is the head node."""

    num_cpus: Annotated[float, Ge(0)]
    """Cores reserved for it."""
    resources: Mapping[str, Annotated[float, Ge(0)]]
    """Custom resources, as `ray start --resources` names them."""
    labels: Mapping[str, str]
    """Labels of the node, as `ray start --labels` names them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitConfig:
    """How a run becomes a Ray job."""

    address: Annotated[str, MinLen(1)] | None
    """Address of the cluster's dashboard; null reads RAY_API_SERVER_ADDRESS."""
    name: str | None
    """Jobs are called <name>-<attempt>; null takes the name of run_dir and a hash of its path."""
    python: Annotated[str, MinLen(1)]
    """The Python of the cluster's machines, which has the packages of the lock."""
    ship_code: bool
    """Send the project's own packages with the job; false takes what is installed on the cluster's machines."""
    max_package_mib: Annotated[float, Gt(0)]
    """Code above this size is refused. Every node holds a copy; Ray itself takes up to 512."""
    environment: Mapping[str, str]
    """Variables of the job and all its actors. Ray's dashboard shows them, so no secrets."""
    pass_environment: tuple[str, ...]
    """Names of variables that the job gets from the shell of `mixed-r1 submit`. No secrets either."""
    require_environment: tuple[str, ...]
    """Names that must be set on the machine of the driver, such as WANDB_API_KEY; the job ends at once where one is
    missing. Values never leave that machine."""
    driver: DriverConfig
    follow: bool
    """Show the job's output until it ends; false returns once the job is accepted."""
    on_interrupt: Literal["detach", "stop"]
    """What Ctrl-C does to a job that is followed: leave it running, or let it save and end."""
    if_running: Literal["refuse", "follow"]
    """What to do where a job of this name runs already."""
    max_attempts: Annotated[int, Ge(1)]
    """Jobs in all: another one is submitted where one saved itself and stopped, or lost its machine. Needs `follow`."""
    retry_wait_s: Annotated[float, Ge(0), Le(10**9)]
    """Time before the next attempt, in which nodes may come back."""
    stop_wait_s: Annotated[float, Ge(0), Le(10**9)]
    """Time between the request to stop and the kill: a training step and a checkpoint."""
    allow_temporary_run_dir: bool
    """Accept a run_dir below /tmp or the like, for a cluster of one machine."""

    def __post_init__(self) -> None:
        if self.max_attempts > 1 and not self.follow:
            raise ConfigError(
                f"submit.max_attempts is {self.max_attempts}, but with submit.follow=false nobody is there to submit "
                "again; set submit.max_attempts=1 or submit.follow=true"
            )
        if self.name is not None and not JOB_NAME.fullmatch(self.name):
            raise ConfigError(f"submit.name is {self.name!r}; use letters, digits, dots, hyphens and underscores")
        for key in ("environment", "pass_environment", "require_environment"):
            for name in getattr(self, key):
                if not VARIABLE_NAME.fullmatch(name):
                    raise ConfigError(f"submit.{key} names {name!r}, which no environment variable can be called")
        for name in (*self.environment, *self.pass_environment):
            if is_secret_name(name):
                raise ConfigError(
                    f"{name} looks like a secret, and Ray's dashboard shows the environment of a job; set it on the "
                    f"cluster's machines and name it in submit.require_environment=[{name}]"
                )
