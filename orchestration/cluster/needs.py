"""What one actor of each role takes of a machine: pure."""

from dataclasses import dataclass, replace

from orchestration.settings.cluster import ActorRole
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What the actors of one role take.

    Example:
        >>> Need(role="engine", count=4, gpus=2, share=1.0).total_gpus
        8.0
    """

    role: ActorRole
    count: int
    """Actors."""
    gpus: int
    """GPUs that one actor sees, all of one machine."""
    share: float
    """Part of each GPU that it takes; below 1 several actors share a GPU."""
    cpus: int = 1
    """Cores that one actor reserves."""

    @property
    def total_gpus(self) -> float:
        """GPUs of all actors together."""
        return self.count * self.gpus * self.share


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a whole run takes."""

    learner: Need
    engine: Need
    reward: Need
    is_colocated: bool
    """Engines use the GPUs of the ranks, and take none of their own."""

    @property
    def num_actors(self) -> int:
        """Actors in all, each of which reserves a core."""
        return self.learner.count + self.engine.count + self.reward.count

    def only(self, *roles: ActorRole) -> "Needs":
        """What a job takes that has no other roles, such as an evaluation, which has no learner."""
        kept = {
            role: need if role in roles else replace(need, count=0)
            for role, need in (("learner", self.learner), ("engine", self.engine), ("reward", self.reward))
        }
        # Without a learner there are no ranks whose GPUs engines could share.
        return Needs(**kept, is_colocated=self.is_colocated and "learner" in roles)


def needs_of(config: ExperimentConfig) -> Needs:
    """Read off a config what every role takes.

    Raises:
        ConfigError: shares of GPUs that cannot be.
    """
    engine, learner, cluster = config.rollout.engine, config.learner, config.cluster
    is_colocated = cluster.layout == "colocated"
    if cluster.gpus_per_engine_worker < 1 and engine.tensor_parallel_size > 1:
        raise ConfigError(
            f"cluster.gpus_per_engine_worker={cluster.gpus_per_engine_worker:g} shares a GPU between engines of one "
            f"worker, and rollout.engine.tensor_parallel_size is {engine.tensor_parallel_size}; set one of them to 1"
        )
    if is_colocated and cluster.gpus_per_learner_rank < 1:
        raise ConfigError(
            f"cluster.gpus_per_learner_rank={cluster.gpus_per_learner_rank:g} with cluster.layout=colocated: ranks and "
            "engines share whole GPUs there; set it to 1"
        )
    if is_colocated and config.rollout.most_engines > config.rollout.engines:
        raise ConfigError(
            f"rollout.max_engines={config.rollout.max_engines} with cluster.layout=colocated: every engine stands on "
            "GPUs of the ranks there, so none can join; set it to null, or cluster.layout=disaggregated"
        )
    return Needs(
        learner=Need(
            role="learner",
            count=learner.num_ranks,
            gpus=1 if learner.device == "cuda" else 0,
            share=cluster.gpus_per_learner_rank,
        ),
        engine=Need(
            role="engine",
            count=config.rollout.engines,
            gpus=engine.tensor_parallel_size if engine.device == "cuda" else 0,
            share=cluster.gpus_per_engine_worker,
        ),
        reward=Need(role="reward", count=cluster.reward_pool.num_actors, gpus=0, share=1.0),
        is_colocated=is_colocated,
    )
