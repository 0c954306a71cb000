"""Trackers are fed in order and never reach the run: those that raise, hang or lag leave its record whole."""

import asyncio
import json
import shlex
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestration.settings.composition import compose
from orchestration.settings.experiment import build_settings, settings_errors
from orchestration.settings.tracking import TrackingConfig, missing_key, missing_packages, tracker_faults
from orchestration.storage.run_folder import RunFolder, settle_config
from orchestration.train.known_trackers import trackers_of
from orchestration.train.trackers import MAX_TEXT, Tracker, Trackers, shown_samples
from orchestration.train.tracking import RunRecord, read_held_out, read_metrics
from rollout.errors import RolloutError
from tests.unit.train.tracked import scored, step_of
from tests.unit.train.tracked_run import png

README = Path(__file__).parents[3] / "orchestration/train/README.md"


class Listing(Tracker):
    """Keeps every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def log_metrics(self, step: int, metrics: Any) -> None:
        self.calls.append(("metrics", step, metrics["policy/loss"], metrics["time/train_s"]))

    def log_held_out(self, step: int, scores: Any) -> None:
        self.calls.append(("held_out", step, scores["held_out/chart/sampled"]))

    def log_samples(self, step: int, samples: Any) -> None:
        self.calls.append(("samples", step, len(samples)))

    def rewind(self, first_step: int) -> None:
        self.calls.append(("rewind", first_step))

    def log_outcome(self, outcome: str) -> None:
        self.calls.append(("outcome", outcome))

    def close(self) -> None:
        self.calls.append(("close",))


class Raising(Tracker):
    def __init__(self) -> None:
        """Take nothing."""

    def log_metrics(self, step: int, metrics: Any) -> None:
        raise ConnectionError(f"no route to the server at step {step}, key planted-key-value")


class Odd(Tracker):
    """Empties what it is given, and raises what is no Exception."""

    def __init__(self) -> None:
        """Take nothing."""

    def log_metrics(self, step: int, metrics: Any) -> None:
        metrics.clear()
        raise asyncio.CancelledError("the server has gone")

    def log_held_out(self, step: int, scores: Any) -> None:
        scores.clear()


def make_broken() -> Tracker:
    raise RuntimeError("refused")


def train(folder: Path, made: dict[str, Callable[[], Tracker]], **options: Any) -> list[str]:
    """Record four steps and held-out scores, going back once; return what was said."""
    said: list[str] = []
    folder.mkdir(exist_ok=True)
    config = replace(TrackingConfig(), **options)
    trackers = Trackers(made, config, say=said.append)
    record = RunRecord(RunFolder(folder), first_step=0, num_steps=4, trackers=trackers, say=said.append)
    record.log_held_out(scored(0, 0.25))
    for step in range(3):
        record.log_step(**step_of(step, 1.0))
    record.rewind(first_step=2)
    for step in (2, 3):
        record.log_step(**step_of(step, 1.0))
    record.close()
    return [line for line in said if line.startswith("tracker ")]


def assert_whole(folder: Path, without: Path) -> None:
    for name in ("metrics.jsonl", "samples.jsonl", "ledger.jsonl", "held_out.jsonl"):
        assert (folder / name).read_bytes() == (without / name).read_bytes(), name
    assert [step["step"] for step in read_metrics(RunFolder(folder))] == [0, 1, 2, 3]
    assert len(read_held_out(RunFolder(folder))) == 1


@pytest.fixture
def without(tmp_path: Path) -> Path:
    """The folder of the same run without a tracker."""
    train(tmp_path / "without", {})
    return tmp_path / "without"


def test_every_tracker_is_told_of_everything_in_order(tmp_path: Path, without: Path) -> None:
    one, other = Listing(), Listing()
    assert train(tmp_path / "run", {"one": lambda: one, "other": lambda: other}) == []
    assert one.calls == other.calls
    assert one.calls[:3] == [("held_out", 0, 0.25), ("metrics", 0, 0.0, 1.0), ("samples", 0, 2)]
    assert [call[:2] for call in one.calls[3:]] == [
        *[(kind, step) for step in (1, 2) for kind in ("metrics", "samples")],
        ("rewind", 2),
        *[(kind, step) for step in (2, 3) for kind in ("metrics", "samples")],
        ("outcome", "finished"),
        ("close",),
    ]
    assert_whole(tmp_path / "run", without)
    assert "trackers/num_failed" not in (tmp_path / "run" / "timings.jsonl").read_text()


def test_a_tracker_that_cannot_be_made_is_named_once_and_the_others_go_on(tmp_path: Path, without: Path) -> None:
    good = Listing()
    said = train(tmp_path / "run", {"broken": make_broken, "good": lambda: good})
    assert said == [
        "tracker broken failed: RuntimeError: refused; the run goes on without it",
        "tracker broken: 1 calls failed, 0 records were dropped; the files of the run folder have everything",
    ]
    assert good.calls[-1] == ("close",)
    assert_whole(tmp_path / "run", without)


def test_a_tracker_that_raises_at_every_step_is_named_once_counted_and_leaks_no_key(
    tmp_path: Path, without: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "planted-key-value")
    said = train(tmp_path / "run", {"net": Raising})
    assert said == [
        "tracker net failed: ConnectionError: no route to the server at step 0, key $WANDB_API_KEY; the run goes on, "
        "and further failures are counted",
        "tracker net: 5 calls failed, 0 records were dropped; the files of the run folder have everything",
    ]
    assert_whole(tmp_path / "run", without)


def test_a_tracker_that_raises_at_every_call_is_closed_all_the_same(tmp_path: Path, without: Path) -> None:
    called: list[str] = []

    class RaisingAlways(Tracker):
        def __init__(self) -> None:
            """Take nothing."""

        def __getattribute__(self, name: str) -> Any:
            called.append(name)
            raise RuntimeError(name)

    said = train(tmp_path / "run", {"bad": RaisingAlways})
    assert called[-2:] == ["log_outcome", "close"]
    assert said[-1].startswith(f"tracker bad: {len(called)} calls failed")
    assert_whole(tmp_path / "run", without)


def test_a_tracker_that_changes_what_it_is_given_or_raises_no_exception_leaves_run_and_others_alone(
    tmp_path: Path, without: Path
) -> None:
    good = Listing()
    said = train(tmp_path / "run", {"odd": Odd, "good": lambda: good})
    assert said[-1].startswith("tracker odd: 5 calls failed, 0 records were dropped")
    assert [call[0] for call in good.calls].count("metrics") == 5
    assert_whole(tmp_path / "run", without)


def test_failures_are_a_metric_of_the_next_step(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    trackers = Trackers({"broken": make_broken}, TrackingConfig(), say=lambda _: None)
    (thread,) = trackers._threads
    thread.join()
    record = RunRecord(folder, first_step=0, num_steps=1, trackers=trackers, say=lambda _: None)
    record.log_step(**step_of(0, 1.0))
    record.close()
    timings = json.loads(folder.timings.read_text())
    assert timings["trackers/num_failed"] == 1.0
    assert "trackers/num_dropped" not in timings


def test_a_tracker_that_hangs_holds_up_nothing_and_what_is_dropped_is_counted(tmp_path: Path, without: Path) -> None:
    is_over = threading.Event()

    def hang() -> Tracker:
        is_over.wait()
        return Tracker()

    said = train(tmp_path / "run", {"slow": hang}, max_waiting=4, close_timeout_s=0.05)
    is_over.set()
    # 1 held-out record, 5 steps with a table each, a rewind: 12 calls, of which 4 wait.
    assert said == [
        "tracker slow is 4 records behind (tracking.max_waiting): more are dropped, and counted",
        "tracker slow did not end within 0.05 s (tracking.close_timeout_s); 4 records wait, and may be lost there",
        "tracker slow: 0 calls failed, 8 records were dropped; the files of the run folder have everything",
    ]
    assert_whole(tmp_path / "run", without)


def test_a_table_has_a_limited_number_of_completions_with_text_as_it_is_and_small_images() -> None:
    groups = step_of(0, 1.0)["groups"]
    (ticket, _) = groups.tickets
    markup = replace(ticket.summary.completions[0], text="<script>x</script> **b**" + "y" * MAX_TEXT)
    summary = replace(ticket.summary, completions=(markup, *ticket.summary.completions))
    groups = replace(groups, tickets=(replace(ticket, summary=summary),))
    (first, second) = shown_samples(groups, {ticket.position: lambda: [png()]}, limit=2)
    assert first.completion.startswith("<script>x</script> **b**yy")
    assert first.completion.endswith(f" ... ({len(markup.text)} characters)")
    assert (second.completion, second.reward, second.parts, second.reason) == ("4", 1.0, {"chart": 1.0}, "ok")
    assert [image.size for image in first.images] == [(512, 256)]
    assert first.images is second.images


@pytest.mark.parametrize("failure", [RolloutError("gone"), OSError("disk"), IndexError("row")])
def test_a_row_that_cannot_be_read_leaves_the_table_without_images(failure: Exception) -> None:
    def read() -> list[bytes]:
        raise failure

    groups = step_of(0, 1.0)["groups"]
    samples = shown_samples(groups, {ticket.position: read for ticket in groups.tickets}, limit=8)
    assert [sample.images for sample in samples] == [(), ()]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["trackers=[wandbb]"], "trackers names wandbb, which is no tracker; did you mean wandb?"),
        (["trackers=[mlflow,mlflow]"], "trackers names mlflow twice; name each once"),
        (
            ["+tracking.options.CsvTracker.column=x"],
            "tracking.options.CsvTracker belongs to no tracker; add FILE.py:CsvTracker to trackers, or remove the "
            "options: ~tracking.options.CsvTracker",
        ),
    ],
)
def test_wrong_names_are_refused(settings: list[str], message: str) -> None:
    config = build_settings(compose(settings))
    assert message in [str(error) for error in settings_errors(config)]


def test_a_write_token_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="set TRACKIO_WRITE_TOKEN instead") as refused:
        build_settings(compose(["tracking.trackio.address='http://host?write_token=planted'"]))
    assert "planted" not in str(refused.value)


def test_a_tool_that_is_not_installed_is_refused_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert missing_packages(["tensorboard", "wandb"], TrackingConfig()) == [
        "trackers names tensorboard, which is not installed; pip install '.[train]' in the checkout, or leave it out",
        "trackers names wandb, which is not installed; pip install '.[wandb]' in the checkout, or leave it out",
    ]


def test_code_that_is_no_tracker_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("class Half:\n    def log_metrics(self, step, metrics): ...\n")
    (fault,) = missing_packages([f"{tmp_path}/mine.py:Half"], TrackingConfig())
    assert fault.endswith(
        "mine.py:Half is no tracker: it has no log_held_out, log_samples, rewind, log_outcome, close; derive the class "
        "from orchestration.train.trackers.Tracker"
    )
    (fault,) = missing_packages([f"{tmp_path}/mine.py:Whole"], TrackingConfig())
    assert "has no Whole" in fault


def test_a_tracker_needs_no_start_of_its_own_and_options_that_it_does_not_take_are_refused(tmp_path: Path) -> None:
    code = "from orchestration.train.trackers import Tracker\nclass Plain(Tracker):\n    pass\n"
    (tmp_path / "mine.py").write_text(code)
    name = f"{tmp_path}/mine.py:Plain"
    assert missing_packages([name], TrackingConfig()) == []
    (fault,) = missing_packages([name], TrackingConfig(options={"Plain": {"colum": 1}}))
    assert "cannot be called with options colum (tracking.options.Plain)" in fault
    said = train(
        tmp_path / "run",
        trackers_of(
            build_settings(compose([f"run_dir={tmp_path}", f"trackers=['{name}']"])), RunFolder(tmp_path), first_step=0
        ),
    )
    assert said == []


def test_wandb_needs_a_key_where_it_is_online(tmp_path: Path) -> None:
    config = TrackingConfig()
    nobody = {"NETRC": str(tmp_path / "netrc")}
    assert "set WANDB_API_KEY in the environment" in missing_key(["wandb"], config, nobody)
    assert missing_key(["wandb"], config, nobody | {"WANDB_API_KEY": "x"}) == ""
    assert missing_key(["tensorboard"], config, nobody) == ""
    assert missing_key(["wandb"], replace(config, wandb=replace(config.wandb, mode="offline")), nobody) == ""
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password x\n")
    assert missing_key(["wandb"], config, nobody) == ""


def test_trackers_may_change_when_a_run_is_continued(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    settle_config(folder, build_settings(compose([f"run_dir={tmp_path}"])))
    old = json.loads(folder.config.read_text())
    del old["trackers"], old["tracking"]
    folder.config.write_text(json.dumps(old | {"tensorboard": True}))  # as runs of earlier versions have it
    changed = build_settings(compose([f"run_dir={tmp_path}", "trackers=[mlflow]", "tracking.project=other"]))
    assert settle_config(folder, changed) == []


def test_the_id_of_a_run_stays(tmp_path: Path) -> None:
    config = build_settings(compose([f"run_dir={tmp_path}", "tracking.name=first"]))
    folder = RunFolder(tmp_path)
    first, second = (trackers_of(config, folder, first_step=step)["tensorboard"] for step in (0, 4))
    infos = [made.args[2] for made in (first, second)]  # type: ignore[attr-defined]
    assert infos[0].id == infos[1].id
    assert (infos[0].name, infos[1].first_step) == ("first", 4)
    assert infos[0].settings["seed"] == 0


def test_no_tracker_writes_no_file(tmp_path: Path) -> None:
    config = build_settings(compose([f"run_dir={tmp_path}", "trackers=[]"]))
    assert trackers_of(config, RunFolder(tmp_path), first_step=0) == {}
    assert list(tmp_path.iterdir()) == []


def test_names_and_options_of_own_trackers_belong_together() -> None:
    config = TrackingConfig(options={"Mine": {"a": 1}})
    assert tracker_faults(["my.py:Mine"], config) == []
    assert len(tracker_faults(["my.py:Other"], config)) == 1


def test_the_tracker_of_the_page_runs_as_printed(tmp_path: Path) -> None:
    page = README.read_text()
    code = page.partition("<!-- my_tracker.py -->\n```python\n")[2].partition("```")[0]
    (tmp_path / "my_tracker.py").write_text(code)
    name = f"{tmp_path}/my_tracker.py:CsvTracker"
    assert missing_packages([name], TrackingConfig()) == []
    config = build_settings(
        compose([f"run_dir={tmp_path}", f"trackers=['{name}']", "+tracking.options.CsvTracker.column=policy/loss"])
    )
    train(tmp_path / "run", trackers_of(config, RunFolder(tmp_path), first_step=0))
    assert (tmp_path / "scores.csv").read_text() == "0,0.0\n1,0.1\n2,0.2\n2,0.2\n3,0.30000000000000004\n"


def test_the_command_of_the_page_composes() -> None:
    (command,) = [line for line in README.read_text().splitlines() if "my_tracker.py:" in line and "mixed-r1" in line]
    config = build_settings(compose(shlex.split(command)[2:]))
    assert config.trackers == ("tensorboard", f"{Path.cwd()}/my_tracker.py:CsvTracker")
    assert config.tracking.options == {"CsvTracker": {"column": "policy/loss"}}
