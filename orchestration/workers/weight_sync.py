"""Sends new weights to every engine, and checks that they arrived."""

import asyncio
import logging
import math
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestration.settings.errors import EngineLostError, InfrastructureError, LearnerLostError, TransferBrokenError
from orchestration.storage.faults import FaultLog, Role
from orchestration.workers.engine_pool import Engine, EnginePool
from orchestration.workers.learner_group import LearnerGroup
from orchestration.workers.tickets import GroupTicket
from orchestration.workers.turns import Turns
from rollout.config import RolloutConfig
from rollout.errors import WeightSyncError
from rollout.fingerprint import as_int64
from rollout.records import Fingerprint, Sample

MAX_COMPARED_TENSORS = 64
MISMATCHES_IN_A_ROW = 3
"""Comparisons above `training.max_mismatch` that end a run. Each is of one completion: one token of a short one can
lift its mean above any limit by chance; weights that did not arrive, or another temperature, lift every one."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """One publication of weights."""

    version: int
    transfer_s: float
    """Pause, transfer and resume: how long no engine generated."""
    num_compared: int
    """Engine tensors compared with the learner's; 0 when this publication was not due for it."""
    num_bytes: int
    """Of the tensors that were sent to each engine worker."""


class WeightSync:
    """Publishes the learner's weights to the engines.

    Consumes: the learner's current weights. Produces: engines that generate under them.
    Waits for: a token boundary in every engine, then the whole transfer. An engine that is lost meanwhile is left
    out and the transfer repeated; one that is built later gets the weights on its own.
    """

    def __init__(
        self,
        pool: EnginePool,
        learner: LearnerGroup,
        turns: Turns,
        *,
        config: RolloutConfig,
        log: FaultLog,
        check_every: int,
        max_mismatch: float,
    ) -> None:
        """Compare tensors on the first publication and at every `check_every`-th version; `mismatch` judges."""
        self._pool = pool
        self._learner = learner
        self._turns = turns
        self._config = config
        self._log = log
        self._check_every = check_every
        self._max_mismatch = max_mismatch
        self._above: list[float] = []
        """Mismatches of the last comparisons, all above the limit."""
        self._is_first = True
        self._version: int | None = None
        self._connected: list[object] = []
        """Actors of learner and engines between which the channel is open."""
        # One transfer at a time: the learner has one channel.
        self._channel = asyncio.Lock()

    async def publish(self, version: int) -> SyncReport:
        """Pause, transfer, stamp `version`, resume, and compare tensors where that is due.

        Raises:
            WeightSyncError: a compared tensor differs.
            LearnerLostError: a learner rank is gone.
            InfrastructureError: too many transfers broke, or too many engines were lost.
        """
        clock = asyncio.get_running_loop().time
        async with self._channel:
            self._version = version
            # By version, not by count: a resumed run compares at the steps at which an unbroken one does.
            is_due = self._is_first or version % self._check_every == 0
            started = clock()
            while True:
                engines = await self._turns.some_ready()
                handles = {engine: engine.handle for engine in engines}
                try:
                    num_bytes, num_compared = await self._transfer(engines, version, is_due)
                    break
                except (TransferBrokenError, EngineLostError) as error:
                    await self._find_lost(handles, error)
                    is_due = True  # what a broken transfer has left in an engine must not be trusted unchecked
            # An engine that was built again meanwhile does not have them.
            self._pool.go_live([engine for engine in engines if engine.handle in self._connected])
            self._is_first = False
            self._turns.end()
            return SyncReport(
                version=version, transfer_s=clock() - started, num_compared=num_compared, num_bytes=num_bytes
            )

    async def admit(self, engine: Engine) -> None:
        """Send the current weights to one new engine while the others generate.

        Where GPUs are shared it takes weights with all others at the end of the step; at once only if no engine is left
        that could end the step.
        """
        if self._turns.is_shared:
            await self._admit_in_turn(engine)
            return
        async with self._channel:
            if engine.is_live or not engine.is_ready or self._version is None:
                return
            handle = engine.handle
            try:
                # The learner may be in a step; what it sends then are the weights after it.
                await self._transfer([engine], await self._learner.weight_version(), is_due=False)
            except (TransferBrokenError, EngineLostError) as error:
                engine.lose(handle, f"it could not take the weights: {error}")
            except LearnerLostError as error:
                # The next publication, by the learner's successor, includes every engine that is ready.
                self._fail_waiting(error)
            else:
                if engine.handle is handle:  # else it was built again meanwhile, and its successor waits for its turn
                    self._pool.go_live([engine])

    async def _admit_in_turn(self, engine: Engine) -> None:
        async with self._turns.borrowed():
            if self._version is None or engine.is_live or self._pool.num_live:
                return
            try:
                await self.publish(self._version)
            except LearnerLostError as error:
                self._fail_waiting(error)

    def _fail_waiting(self, error: LearnerLostError) -> None:
        """Fail waiting groups where no engine is live; otherwise the driver would wait without end."""
        if not self._pool.num_live:
            self._pool.fail_waiting(error)

    @asynccontextmanager
    async def closed(self) -> AsyncIterator[None]:
        """Send no weights during the block, in which the learner is replaced and does not have those of the run yet."""
        async with self._channel:
            yield

    async def mismatch(self, ticket: GroupTicket, sample: Sample, expected: NDArray[np.float32]) -> float | None:
        """Return the mean |engine - learner| logprob of one sampled completion, of the worst engine.

        Args:
            ticket: The completion's group; it is scored under the live weights.
            sample: Its prompt.
            expected: Logprobs [T] by the learner.

        Returns:
            None if no engine answered.

        Raises:
            WeightSyncError: it is above `max_mismatch` for the MISMATCHES_IN_A_ROW-th time in a row, or not a number.
        """
        engines = await self._pool.completion_logprobs(ticket.payload, sample)
        if not engines:
            return None
        found = float(np.max([np.mean(np.abs(engine - expected)) for engine in engines]))
        self._above = [] if found <= self._max_mismatch else [*self._above, found]
        if not self._above:
            return found
        finding = (
            f"weights of version {self._version}: engine and learner disagree by {found:.4f} in mean log-probability, "
            f"more than training.max_mismatch={self._max_mismatch}"
        )
        if len(self._above) < MISMATCHES_IN_A_ROW and not math.isnan(found):
            logger.warning("%s; %d comparisons in a row above it end the run", finding, MISMATCHES_IN_A_ROW)
            return found
        values = ", ".join(f"{value:.4f}" for value in self._above)
        raise WeightSyncError(
            f"{finding} ({values} in a row); look for a tensor that did not arrive, another image preprocessing or "
            "another precision"
        )

    async def _transfer(self, engines: Sequence[Engine], version: int, is_due: bool) -> tuple[int, int]:
        """Send the weights; returns their bytes, and how many tensors were compared."""
        handles = [engine.handle for engine in engines]
        await self._turns.pause_for_weights(engines)
        both_sides = [*self._learner.handles, *handles]
        if both_sides != self._connected:
            self._connected = []
            await self._learner.connect(handles, self._config)
            self._connected = both_sides
        try:
            num_bytes = await self._learner.send_weights(version)
        except InfrastructureError:
            self._connected = []
            raise
        num_compared = await self._compare_tensors(engines) if is_due else 0
        await self._turns.resume_with_weights(engines)
        return num_bytes, num_compared

    async def _find_lost(self, handles: Mapping[Engine, Any], error: InfrastructureError) -> None:
        """Find the engines that are lost; a transfer that broke without a loss is a fault of its own."""
        if not await self._pool.find_lost(handles):
            self._log.record(Role.TRANSFER, 0, str(error))

    async def _compare_tensors(self, engines: Sequence[Engine]) -> int:
        names = await self._learner.weight_names()
        layout = (await self._pool.on_each(engines[:1], "weight_layout", names))[0]
        chosen = sample_evenly(sorted(set(layout.values())), MAX_COMPARED_TENSORS)
        members = {name: own for name, own in layout.items() if own in set(chosen)}
        sent = await self._learner.weight_fingerprints(list(members))
        held = await self._pool.on_each(engines, "weight_fingerprints", chosen)
        for engine, prints in zip(engines, held, strict=True):
            wrong, num_compared = compare_fingerprints(sent, prints, members)
            if wrong:
                raise WeightSyncError(
                    f"engine {engine.index} holds other weights than the learner sent, in: {', '.join(wrong)}; "
                    "the names or the layout of these tensors changed between the learner's model and vLLM's"
                )
            if not num_compared:
                raise WeightSyncError(
                    f"engine {engine.index}: none of {len(chosen)} tensors could be compared with the learner's"
                )
        return num_compared


