"""Saver: checkpoints that fail are counted and tried again, so that one bad write does not end a run."""

from collections.abc import Callable, Mapping
from typing import Any

from learner.errors import CheckpointError
from orchestration.storage.checkpoints import Checkpoints
from orchestration.storage.faults import FaultLog, Role


class Saver:
    """Saves a run within the limits of its fault log."""

    def __init__(self, checkpoints: Checkpoints, faults: FaultLog, say: Callable[[str], None]) -> None:
        """Take nothing for saved."""
        self._checkpoints = checkpoints
        self._faults = faults
        self._say = say
        self.saved_step: int | None = None
        """The newest step that is saved or on its way."""

    async def begin(self, step: int, extra: Mapping[str, Any], scores: Mapping[str, float] | None = None) -> None:
        """Stage a checkpoint; it is written beside training, and the ones before stay until it is whole.

        Raises:
            TooManyFaultsError: too many failed within the window.
        """
        while self.saved_step != step:
            try:
                await self._checkpoints.begin(step, extra=extra, scores=scores)
                self.saved_step = step
            except CheckpointError as error:
                self._note(step, error)

    async def stage(self, step: int) -> None:
        """Let the learner stage its state now, for a `begin` of the same step.

        Raises:
            TooManyFaultsError: too many failed within the window.
        """
        while True:
            try:
                return await self._checkpoints.stage(step)
            except CheckpointError as error:
                self._note(step, error)

    async def settle(self, step: int, extra: Callable[[], Mapping[str, Any]]) -> None:
        """Wait until a checkpoint of `step` is complete, which is begun if it was not.

        Raises:
            TooManyFaultsError: too many failed within the window.
        """
        while True:
            await self.begin(step, extra())
            try:
                return await self._checkpoints.settle()
            except CheckpointError as error:
                self._note(step, error)

    def _note(self, step: int, error: CheckpointError) -> None:
        self.saved_step = None
        self._say(f"step {step}: {error}")
        self._faults.record(Role.CHECKPOINT, 0, str(error))
