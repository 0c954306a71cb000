"""Records of a plan: memory by item and place, and findings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

CONTEXT_BYTES = 1_200 * 2**20
"""CUDA context, NCCL's buffers and the libraries' workspaces: an assumption, to be measured on the card at hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryItem:
    """One item of memory."""

    name: str
    bytes: int
    formula: str
    """How the bytes were counted."""


Items = tuple[MemoryItem, ...]


def make_item(name: str, size: float, formula: str) -> MemoryItem:
    """Return an item of whole bytes."""
    return MemoryItem(name=name, bytes=int(size), formula=formula)


def make_product(name: str, each: int, number: int, note: str = "") -> MemoryItem:
    """Return an item of `number` elements of `each` bytes.

    Example:
        >>> make_product("gradients", 4, 1024, " parameters").formula
        '4 B x 1,024 parameters'
    """
    return make_item(name, each * number, f"{each} B x {number:,}{note}")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUse:
    """Peak memory of one place: a device, a process or a machine.

    Example:
        >>> weights = MemoryItem(name="weights", bytes=100, formula="")
        >>> MemoryUse(place="GPU of a learner rank", items=(weights,), limit_bytes=80).excess_bytes
        20
    """

    place: str
    items: Items
    limit_bytes: int | None
    """Available memory; None if unknown."""

    @property
    def total_bytes(self) -> int:
        return sum(item.bytes for item in self.items)

    @property
    def excess_bytes(self) -> int:
        """Bytes above the limit; 0 if all fits or the limit is unknown."""
        return 0 if self.limit_bytes is None else max(0, self.total_bytes - self.limit_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerParts:
    """Memory of one learner rank: on its device, and in host memory if something is offloaded."""

    kept: Items
    """On the device between steps."""
    phases: Mapping[str, Items]
    """What each phase of a step adds there."""
    host_kept: Items = ()
    host_phases: Items = ()
    """What the fullest phase adds in host memory."""

    @property
    def fullest(self) -> tuple[str, Items]:
        """The phase that adds most, and its items."""
        return max(self.phases.items(), key=lambda phase: sum(item.bytes for item in phase[1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that a user should know before the run."""

    severity: Literal["error", "warning"]
    """error: the run is refused as configured."""
    key: str
    """The setting to change."""
    message: str
    """What is wrong, with values, and what to change."""

    @property
    def line(self) -> str:
        """The message, beginning with its key."""
        return self.message if self.message.startswith(self.key) else f"{self.key}: {self.message}"


def error(key: str, message: str) -> Finding:
    """Return a finding that refuses a run."""
    return Finding(severity="error", key=key, message=message)


def warning(key: str, message: str) -> Finding:
    """Return a finding that does not refuse a run."""
    return Finding(severity="warning", key=key, message=message)
