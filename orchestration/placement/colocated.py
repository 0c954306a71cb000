"""Which GPUs an engine uses that shares those of learner ranks: pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestration.errors import InfrastructureError
from orchestration.placement.machines import Layout
from orchestration.placement.process import Placement


@dataclass(frozen=True, slots=True, kw_only=True)
class RankDevices:
    """Where a learner rank found itself.

    Example:
        >>> RankDevices(rank=3, node_id="ab12", gpus=("3",)).gpus
        ('3',)
    """

    rank: int
    node_id: str
    """Ray's name of the node."""
    gpus: tuple[str, ...]
    """As its CUDA_VISIBLE_DEVICES names them."""


def ranks_under(layout: Layout, engine: int) -> tuple[int, ...]:
    """Ranks whose GPUs an engine shares, in their order."""
    seat = layout.of("engine")[engine]
    return tuple(
        rank.index for rank in layout.of("learner") if rank.machine == seat.machine and set(rank.gpus) & set(seat.gpus)
    )


def colocated_placement(placement: Placement, told: Sequence[RankDevices]) -> Placement:
    """Give an engine the GPUs of its ranks, which alone know them: Ray chose them.

    Args:
        placement: Of the engine, for which Ray reserves no GPU.
        told: What each of its ranks answered, in their order.

    Raises:
        InfrastructureError: the ranks stand on several nodes, so no engine can use the GPUs of all.

    Example:
        >>> engine = Placement(num_gpus=0, cores=(), threads=1)
        >>> ranks = [RankDevices(rank=rank, node_id="ab12", gpus=(str(rank),)) for rank in (2, 3)]
        >>> colocated_placement(engine, ranks).gpus
        ('2', '3')
    """
    if len({rank.node_id for rank in told}) > 1:
        where = ", ".join(f"rank {rank.rank} on {rank.node_id[:8]}" for rank in told)
        raise InfrastructureError(f"an engine shares the GPUs of ranks that stand on several nodes: {where}")
    return replace(placement, gpus=tuple(gpu for rank in told for gpu in rank.gpus))
