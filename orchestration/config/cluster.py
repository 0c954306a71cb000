"""Ray, the machines under it, and how many of their faults a run bears."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from orchestration.config.environment import check_environment
from orchestration.errors import ConfigError

TOKEN_HINT = (
    "export RAY_AUTH_TOKEN_PATH=FILE (or RAY_AUTH_TOKEN) with the token of the cluster's head, or put it in "
    "~/.ray/auth_token; on the head, `ray get-auth-token` prints it"
)
"""What to do where a Ray cluster asks for a token that this process does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardPoolConfig:
    """The actors that score groups."""

    num_actors: int
    calls_per_actor: int = 2
    """Groups that one actor may hold, the one at work included; further groups wait in the driver."""
    timeout_s: float = 120.0
    """Time for one group, after which its actor is replaced. Must exceed group_size math answers that all time out."""

    def __post_init__(self) -> None:
        """Check the limit."""
        if self.timeout_s <= 0.0:
            raise ConfigError(f"cluster.reward_pool.timeout_s is {self.timeout_s}; use a value above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultsConfig:
    """How faults of processes and machines are noticed, and how many of them a run bears."""

    heartbeat_s: float
    """Between two heartbeats of an engine or a learner rank."""
    heartbeat_timeout_s: float
    """A process that does not answer a heartbeat for so long is taken for dead. An engine that is at work does not
    answer before its step ends: while its core uses CPU time, the limit is `step_timeout_s`."""
    step_timeout_s: float = 600.0
    """An engine that has been at one step for so long is taken for dead: a first batch of pictures, a compilation."""
    start_timeout_s: float
    """Time in which an engine must stand, or a learner must have loaded."""
    call_timeout_s: float
    """Time for one training step, weight transfer or checkpoint of the learner; longer is a hang."""
    window_s: float
    """Faults older than this no longer count against the limits."""
    max_engine_faults: int
    """Engines lost within the window, over all engines."""
    max_reward_faults: int
    max_learner_faults: int
    """Learners lost within the window; each costs the steps since the last checkpoint."""
    max_transfer_faults: int
    """Objects lost, and weight transfers that broke though every engine lives, within the window."""
    max_checkpoint_faults: int
    """Checkpoints that could not be written within the window; the ones before stay."""


ActorRole = Literal["engine", "learner", "reward"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodesConfig:
    """Machines of one kind."""

    count: int
    gpus: int
    """Of each machine."""
    gpu: str | None
    """What kind of GPU, a key of `plan.gpus`; null on machines without."""
    cpus: int
    memory_gib: float
    """Host memory of each machine."""
    roles: tuple[ActorRole, ...] = ("engine", "learner", "reward")
    """Which actors may stand there."""
    resource: str | None = None
    """Custom resource of these machines, as `ray start --resources` names it. Needed where `roles`
    leaves one out."""

    def __post_init__(self) -> None:
        """Check what only machines of this kind must have."""
        if self.count < 1 or self.gpus < 0 or self.cpus < 1:
            raise ConfigError(
                f"cluster.nodes has a kind with count={self.count}, gpus={self.gpus}, cpus={self.cpus}; use at least "
                "one machine with at least one core"
            )
        if set(self.roles) != set(get_args(ActorRole)) and self.resource is None:
            raise ConfigError(
                f"cluster.nodes has a kind with roles={list(self.roles)} and no resource, by which Ray could tell its "
                "machines from others; start them with ray start --resources='{\"NAME\": 1}' and set resource: NAME"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """Ray and the machines under it."""

    address: str | None
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
    pass_environment: tuple[str, ...]
    """Names, or prefixes that end in *, of variables of the driver that every actor gets as well."""
    gpus_per_learner_rank: float
    """Below 1, ranks share a GPU; for tests."""
    gpus_per_engine_worker: float
    """Below 1, engines of one worker share a GPU; for tests."""
    pin_cores: bool
    """Bind each engine and learner rank to cores of its own (CPU runs)."""
    object_store_bytes: int
    """Shared memory of a Ray started here."""

    def __post_init__(self) -> None:
        """Check the environment and the shares of a GPU."""
        check_environment(self.environment, self.pass_environment)
        for key in ("gpus_per_learner_rank", "gpus_per_engine_worker"):
            share = getattr(self, key)
            if not 0.0 < share <= 1.0:
                raise ConfigError(
                    f"cluster.{key} is {share:g}; use 1, or less where several actors share a GPU. More GPUs an engine "
                    "are rollout.engine.tensor_parallel_size, more for the learner learner.num_ranks"
                )
