"""Calls of a buffer, one at a time: what it gives at once, and when it makes its caller wait."""

from collections.abc import Coroutine
from typing import Any

from orchestration.train.buffer import GroupBuffer, Progress
from orchestration.workers.tickets import StepGroups
from tests.unit.train.run_records import ticket, training

BEGINNING = Progress(step=0, next_position=0)
WAITS = "waits"


def new_buffer(start: Progress = BEGINNING, **changes: Any) -> GroupBuffer:
    return GroupBuffer(training(**changes), range_epsilon=1e-6, start=start)


def now(call: Coroutine[Any, Any, Any]) -> Any:
    """What a call gives at once; WAITS if it would wait."""
    try:
        call.send(None)
    except StopIteration as done:
        return done.value
    call.close()
    return WAITS


def free_positions(buffer: GroupBuffer) -> list[int]:
    """The positions that may begin now; none if the buffer makes its caller wait, or ends."""
    positions = now(buffer.wait_for_slots())
    return [] if positions == WAITS else positions


def fill(buffer: GroupBuffer, *positions: int) -> None:
    for position in positions:
        buffer.add(ticket(position))


def positions_of(groups: StepGroups | None) -> list[int]:
    assert groups is not None
    return [t.position for t in groups.tickets]
