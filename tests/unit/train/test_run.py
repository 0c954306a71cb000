"""Parts of a run that need no actors: what is closed, where it goes back to, and the rows that it began with."""

import asyncio
import gc
import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestration import job
from orchestration.inputs.prepare import Inputs, check_same_rows, held_out_sets
from orchestration.settings.composition import compose
from orchestration.settings.errors import DataError, PayloadLostError, ResumeError, StoppedError
from orchestration.settings.experiment import build_settings
from orchestration.storage.files import write_json
from orchestration.storage.run_folder import RunFolder
from orchestration.train.run import Run
from orchestration.train.run_state import RunState
from rollout.dataset import write_samples
from rollout.errors import RolloutError
from rollout.records import Sample
from tests.unit.train.run_records import ticket


def closing(name: str, closed: list[str], *failing: str) -> Callable[..., Any]:
    async def close(*_: Any) -> None:
        closed.append(name)
        if name in failing:
            raise OSError(f"{name} does not close")

    return close


@pytest.mark.parametrize("failing", [("files", "engines"), ("rewards", "learner"), ("step",)])
def test_everything_is_closed_and_the_first_error_is_raised(failing: tuple[str, ...]) -> None:
    closed: list[str] = []
    names = {"_drop_step": "step", "_close_files": "files", "_close_rewards": "rewards"}
    run: Any = SimpleNamespace(
        **{attribute: closing(name, closed, *failing) for attribute, name in names.items()},
        engines=SimpleNamespace(close=closing("engines", closed, *failing)),
        learner=SimpleNamespace(close=closing("learner", closed, *failing)),
    )
    with pytest.raises(OSError, match=failing[0]):
        asyncio.run(Run.close(run, "finished"))
    assert closed == ["step", "files", "rewards", "engines", "learner"]


def test_an_error_while_a_run_is_closed_does_not_hide_the_one_that_ended_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(run: Any) -> None:
        raise DataError("too many rows are bad")

    closed: list[str] = []
    monkeypatch.setattr(job, "while_ray_lives", fail)
    monkeypatch.setattr(job, "_start_and_train", lambda run: run)
    run: Any = SimpleNamespace(close=closing("engines", closed, "engines"))
    with pytest.raises(DataError):
        asyncio.run(job._run_and_close(run))
    assert closed == ["engines"]
    assert "engines does not close" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "finished"),
        (DataError("too many rows are bad"), "failed"),
        (ExceptionGroup("tasks", [DataError("too many rows are bad")]), "failed"),
        (StoppedError("SIGTERM received"), "stopped"),
        (KeyboardInterrupt(), "stopped"),
        (asyncio.CancelledError(), "stopped"),  # by a second Ctrl-C
    ],
)
def test_trackers_are_told_how_a_run_ended(
    monkeypatch: pytest.MonkeyPatch, error: BaseException | None, outcome: str
) -> None:
    async def end(run: Any) -> None:
        if error is not None:
            raise error

    async def close(outcome: str) -> None:
        told.append(outcome)

    told: list[str] = []
    monkeypatch.setattr(job, "while_ray_lives", end)
    monkeypatch.setattr(job, "_start_and_train", lambda run: run)
    run: Any = SimpleNamespace(close=close)
    with nullcontext() if error is None else pytest.raises(type(error)):
        asyncio.run(job._run_and_close(run))
    assert told == [outcome]


def test_a_run_goes_back_while_heartbeats_go_on() -> None:
    class Checkpoints:
        """Whose newest is whole when the event loop has taken a breath meanwhile."""

        store = "store"

        def __init__(self) -> None:
            self.breath: asyncio.Event | None = None
            self.was_free = False

        async def abandon(self) -> None:
            self.loop = asyncio.get_running_loop()
            self.breath = asyncio.Event()

        def latest(self) -> None:
            if self.breath is not None:
                asyncio.run_coroutine_threadsafe(self.breath.wait(), self.loop).result(timeout=20.0)
                self.was_free = True

        def has_any(self) -> bool:
            return False

    checkpoints = Checkpoints()
    pulse: Any = SimpleNamespace(go_to=lambda state: None, load_state_dict=lambda state: None)
    state = RunState(None, checkpoints, draws=pulse, lengths=pulse, faults=None, say=print)  # type: ignore[arg-type]

    async def scenario() -> None:
        going_back = asyncio.create_task(state.go_back())
        while checkpoints.breath is None:
            await asyncio.sleep(0)
        checkpoints.breath.set()
        await going_back

    asyncio.run(scenario())
    assert checkpoints.was_free


@pytest.mark.parametrize("error", [RolloutError("row is gone"), PayloadLostError("node is gone")])
def test_a_comparison_whose_row_or_group_is_gone_is_left_out(error: Exception) -> None:
    said: list[str] = []
    lost: list[str] = []

    async def read(positions: list[int]) -> None:
        assert positions == [4]

    async def mismatch(*_: Any) -> float:
        raise error

    run: Any = SimpleNamespace(
        draws=SimpleNamespace(read=read, at=lambda position: SimpleNamespace(sample=None)),
        weight_sync=SimpleNamespace(mismatch=mismatch),
        lose_payloads=lambda ids, cause: lost.extend(ids),
        _say=said.append,
    )
    groups: Any = SimpleNamespace(probed=ticket(4), step=2)
    assert asyncio.run(Run.check_mismatch(run, groups, "logprobs")) is None  # type: ignore[arg-type]
    assert (len(said), lost) == ((1, []) if isinstance(error, RolloutError) else (0, ["0-4"]))


def rows(path: Path, *answers: str) -> Path:
    path.mkdir(parents=True)
    samples = [Sample(sample_id=a, source="s", task="chart", question="?", answer=a) for a in answers]
    write_samples(path / "0.parquet", samples)
    return path


