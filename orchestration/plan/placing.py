"""A layout in words: machines of one kind with one pattern of actors are told together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestration.cluster.machines import Layout, Machine, Seating
from orchestration.page.formatting import GIB, some, span
from orchestration.settings.cluster import ActorRole

ROLE_NAMES: dict[ActorRole, str] = {"learner": "learner rank", "engine": "engine", "reward": "reward actor"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line about GPUs or cores."""

    where: str
    what: str


def placement_rows(layout: Layout, tensor_parallel: int) -> Iterator[Row]:
    """Say who stands where: a row for each kind of machine, then one for each role on it."""
    for machines in _alike(layout):
        first, last = machines[0], machines[-1]
        machine = layout.machines[first]
        name = machine.name if first == last else _names(machine.name, layout.machines[last].name)
        yield Row(where=name, what=_describe(machine) + (" each" if first != last else ""))
        for role in ROLE_NAMES:
            seats = [seat for seat in layout.of(role) if seat.machine in machines]
            if seats:
                yield _role_row(role, seats, len(machines), tensor_parallel)


def _names(first: str, last: str) -> str:
    """Give `node 0-7` for machines that are numbered, and both names otherwise."""
    (head, _, number), (other, _, final) = first.rpartition(" "), last.rpartition(" ")
    return f"{head} {number}-{final}" if head == other and (number + final).isdigit() else f"{first} to {last}"


def _role_row(role: ActorRole, seats: Sequence[Seating], num_machines: int, tensor_parallel: int) -> Row:
    gpus = sorted({gpu for seat in seats for gpu in seat.gpus})
    what = f"{ROLE_NAMES[role]}{'' if len(seats) == 1 else 's'} {_spans([seat.index for seat in seats])}"
    if num_machines > 1:
        what += f", {len(seats) / num_machines:g} a machine"
    if role == "engine" and gpus:
        what += f", tensor parallel {tensor_parallel}"
    return Row(where=f"  GPU {_spans(gpus)}" if gpus else "  cores", what=what)


def _spans(numbers: Sequence[int]) -> str:
    """Give ascending runs: 0-3, 8-11."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(span(*run) for run in runs)


def _describe(machine: Machine) -> str:
    kind = f" of kind {machine.gpu}" if machine.gpu else ""
    gpus = f"{some(machine.gpus, 'GPU')}{kind}, " if machine.gpus else ""
    return f"{gpus}{some(machine.cpus, 'core')}, {machine.memory_bytes / GIB:,.0f} GiB of memory"


def _alike(layout: Layout) -> list[list[int]]:
    """Indices of machines, neighbours with the same hardware and the same pattern of actors together."""
    found: list[tuple[object, list[int]]] = []
    for index, machine in enumerate(layout.machines):
        own = sorted((seat.role, seat.gpus) for seat in layout.seats if seat.machine == index)
        kind = (machine.gpus, machine.gpu, machine.cpus, machine.memory_bytes, own)
        if found and found[-1][0] == kind:
            found[-1][1].append(index)
        else:
            found.append((kind, [index]))
    return [indices for _, indices in found]
