"""New weights into every engine, and the proof that they arrived."""

import time
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from orchestration.buffer import GroupTicket
from orchestration.pools.generators import GeneratorPool
from orchestration.pools.learner import LearnerGroup
from rollout.errors import WeightSyncError
from rollout.records import Sample

# Both sides add the same numbers in float64, in another order at most.
FINGERPRINT_RTOL = 1e-6
MAX_COMPARED_TENSORS = 64

Fingerprint = tuple[int, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """One publication of weights."""

    version: int
    transfer_s: float
    """Pause, transfer and resume: how long no engine generated."""
    mismatch: float | None
    """Mean |engine - learner| logprob of one sampled completion under the new weights; None without a probe."""
    num_compared: int
    """Engine tensors compared with the learner's; 0 when this publication was not due for it."""


class WeightSync:
    """Publishes the learner's weights to the engines.

    Consumes: the learner's current weights. Produces: engines that generate under them.
    Waits for: a token boundary in every engine, then the whole transfer.
    """

    def __init__(
        self, generators: GeneratorPool, learner: LearnerGroup, *, check_every: int, max_mismatch: float
    ) -> None:
        """Compare tensors on the first publication and at every `check_every`-th version; stop above `max_mismatch`."""
        self._generators = generators
        self._learner = learner
        self._check_every = check_every
        self._max_mismatch = max_mismatch
        self._published = 0

    async def publish(self, version: int, probe: tuple[GroupTicket, Sample] | None = None) -> SyncReport:
        """Pause, transfer, stamp `version`, resume, and check.

        Raises:
            WeightSyncError: a compared tensor differs, or the probe's logprobs differ by more than `max_mismatch`.
        """
        started = time.perf_counter()
        await self._generators.pause()
        await self._learner.send_weights(version)
        # By version, not by count: a resumed run compares at the steps at which an unbroken one does.
        is_due = self._published == 0 or version % self._check_every == 0
        num_compared = await self._compare_tensors() if is_due else 0
        await self._generators.resume()
        transfer_s = time.perf_counter() - started
        self._published += 1
        mismatch = await self._probe_mismatch(*probe) if probe else None
        if mismatch is not None and not mismatch <= self._max_mismatch:
            raise WeightSyncError(
                f"weights of version {version}: engine and learner disagree by {mismatch:.4f} in mean log-probability, "
                f"more than training.max_mismatch={self._max_mismatch}; look for a tensor that did not arrive, another "
                "image preprocessing or another precision"
            )
        return SyncReport(version=version, transfer_s=transfer_s, mismatch=mismatch, num_compared=num_compared)

    async def _probe_mismatch(self, ticket: GroupTicket, sample: Sample) -> float:
        learner = await self._learner.completion_logprobs(ticket.payload)
        engines = await self._generators.completion_logprobs(ticket.payload, sample)
        return float(max(np.mean(np.abs(engine - learner)) for engine in engines))

    async def _compare_tensors(self) -> int:
        layout = await self._generators.weight_layout(await self._learner.weight_names())
        chosen = sample_evenly(sorted(set(layout.values())), MAX_COMPARED_TENSORS)
        members = {name: own for name, own in layout.items() if own in set(chosen)}
        sent = await self._learner.weight_fingerprints(list(members))
        held = await self._generators.weight_fingerprints(chosen)
        for index, engine in enumerate(held):
            wrong, num_compared = compare_fingerprints(sent, engine, members)
            if wrong:
                raise WeightSyncError(
                    f"engine {index} holds other weights than the learner sent, in: {', '.join(wrong)}; "
                    "the names or the layout of these tensors changed between the learner's model and vLLM's"
                )
            if not num_compared:
                raise WeightSyncError(
                    f"engine {index}: none of {len(chosen)} tensors could be compared with the learner's"
                )
        return num_compared


def sample_evenly(names: list[str], limit: int) -> list[str]:
    """At most `limit` names, spread over the list."""
    return [names[i] for i in sorted({round(i) for i in np.linspace(0, len(names) - 1, min(limit, len(names)))})]


def compare_fingerprints(
    sent: dict[str, Fingerprint], held: dict[str, Fingerprint], members: dict[str, str]
) -> tuple[list[str], int]:
    """Compare what was sent with what an engine holds.

    Args:
        sent: fingerprint by checkpoint name.
        held: fingerprint by the engine's own name; one tensor of the engine may merge several of the checkpoint
            (q, k and v), whose fingerprints then add up.
        members: checkpoint name -> the engine's name.

    Returns:
        The engine's names that differ, and how many could be compared: a shard of a tensor, or one padded to a
        rounder size, cannot.
    """
    parts: dict[str, list[Fingerprint]] = defaultdict(list)
    for name, own in members.items():
        parts[own].append(sent[name])
    wrong = []
    num_compared = 0
    for own, prints in parts.items():
        size, total, squares = (sum(values) for values in zip(*prints, strict=True))
        if held[own][0] != size:
            continue
        num_compared += 1
        scale = abs(squares) + abs(total) + 1e-12
        if (
            abs(held[own][1] - total) > FINGERPRINT_RTOL * scale
            or abs(held[own][2] - squares) > FINGERPRINT_RTOL * scale
        ):
            wrong.append(own)
    return wrong, num_compared