def begun(root: Path, *, step: int | None) -> RunFolder:
    """A run folder, with a checkpoint of a step."""
    folder = RunFolder(root)
    root.mkdir()
    folder.config.write_text(json.dumps({"training": {"checkpoint_dir": None}}))
    if step is not None:
        from learner.checkpoint import StagedShare, mark
        from learner.store import open_store

        share = StagedShare(step=step, weight_version=step, num_ranks=1)
        mark(open_store(folder.checkpoints), share, (), extra={}, scores={})
    return folder


def note_rows(
    folder: RunFolder, inputs: Inputs, sets: dict[str, Path] | None = None, *, is_change_allowed: bool = False
) -> None:
    """Do what a run does when it begins."""
    write_json(folder.data, check_same_rows(folder, inputs, sets or {}, is_change_allowed=is_change_allowed))


def test_a_run_continues_with_its_rows_wherever_they_lie(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run", step=3)
    train, held_out = rows(tmp_path / "train", "1", "2"), rows(tmp_path / "held_out", "3")
    for _ in range(2):
        note_rows(folder, Inputs(model=tmp_path, train=train, held_out=held_out))
        train = train.rename(tmp_path / "moved")


@pytest.mark.parametrize("name", ["train", "held_out"])
def test_other_rows_under_the_same_path_are_refused_by_name(tmp_path: Path, name: str) -> None:
    folder = begun(tmp_path / "run", step=3)
    inputs = Inputs(
        model=tmp_path, train=rows(tmp_path / "train", "1", "2"), held_out=rows(tmp_path / "held_out", "3", "4")
    )
    note_rows(folder, inputs)
    (tmp_path / name).rename(tmp_path / "old")
    rows(tmp_path / name, "1", "5")
    with pytest.raises(ResumeError, match=rf"data\.{name} .*restore them.*allow_config_change=true"):
        check_same_rows(folder, inputs, {}, is_change_allowed=False)
    note_rows(folder, inputs, is_change_allowed=True)
    note_rows(folder, inputs)


def test_other_rows_of_a_further_held_out_set_are_refused_by_name_and_a_new_set_is_not(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run", step=3)
    inputs = Inputs(model=tmp_path, train=rows(tmp_path / "train", "1"), held_out=rows(tmp_path / "held_out", "2"))
    note_rows(folder, inputs)
    settings = (f"run_dir={tmp_path}", f"+evaluation.sets.charts.path={rows(tmp_path / 'charts', '3')}")
    sets = held_out_sets(build_settings(compose(settings)))
    assert held_out_sets(build_settings(compose([*settings, "evaluation.enabled=false"]))) == {}
    for _ in range(2):
        note_rows(folder, inputs, sets)
    (tmp_path / "charts").rename(tmp_path / "old")
    rows(tmp_path / "charts", "4", "5")
    with pytest.raises(ResumeError, match=r"evaluation\.sets\.charts\.path \(.*\) holds 2 rows, .* not the 1 rows, in"):
        note_rows(folder, inputs, sets)
    note_rows(folder, inputs, sets, is_change_allowed=True)
    note_rows(folder, inputs, sets)


@pytest.mark.parametrize("is_old", [True, False], ids=["of an older version", "without a checkpoint"])
def test_a_run_that_noted_no_rows_or_has_done_no_step_takes_what_it_is_given(tmp_path: Path, is_old: bool) -> None:
    folder = begun(tmp_path / "run", step=3 if is_old else None)
    held_out = rows(tmp_path / "held_out", "3")
    first = Inputs(model=tmp_path, train=rows(tmp_path / "first", "1"), held_out=held_out)
    if not is_old:
        note_rows(folder, first)
    other = Inputs(model=tmp_path, train=rows(tmp_path / "other", "2"), held_out=held_out)
    assert check_same_rows(folder, other, {}, is_change_allowed=False)["data.train"]["num_rows"] == 1


def test_a_list_of_rows_that_a_copy_cut_short_is_told_of(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run", step=3)
    inputs = Inputs(model=tmp_path, train=rows(tmp_path / "train", "1"), held_out=rows(tmp_path / "held_out", "2"))
    folder.data.write_text('{"data.tr')
    with pytest.raises(ResumeError, match=r"data\.json is not whole JSON .*restore or delete it"):
        check_same_rows(folder, inputs, {}, is_change_allowed=False)


@pytest.mark.parametrize("noted", ["{}", "[]", "null", '{"data.train": {"num_rows": 1, "blake2b": ""}}'])
def test_a_list_of_rows_that_lacks_one_of_them_is_told_of(tmp_path: Path, noted: str) -> None:
    folder = begun(tmp_path / "run", step=3)
    inputs = Inputs(model=tmp_path, train=rows(tmp_path / "train", "1"), held_out=rows(tmp_path / "held_out", "2"))
    folder.data.write_text(noted)
    with pytest.raises(ResumeError, match=r"data\.json lacks .*data\.held_out\.num_rows.*restore or delete it"):
        check_same_rows(folder, inputs, {}, is_change_allowed=False)


def test_a_learner_whose_start_is_interrupted_leaves_no_error_behind() -> None:
    from tests.unit.workers.fake_actors import HANGS
    from tests.unit.workers.test_learner_group import Ranks

    noise: list[dict[str, Any]] = []

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: noise.append(context))
        ranks = Ranks()
        ranks.answers["build"] = HANGS
        building = asyncio.create_task(ranks.group.build(0))
        while not (ranks.made and ranks.made[-1].open):
            await asyncio.sleep(0)
        building.cancel()
        await asyncio.gather(building, return_exceptions=True)
        await ranks.group.close()
        del building
        await asyncio.sleep(0)
        gc.collect()

    asyncio.run(scenario())
    assert noise == []
