"""EngineClient: the learner's line to all engines."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ray

if TYPE_CHECKING:
    from ray.actor import ActorHandle


class EngineClient:
    """vLLM's weight-sync client for several independent engines.

    Where the channel has ranks, each engine gets its own behind the sender's. Stock senders do not pass a version, so
    it is set here before each transfer.
    """

    def __init__(self, engines: Sequence["ActorHandle"], *, workers_per_engine: int) -> None:
        """Speak to these engine actors."""
        self._engines = list(engines)
        self._workers = workers_per_engine
        self.weight_version = "0"

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Invite every engine; where the sender's invitation names a first rank, each with its own."""
        ray.get(
            [e.init_weight_transfer_engine.remote(self._invitation(init_info, i)) for i, e in enumerate(self._engines)]
        )

    def start_weight_update(self) -> None:
        """Open an update on every engine."""
        ray.get([engine.start_weight_update.remote() for engine in self._engines])

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Let every engine receive; returns when all have."""
        ray.get([engine.update_weights.remote(update_info) for engine in self._engines])

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Make the weights live everywhere."""
        version = weight_version or self.weight_version
        ray.get([engine.finish_weight_update.remote(version) for engine in self._engines])

    def _invitation(self, init_info: dict[str, Any], index: int) -> dict[str, Any]:
        if "rank_offset" not in init_info:  # ipc has no ranks
            return init_info
        return {**init_info, "rank_offset": init_info["rank_offset"] + index * self._workers}
