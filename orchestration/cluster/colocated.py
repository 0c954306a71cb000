"""Which GPUs an engine uses that shares those of learner ranks: pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestration.cluster.machines import Layout
from orchestration.settings.errors import InfrastructureError


@dataclass(frozen=True, slots=True, kw_only=True)
class RankDevices:
    """Where a learner rank stands, for the engine that shares its GPU.

    Example:
        >>> RankDevices(node_id="ab12", visible="3").visible
        '3'
    """

    node_id: str
    """Ray's name of the node."""
    visible: str
    """The rank's CUDA_VISIBLE_DEVICES; empty without a GPU."""


def ranks_under(layout: Layout, engine: int) -> tuple[int, ...]:
    """Ranks whose GPUs an engine shares, in their order."""
    seat = layout.of("engine")[engine]
    on_machine = [rank for rank in layout.of("learner") if rank.machine == seat.machine]
    return tuple(rank.index for rank in on_machine if set(rank.gpus) & set(seat.gpus))


def colocated_devices(told: Sequence[RankDevices]) -> str:
    """Return the CUDA_VISIBLE_DEVICES of an engine: the GPUs that Ray chose for its ranks.

    Args:
        told: By the ranks under the engine, in their order.

    Raises:
        InfrastructureError: the ranks stand on several nodes, so no process can use the GPUs of all.

    Example:
        >>> colocated_devices([RankDevices(node_id="ab12", visible="2"), RankDevices(node_id="ab12", visible="3")])
        '2,3'
    """
    nodes = {rank.node_id for rank in told}
    if len(nodes) != 1:
        raise InfrastructureError(
            f"an engine shares the GPUs of {len(told)} learner ranks, and they stand on {len(nodes)} nodes; set "
            "rollout.engine.tensor_parallel_size to a divisor of the number of GPUs of a node"
        )
    return ",".join(rank.visible for rank in told)
