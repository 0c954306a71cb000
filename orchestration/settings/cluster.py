"""Ray, the machines under it, and how many of their faults a run survives."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

from annotated_types import Ge, Gt, Le, MinLen

from orchestration.settings.errors import ConfigError

VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
TOKEN_HINT = (
    "export RAY_AUTH_TOKEN_PATH=FILE (or RAY_AUTH_TOKEN) with the token of the cluster's head, or put it in "
    "~/.ray/auth_token; on the head, `ray get-auth-token` prints it"
)
"""What to do where a Ray cluster asks for a token that this process does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardPoolConfig:
    """The actors that score groups."""

    num_actors: Annotated[int, Ge(1)]
    calls_per_actor: Annotated[int, Ge(1)] = 2
    """Groups that one actor may hold, the one that it scores included; further groups wait in the driver."""
    timeout_s: Annotated[float, Gt(0), Le(10**9)] = 120.0
    """Time for one group, after which its actor is replaced. Must exceed group_size math answers that all time out.
    What functions of your own may take (`reward.functions`) comes on top."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultsConfig:
    """How faults of processes and machines are noticed, and how many of them a run survives."""

    heartbeat_s: Annotated[float, Gt(0), Le(10**9)]
    """Between two heartbeats of an engine or a learner rank."""
    heartbeat_timeout_s: Annotated[float, Gt(0), Le(10**9)]
    """A process that does not answer a heartbeat for so long counts as dead. A busy engine does not
    answer before its step ends: while its core uses CPU time, the limit is `step_timeout_s`."""
    step_timeout_s: Annotated[float, Gt(0), Le(10**9)] = 600.0
    """An engine whose step takes longer counts as dead. Long steps are a first batch of pictures, a compilation."""
    start_timeout_s: Annotated[float, Gt(0), Le(10**9)]
    """Time in which an engine or a learner must have started."""
    call_timeout_s: Annotated[float, Gt(0), Le(10**9)]
    """Time for one training step, weight transfer or checkpoint of the learner; longer is a hang."""
    window_s: Annotated[float, Gt(0), Le(10**9)]
    """Faults older than this no longer count against the limits."""
    max_engine_faults: Annotated[int, Ge(0)]
    """Engines lost within the window, over all engines."""
    max_reward_faults: Annotated[int, Ge(0)]
    max_judge_faults: Annotated[int, Ge(0)] = 8
    """Servers of judges lost within the window, over all judges."""
    max_learner_faults: Annotated[int, Ge(0)]
    """Learners lost within the window; each costs the steps since the last checkpoint."""
    max_transfer_faults: Annotated[int, Ge(0)]
    """Objects lost, and weight transfers that broke though every engine lives, within the window."""
    max_checkpoint_faults: Annotated[int, Ge(0)]
    """Checkpoints that could not be written within the window; the ones before stay."""


NodeRole = Literal["engine", "learner", "reward"]
"""What a kind of machine may be for."""
ActorRole = Literal[NodeRole, "judge"]
"""What an actor does; a judge's server runs on the machines of engines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodesConfig:
    """Machines of one kind."""

    count: Annotated[int, Ge(1), Le(10_000)]
    gpus: Annotated[int, Ge(0), Le(1000)]
    """Of each machine."""
    gpu: Annotated[str, MinLen(1)] | None = None
    """What kind of GPU, a key of `plan.gpus`; needed where `gpus` is above 0."""
    cpus: Annotated[int, Ge(1)]
    memory_gib: Annotated[float, Gt(0), Le(1_000_000)]
    """Host memory of each machine."""
    roles: Annotated[tuple[NodeRole, ...], MinLen(1)] = ("engine", "learner", "reward")
    """Which actors may run there; judges run where engines may."""
    resource: Annotated[str, MinLen(1)] | None = None
    """Custom resource of these machines, as `ray start --resources` names it. Needed where `roles`
    leaves one out."""

    def __post_init__(self) -> None:
        if set(self.roles) != set(get_args(NodeRole)) and self.resource is None:
            raise ConfigError(
                f"cluster.nodes has a kind with roles={list(self.roles)} and no resource, by which Ray could tell its "
                "machines from others; start them with ray start --resources='{\"NAME\": 1}' and set resource: NAME"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeServerConfig:
    """What the server of a judge runs on; for judges of `reward.judges` without an address."""

    num_gpus: Annotated[int, Ge(0), Le(1000)]
    """GPUs of one machine; several share the model's weights (tensor parallel). 0 takes cores."""
    gpu_share: Annotated[float, Ge(0.0001), Le(1)] = 1.0
    """Part of each GPU. Below 1 others may use the rest: give the server --gpu-memory-utilization in its arguments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """Ray and the machines under it."""

    address: Annotated[str, MinLen(1)] | None
    """Address of a running cluster; null starts Ray on this machine for the length of the run."""
    reward_pool: RewardPoolConfig
    faults: FaultsConfig
    layout: Literal["disaggregated", "colocated"]
    """disaggregated: engines and learner ranks have GPUs of their own. colocated: they share the same GPUs and take
    turns, so a run is synchronous; engines sleep while the learner trains."""
    nodes: tuple[NodesConfig, ...]
    """The machines that a run is planned for; empty takes what Ray finds. A run checks that Ray has what it needs."""
    environment: Mapping[str, str]
    """Set in every actor's process, such as NCCL_SOCKET_IFNAME."""
    pass_environment: tuple[Annotated[str, MinLen(1)], ...]
    """Names, or prefixes that end in *, of variables of the driver that every actor gets as well."""
    gpus_per_learner_rank: Annotated[float, Ge(0.0001), Le(1)]
    """Below 1, the only rank shares a GPU with engines, over gloo; for tests. Ray counts in ten-thousandths. More GPUs
    are more learner.num_ranks."""
    gpus_per_engine_worker: Annotated[float, Ge(0.0001), Le(1)]
    """Below 1, engines of one worker share a GPU, with the gloo channel or in an evaluation; for tests. More GPUs an
    engine are rollout.engine.tensor_parallel_size."""
    pin_cores: bool
    """Bind each engine and learner rank to cores of its own (CPU runs)."""
    object_store_bytes: Annotated[int, Ge(75 * 1024 * 1024)]
    """Shared memory of a Ray started here, which itself demands 75 MiB."""
    judges: Mapping[str, JudgeServerConfig] = field(default_factory=dict)
    """By name of the judge, what its server runs on. One that is not named gets a GPU, or cores where
    rollout.engine.device is cpu."""

    def __post_init__(self) -> None:
        # The value of a variable is never repeated: `orchestration.settings.strict` refuses those that hold a secret.
        for name in self.environment:
            if not VARIABLE_NAME.fullmatch(name):
                raise ConfigError(
                    f"cluster.environment.{name} is not a valid name of an environment variable; use letters, digits "
                    "and _"
                )
        for pattern in self.pass_environment:
            if not VARIABLE_NAME.fullmatch(pattern.removesuffix("*")):
                raise ConfigError(
                    f"cluster.pass_environment has {pattern!r}; use the name of a variable, or the beginning of one "
                    "and a *, such as NCCL_*. Everything the driver has would include what is true of its machine alone"
                )
