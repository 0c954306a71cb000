"""Which groups make which step: held against a cut of the whole line, done anew each time."""

from collections.abc import Callable, Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.train.steps import Cut, StepLine

Entry = tuple[int, bool | None]
"""A position, and whether it counts; None while it is on its way."""


class Reference:
    """The same line as one list, cut from its beginning whenever something is asked."""

    def __init__(self, groups_per_step: int, max_replaced: int) -> None:
        self.groups_per_step = groups_per_step
        self.max_replaced = max_replaced
        self.line: list[Entry] = []

    def size(self, step: Sequence[Entry]) -> int:
        num_idle = sum(counts is False for _, counts in step)
        return self.groups_per_step + min(num_idle, self.max_replaced)

    def cut(self, line: Sequence[Entry]) -> list[list[Entry]]:
        steps: list[list[Entry]] = []
        for entry in line:
            if not steps or len(steps[-1]) == self.size(steps[-1]):
                steps.append([])
            steps[-1].append(entry)
        return steps

    def has_room(self, num_open: int) -> bool:
        steps = self.cut(self.line)
        is_full = not steps or len(steps[-1]) == self.size(steps[-1])
        return len(steps) + is_full <= num_open

    def is_whole(self) -> bool:
        steps = self.cut(self.line)
        return bool(steps) and len(steps[0]) == self.size(steps[0]) and all(c is not None for _, c in steps[0])

    def take(self, step: Sequence[Entry], carried: Sequence[int] = ()) -> Cut:
        used = {position for position, _ in step}
        self.line = [entry for entry in self.line if entry[0] not in used]
        replaced = [position for position, counts in step if counts is False][: self.max_replaced]
        taken = tuple(position for position, _ in step if position not in replaced)
        return Cut(taken=taken, replaced=tuple(replaced), carried=tuple(carried))

    def pop(self) -> Cut:
        return self.take(self.cut(self.line)[0])

    def overtake(self, may_wait: Callable[[int, int], bool]) -> Cut | None:
        done = [entry for entry in self.line if entry[1] is not None]
        first = next(iter(self.cut(done)), [])
        if not first or len(first) < self.size(first):
            return None
        rest = [entry for entry in self.line if entry not in first]
        if any(not may_wait(p, after) for after, step in enumerate(self.cut(rest), 1) for p, _ in step):
            return None
        return self.take(first, [p for p, counts in self.cut(self.line)[0] if counts is None])


sizes = {"groups_per_step": st.integers(1, 4), "max_replaced": st.integers(0, 4)}


@given(
    **sizes,
    num_open=st.integers(1, 4),
    outcomes=st.lists(st.booleans(), min_size=1, max_size=40),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=150, deadline=None)
def test_without_overtaking_the_cuts_follow_from_the_outcomes_alone(
    groups_per_step: int, max_replaced: int, num_open: int, outcomes: list[bool], seed: int
) -> None:
    order = Random(seed)
    line = StepLine(groups_per_step=groups_per_step, max_replaced=max_replaced)
    expected = Reference(groups_per_step, max_replaced)
    expected.line = list(enumerate(outcomes))
    begun: list[int] = []
    pending: set[int] = set()
    begun_for: dict[int, int] = {}
    cuts: list[Cut] = []
    while True:
        while line.has_room(num_open) and len(begun) < len(outcomes):
            position = len(begun)
            line.begin(position)
            begun.append(position)
            pending.add(position)
            known = Reference(groups_per_step, max_replaced)
            known.line = [(p, None if p in pending else outcomes[p]) for p in line.outstanding()]
            begun_for[position] = len(cuts) + len(known.cut(known.line)) - 1
            assert begun_for[position] < len(cuts) + num_open
        while line.is_whole():
            cuts.append(line.pop())
        if not pending and not (line.has_room(num_open) and len(begun) < len(outcomes)):
            break
        if pending:
            position = order.choice(sorted(pending))
            pending.remove(position)
            line.settle(position, counts=outcomes[position])

    for cut in cuts:
        assert cut == expected.pop()
        assert len(cut.taken) == groups_per_step
    assert not expected.is_whole()
    assert line.outstanding() == [position for position, _ in expected.line]
    for step, cut in enumerate(cuts):
        assert all(step <= begun_for[position] for position in (*cut.taken, *cut.replaced))


