"""Records of a plan: bytes by place, and findings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryItem:
    """One thing that occupies memory.

    Example:
        >>> MemoryItem(name="gradients", bytes=4096, formula="4 B x 1,024 parameters / 1 rank").bytes
        4096
    """

    name: str
    bytes: int
    formula: str
    """How the bytes were counted."""


def make_item(name: str, size: float, formula: str) -> MemoryItem:
    """Return an item of whole bytes."""
    return MemoryItem(name=name, bytes=int(size), formula=formula)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUse:
    """Peak memory of one place.

    Example:
        >>> weights = MemoryItem(name="weights", bytes=100, formula="")
        >>> MemoryUse(place="GPU of a learner rank", items=(weights,), limit_bytes=80).excess_bytes
        20
    """

    place: str
    items: tuple[MemoryItem, ...]
    limit_bytes: int | None
    """Memory available; None where it is not known."""

    @property
    def total_bytes(self) -> int:
        return sum(item.bytes for item in self.items)

    @property
    def excess_bytes(self) -> int:
        """Bytes above the limit; 0 where all fits, or no limit is known."""
        return 0 if self.limit_bytes is None else max(0, self.total_bytes - self.limit_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerParts:
    """Memory of one learner rank: on its device, and in host memory where something is offloaded."""

    kept: tuple[MemoryItem, ...]
    """On the device between steps."""
    phases: Mapping[str, tuple[MemoryItem, ...]]
    """What each phase of a step adds there."""
    host_kept: tuple[MemoryItem, ...] = ()
    host_phases: tuple[MemoryItem, ...] = ()
    """What the fullest phase adds in host memory."""

    @property
    def fullest(self) -> tuple[str, tuple[MemoryItem, ...]]:
        """The phase that adds most, and what it adds."""
        return max(self.phases.items(), key=lambda phase: sum(item.bytes for item in phase[1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that a user should know before the run.

    Example:
        >>> Finding(severity="error", key="rollout.engines", message="17 engines need 17 GPUs; lower it to 8").key
        'rollout.engines'
    """

    severity: Literal["error", "warning"]
    """error: the run cannot go as configured."""
    key: str
    """The setting to change."""
    message: str
    """What is wrong, with its values, and what to do."""

    @property
    def line(self) -> str:
        """The message after its key."""
        return self.message if self.message.startswith(self.key) else f"{self.key}: {self.message}"
