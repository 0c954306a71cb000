"""training.filter: which groups a step trains on, what takes their places, and what a fault of the function does."""

import asyncio
from pathlib import Path

import pytest

from orchestration import train
from orchestration.settings.errors import ConfigError, DataError
from orchestration.train.buffer import GroupBuffer, load_group_filter
from orchestration.workers.tickets import StepGroups
from tests.unit.train.buffer_driver import free_positions, new_buffer, positions_of
from tests.unit.train.run_records import ticket

README = (Path(train.__path__[0]) / "README.md").read_text(encoding="utf-8").split("## A filter of groups")[1]
EXAMPLE = README.split("```python\n")[1].split("```")[0]
GOOD, EASY = (0.1, 1.0), (0.9, 1.0)


def written(folder: Path, code: str = EXAMPLE) -> str:
    (folder / "my_groups.py").write_text(code)
    return f"{folder / 'my_groups.py'}:keep"


def fill(buffer: GroupBuffer, *groups: tuple[float, ...]) -> None:
    for position, rewards in zip(free_positions(buffer), groups, strict=False):
        buffer.add(ticket(position, rewards=rewards))


def step_of(buffer: GroupBuffer) -> StepGroups:
    groups = asyncio.run(buffer.take_step())
    assert isinstance(groups, StepGroups)
    return groups


def test_another_group_takes_the_place_of_one_that_is_left_out(tmp_path: Path) -> None:
    buffer = new_buffer(filter=written(tmp_path), oversampling=2.0, max_staleness=0)
    fill(buffer, GOOD, EASY)
    fill(buffer, GOOD)
    groups = step_of(buffer)
    assert positions_of(groups) == [0, 2]
    assert [one.position for one in groups.replaced] == [1]


def test_without_oversampling_the_step_is_smaller_and_no_left_out_group_is_trained_on(tmp_path: Path) -> None:
    buffer = new_buffer(filter=written(tmp_path), max_staleness=0)
    fill(buffer, EASY, GOOD)
    groups = step_of(buffer)
    assert positions_of(groups) == [1]
    assert [one.position for one in groups.replaced] == [0]
    assert groups.dropped == {}


def test_a_step_of_which_everything_is_left_out_ends_the_run(tmp_path: Path) -> None:
    buffer = new_buffer(filter=written(tmp_path), max_staleness=0)
    fill(buffer, EASY, EASY)
    with pytest.raises(DataError, match=r"step 0: training.filter=.*my_groups.py:keep leaves out all 2 groups; let it"):
        asyncio.run(buffer.take_step())


def test_a_function_that_raises_drops_the_group_with_the_line(tmp_path: Path) -> None:
    code = "def keep(group):\n    return group.rewards[5] > 0 if group.rewards[0] > 0.5 else True\n"
    buffer = new_buffer(filter=written(tmp_path, code), max_staleness=0)
    fill(buffer, GOOD, EASY)
    groups = step_of(buffer)
    assert positions_of(groups) == [0]
    reason = "training.filter raised IndexError: tuple index out of range (my_groups.py, line 2)"
    assert groups.dropped == {1: reason}
    assert groups.replaced == ()


def test_a_function_that_always_fails_ends_the_run_by_max_drop_frac(tmp_path: Path) -> None:
    buffer = new_buffer(filter=written(tmp_path, "def keep(group):\n    return None\n"), max_staleness=0)
    fill(buffer, GOOD, GOOD)
    with pytest.raises(DataError, match=r"2 of 2 groups were dropped.*training.filter returned None; it must return"):
        asyncio.run(buffer.take_step())


def test_a_fault_of_the_setting_is_said(tmp_path: Path) -> None:
    assert load_group_filter(None) is None
    with pytest.raises(ConfigError, match=r"training.filter=.*my_group.py:keep: .* did you mean my_groups.py\?"):
        load_group_filter(written(tmp_path).replace("groups.py", "group.py"))
    with pytest.raises(ConfigError, match="is a int; name a function keep"):
        load_group_filter(written(tmp_path, "keep = 1\n"))