@given(
    **sizes, num_open=st.integers(1, 4), slack=st.integers(0, 3), steps=st.integers(1, 70), seed=st.integers(0, 2**32)
)
@settings(max_examples=120, deadline=None)
def test_every_answer_is_that_of_the_reference_overtaking_included(
    groups_per_step: int, max_replaced: int, num_open: int, slack: int, steps: int, seed: int
) -> None:
    order = Random(seed)
    line = StepLine(groups_per_step=groups_per_step, max_replaced=max_replaced)
    reference = Reference(groups_per_step, max_replaced)
    latest: dict[int, int] = {}
    used: list[int] = []
    num_taken = 0

    def may_wait(position: int, after: int) -> bool:
        return num_taken + after <= latest[position]

    def keep(cut: Cut) -> None:
        nonlocal num_taken
        assert len(cut.taken) == groups_per_step
        assert len(cut.replaced) <= max_replaced
        assert all(num_taken <= latest[position] for position in (*cut.taken, *cut.replaced))
        used.extend((*cut.taken, *cut.replaced))
        num_taken += 1

    for _ in range(steps):
        for limit in range(6):
            assert line.has_room(limit) == reference.has_room(limit)
        assert line.is_whole() == reference.is_whole()
        assert line.outstanding() == [position for position, _ in reference.line]
        if line.has_room(num_open) and order.random() < 0.6:
            position = len(latest)
            line.begin(position)
            reference.line.append((position, None))
            latest[position] = num_taken + len(reference.cut(reference.line)) - 1 + slack
        elif pending := [position for position, counts in reference.line if counts is None]:
            position, counts = order.choice(pending), order.random() < 0.7
            line.settle(position, counts=counts)
            reference.line = [(p, counts if p == position else c) for p, c in reference.line]
        if line.is_whole() and order.random() < 0.7:
            cut = line.pop()
            assert cut == reference.pop()
            keep(cut)
        elif not line.is_whole() and order.random() < 0.7:
            found = line.overtake(may_wait)
            assert found == reference.overtake(may_wait)
            if found is not None:
                keep(found)
                assert line.outstanding()[: len(found.carried)] == list(found.carried)
    assert sorted([*used, *line.outstanding()]) == list(range(len(latest)))


@given(**sizes, num_open=st.integers(1, 4), seed=st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_full_line_whose_positions_have_all_arrived_gives_a_step_whoever_may_wait(
    groups_per_step: int, max_replaced: int, num_open: int, seed: int
) -> None:
    order = Random(seed)
    line = StepLine(groups_per_step=groups_per_step, max_replaced=max_replaced)
    pending: list[int] = []
    begun = 0
    while line.has_room(num_open) or pending:
        while line.has_room(num_open):
            line.begin(begun)
            pending.append(begun)
            begun += 1
        order.shuffle(pending)
        line.overtake(lambda position, after: False)
        line.settle(pending.pop(), counts=order.random() < 0.5)
    assert line.is_whole()


def test_straggler_is_carried_to_the_front_of_the_next_step() -> None:
    line = StepLine(groups_per_step=2, max_replaced=0)
    for position in range(5):
        line.begin(position)
    for position in (1, 3, 4):
        line.settle(position, counts=True)

    assert line.overtake(lambda position, after: True) == Cut(taken=(1, 3), replaced=(), carried=(0,))
    assert not line.is_whole()
    line.settle(0, counts=True)
    line.settle(2, counts=True)
    assert line.pop() == Cut(taken=(0, 2), replaced=(), carried=())


def test_a_try_that_failed_for_one_group_is_repeated_when_others_bring_it_forward() -> None:
    line = StepLine(groups_per_step=1, max_replaced=0)
    for position in range(4):
        line.begin(position)

    def may_wait(position: int, after: int) -> bool:
        return after <= (2 if position == 2 else 9)

    line.settle(3, counts=True)
    assert line.overtake(may_wait) is None  # 0, 1, 2 would be left, and 2 would come third
    line.settle(1, counts=True)
    assert line.overtake(may_wait) == Cut(taken=(1,), replaced=(), carried=(0,))  # 0, 2, 3 are left


def test_position_on_its_way_moves_up_with_its_wait() -> None:
    line = StepLine(groups_per_step=1, max_replaced=1)
    line.begin(0)
    line.begin(1)
    line.settle(0, counts=False)  # 1 moves up
    line.begin(2)
    line.begin(3)
    line.settle(1, counts=False)  # beyond the bound: the step stays as it is
    assert line.pop() == Cut(taken=(1,), replaced=(0,), carried=())
    line.settle(2, counts=False)  # 3 moves up from a step of its own, and the line is as long as it was
    assert line.num_pending == 1
    line.begin(4)
    line.settle(3, counts=True)
    line.settle(4, counts=True)
    assert line.pop() == Cut(taken=(3,), replaced=(2,), carried=())
    assert line.pop() == Cut(taken=(4,), replaced=(), carried=())


def test_position_that_arrives_twice_is_our_own_bug() -> None:
    line = StepLine(groups_per_step=2, max_replaced=0)
    line.begin(0)
    line.settle(0, counts=True)
    with pytest.raises(AssertionError, match="position 0 arrived twice"):
        line.settle(0, counts=True)
