"""What a plan says: memory by role, and what does not fit."""

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
    """How the bytes were counted, for whoever wants to check."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUse:
    """What one place holds at its fullest.

    Example:
        >>> weights = MemoryItem(name="weights", bytes=100, formula="")
        >>> MemoryUse(place="GPU of a learner rank", items=(weights,), limit_bytes=80).excess_bytes
        20
    """

    place: str
    items: tuple[MemoryItem, ...]
    limit_bytes: int | None
    """What there is; None where nobody said."""

    @property
    def total_bytes(self) -> int:
        """All items together."""
        return sum(item.bytes for item in self.items)

    @property
    def excess_bytes(self) -> int:
        """What does not fit; 0 where all does, or no limit is known."""
        return 0 if self.limit_bytes is None else max(0, self.total_bytes - self.limit_bytes)


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
        """The message behind its key."""
        return self.message if self.message.startswith(self.key) else f"{self.key}: {self.message}"
