"""The weight wire's client without Ray: the engine lives in an event loop of the test's own process."""

import asyncio
from typing import Any


class LoopClient:
    """The learner's line to an engine that lives in an event loop of this process."""

    def __init__(self, engine: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.engine, self.loop, self.weight_version = engine, loop, "0"

    def _call(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self._call(self.engine.init_weight_transfer_engine(init_info))

    def start_weight_update(self) -> None:
        self._call(self.engine.start_weight_update())

    def update_weights(self, update_info: dict[str, Any]) -> None:
        self._call(self.engine.update_weights(update_info))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._call(self.engine.finish_weight_update(weight_version or self.weight_version))
