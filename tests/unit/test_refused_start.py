"""A start that is refused leaves its run folder as it was, and what the plan says cannot fit is not started."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestration import job
from orchestration.cli import main
from orchestration.settings.errors import ConfigError
from orchestration.storage.files import exclusive
from tests.unit.model_folders import write_model_folder
from tests.unit.plan.runs import dataset, row

ROWS = [row(number, prompt_tokens=60, sizes=()) for number in range(8)]
LONG = [row(number, prompt_tokens=900, sizes=(), question="how tall is it " * 300) for number in range(8, 12)]
UNROUTED = row(12, prompt_tokens=60, sizes=(), task="music")
Start = Callable[..., str]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Start:
    """Train on rows up to where Ray would start, which refuses as a cluster without room does; gives the refusal."""
    model = write_model_folder(tmp_path / "model")
    monkeypatch.setattr(job, "actors_reserved", no_room)

    def train(rows: list[dict[str, Any]], *overrides: str) -> str:
        data = dataset(tmp_path / "rows.parquet", rows)
        with pytest.raises(SystemExit) as left:
            main(["train", "model=qwen2_5_vl", f"model.path={model}", "data=parquet", f"data.train={data}",
                  f"data.held_out={data}", f"run_dir={tmp_path / 'runs' / 'first'}", f"cache_dir={tmp_path / 'cache'}",
                  *overrides])  # fmt: skip
        assert left.value.code == 2
        return capsys.readouterr().err

    return train


@contextmanager
def no_room(config: Any, log_dir: Path) -> Iterator[None]:
    log_dir.mkdir(parents=True)
    raise ConfigError("cluster.nodes: no room")
    yield


@pytest.mark.parametrize(
    ("rows", "overrides", "words"),
    [
        ([*ROWS, UNROUTED], [], "1 rows that no reward reads"),
        ([*ROWS, *LONG], [], "rollout.engine.max_model_len: 4 of 12 rows"),
        (ROWS, ["rollout.engine.max_model_len=200000"], "rollout.engine.max_model_len"),
        (ROWS, [], "cluster.nodes: no room"),
    ],
)
def test_a_refused_start_leaves_no_trace_of_the_run(
    rows: list[dict[str, Any]], overrides: list[str], words: str, start: Start, tmp_path: Path
) -> None:
    assert words in start(rows, *overrides)

    assert not (tmp_path / "runs").exists()


def test_a_refused_start_leaves_a_folder_that_was_there_as_it_was(start: Start, tmp_path: Path) -> None:
    (tmp_path / "runs" / "first" / "notes").mkdir(parents=True)

    assert "no room" in start(ROWS)

    assert list((tmp_path / "runs" / "first").rglob("*")) == [tmp_path / "runs" / "first" / "notes"]


def test_what_does_not_fit_is_refused_by_plan_and_train_until_it_is_wanted(start: Start) -> None:
    said = start([*ROWS, *LONG], "rollout.engine.kv_cache_bytes=100000")

    first, second = said.splitlines()
    assert first.startswith("mixed-r1 train: rollout.engine.kv_cache_bytes: an engine's key-value cache holds")
    assert second.startswith("rollout.engine.max_model_len: 4 of 12 rows")
    assert second.endswith("plan.enforce=false starts the run anyway)")
    assert "no room" in start([*ROWS, *LONG], "rollout.engine.kv_cache_bytes=100000", "plan.enforce=false")


def test_what_cannot_fit_is_refused_before_the_model_and_the_rows_are_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["train", "experiment=cpu_smoke", "rollout.engine.kv_cache_bytes=100000",
              f"run_dir={tmp_path / 'runs' / 'first'}", f"cache_dir={tmp_path / 'cache'}"])  # fmt: skip

    assert left.value.code == 2
    assert "less than one sequence of rollout.engine.max_model_len=256" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_lock_stays_with_a_folder_in_which_something_was_written(tmp_path: Path) -> None:
    with exclusive(tmp_path / "run", refusal="busy"):
        (tmp_path / "run" / "config.json").touch()

    assert (tmp_path / "run" / ".lock").is_file()