def sample_evenly(names: list[str], limit: int) -> list[str]:
    """Return at most `limit` names, spread over the list."""
    return [names[i] for i in sorted({round(i) for i in np.linspace(0, len(names) - 1, min(limit, len(names)))})]


def compare_fingerprints(
    sent: dict[str, Fingerprint], held: dict[str, Fingerprint], members: dict[str, str]
) -> tuple[list[str], int]:
    """Compare what was sent with what an engine holds.

    Args:
        sent: fingerprint by checkpoint name.
        held: fingerprint by the engine's own name; one tensor of the engine may merge several of the checkpoint
            (q, k and v), whose fingerprints are then joined.
        members: checkpoint name -> the engine's name; names of one merged tensor in the order of its parts.

    Returns:
        The engine's names that differ, and how many could be compared: a tensor that the engine does not hold whole
        cannot. Of one of which it holds more than there is, its workers hold different copies.
    """
    parts: dict[str, list[Fingerprint]] = defaultdict(list)
    for name, own in members.items():
        parts[own].append(sent[name])
    joined = {own: join_fingerprints(prints) for own, prints in parts.items()}
    compared = [own for own, expected in joined.items() if held[own][0] >= expected[0]]
    return [own for own in compared if held[own] != joined[own]], len(compared)


def join_fingerprints(parts: Sequence[Fingerprint]) -> Fingerprint:
    """Return the fingerprint of the tensor in which others lie one after the other.

    Example:
        >>> join_fingerprints([(1, 5, 0), (1, 7, 0)])
        (2, 12, 7)
    """
    size = total = weighted = 0
    for own_size, own_total, own_weighted in parts:
        weighted += own_weighted + size * own_total
        size, total = size + own_size, total + own_total
    return size, as_int64(total), as_int64(weighted)
