"""TensorBoard, W&B offline, MLflow and Trackio, read back by their own libraries; a step is taken again in each."""

import importlib.util
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
SECRET = "planted-key-value"


def needs(package: str) -> pytest.MarkDecorator:
    spec = importlib.util.find_spec(package)
    return pytest.mark.skipif(spec is None or spec.origin is None, reason=f"{package} is not installed")


def track(
    folder: Path, tracker: str, first: int, end: int, *settings: str, outcome: str = "finished", **variables: str
) -> str:
    """Record steps in another process, and return what it printed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "MLFLOW", "TRACKIO"))}
    environment = kept | {"PYTHONPATH": str(ROOT), "WANDB_API_KEY": SECRET, "HF_HUB_OFFLINE": "1"} | variables
    command = [sys.executable, "-m", "tests.unit.train.tracked_run", str(folder), tracker, str(first), str(end)]
    command += [outcome, *settings]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "failed" not in done.stdout
    assert "dropped" not in done.stdout
    assert [path for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()] == []
    return done.stdout


def names(folder: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((folder / "trackers.json").read_text())
    return found


def test_tensorboard_shows_each_step_once_although_it_was_taken_twice(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    track(tmp_path, "tensorboard", 0, 3)
    track(tmp_path, "tensorboard", 2, 4)  # the process was killed after the checkpoint of step 2
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    events.Reload()

    def points(name: str) -> list[tuple[int, float]]:
        return [(event.step, round(event.value, 3)) for event in events.Scalars(name)]

    assert points("policy/loss") == [(0, 0.0), (1, 0.1), (2, 0.2), (3, 0.3)]
    assert points("time/train_s") == [(0, 1.0), (1, 1.0), (2, 1.0), (3, 2.0)]
    assert points("held_out/chart/sampled")[-1] == (2, 2.25)
    assert [event.step for event in events.Images("samples/group_0/image_0")] == [0, 1, 2, 3]
    assert events.Images("samples/group_0/image_0")[0].width == 512
    (text, *_) = [event.tensor_proto.string_val[0].decode() for event in events.Tensors("samples/text_summary")]
    assert "    How tall?" in text
    assert "    reward 1.000, ok; chart, reference 4, sample 7f" in text


def wandb_records(folder: Path) -> Iterator[Any]:
    """Read the records of an offline run: LevelDB's log format, blocks of 32 KiB after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("*.wandb")
    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


@needs("wandb")
def test_a_wandb_offline_run_is_read_back_and_continued_under_its_id(tmp_path: Path) -> None:
    offline = ("tracking.wandb.mode=offline", "tracking.name=first", "tracking.project=charts")
    track(tmp_path, "wandb", 0, 2, *offline, outcome="failed")
    track(tmp_path, "wandb", 2, 3, *offline)
    runs = sorted(path for path in (tmp_path / "wandb").glob("offline-run-*") if path.is_dir())
    assert len(runs) == 2
    for folder, losses, held_out, code in ((runs[0], [0.0, 0.1, 0.1], 0.25, 1), (runs[1], [0.2, 0.2], 2.25, 0)):
        records = list(wandb_records(folder))
        (run,) = [record.run for record in records if record.HasField("run")]
        assert [record.exit.exit_code for record in records if record.HasField("exit")] == [code]
        assert (run.run_id, run.display_name, run.project) == (names(tmp_path)["id"], "first", "charts")
        settings = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in run.config.update}
        assert settings["training"]["num_steps"] > 0
        rows = [
            {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            for record in records
            if record.HasField("history")
        ]
        assert [row["policy/loss"] for row in rows if "policy/loss" in row] == losses
        assert [row["held_out/chart/sampled"] for row in rows if "held_out/chart/sampled" in row] == [held_out]
        assert all("step" in row for row in rows)
        axes = [
            record.metric.step_metric for record in records if record.HasField("metric") and record.metric.glob_name
        ]
        assert axes == ["step"]
        table = json.loads(next(folder.rglob("*.table.json")).read_text())
        assert table["columns"][:2] == ["step", "position"]
        assert "How tall?" in table["data"][0]
        assert list(folder.rglob("*.jpg"))


@needs("mlflow")
def test_an_mlflow_folder_is_read_back_and_continued_as_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = MlflowClient(tracking_uri=str(tmp_path / "mlruns"))
    track(tmp_path, "mlflow", 0, 1, "tracking.name=first", outcome="failed")
    assert client.get_run(names(tmp_path)["mlflow_run"]).info.status == "FAILED"
    track(tmp_path, "mlflow", 1, 2, "tracking.name=first", outcome="stopped")
    assert client.get_run(names(tmp_path)["mlflow_run"]).info.status == "KILLED"
    track(tmp_path, "mlflow", 2, 3, "tracking.name=first", "tracking.samples_per_step=4")
    experiment = client.get_experiment_by_name("mixed-r1")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_id, run.info.run_name) == (names(tmp_path)["mlflow_run"], "first")
    assert run.info.status == "FINISHED"
    assert run.data.params["tracking.samples_per_step"] == "16"
    points = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "policy/loss")]
    assert points == [(0, 0.0), (0, 0.0), (1, 0.1), (1, 0.1), (2, 0.2), (2, 0.2)]
    assert run.data.metrics["held_out/chart/sampled"] == 2.25
    files = [file.path for file in client.list_artifacts(run.info.run_id, "samples")]
    assert "samples/step_00000002_position_4_0.jpg" in files
    table = json.loads(Path(client.download_artifacts(run.info.run_id, "samples/step_00000000.json")).read_text())
    assert table["data"][0][table["columns"].index("question")] == "How tall?"
    settings = json.loads(Path(client.download_artifacts(run.info.run_id, "config.json")).read_text())
    assert settings["tracking"]["samples_per_step"] == 4


READ_TRACKIO = """
import json, trackio
from trackio.sqlite_storage import SQLiteStorage
api = trackio.Api()
runs = list(api.runs("mixed-r1"))
logs = SQLiteStorage.get_logs("mixed-r1", runs[0].name, run_id=runs[0].id)
print("\\n" + json.dumps({"names": [run.name for run in runs], "config": runs[0].config, "logs": logs}))
"""


@needs("trackio")
def test_a_trackio_run_is_read_back_and_continued_as_the_same_run(tmp_path: Path) -> None:
    store = {"TRACKIO_DIR": str(tmp_path / "store")}
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    track(run_dir, "trackio", 0, 2, "tracking.name=first", **store)
    track(run_dir, "trackio", 2, 3, "tracking.name=first", **store)
    read = [sys.executable, "-c", READ_TRACKIO]
    done = subprocess.run(read, capture_output=True, text=True, check=False, env=os.environ | store)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["names"] == [f"first-{names(run_dir)['id'][:6]}"]
    assert found["config"]["training"]["num_steps"] > 0
    points = [(log["step"], log["policy/loss"]) for log in found["logs"] if "policy/loss" in log]
    assert sorted(points) == [(0, 0.0), (1, 0.1), (1, 0.1), (2, 0.2), (2, 0.2)]
    held_out = [(log["step"], log["held_out/chart/sampled"]) for log in found["logs"] if "held_out/mean/sampled" in log]
    assert sorted(held_out) == [(0, 0.25), (2, 2.25)]
    (row, *_) = next(log["samples"] for log in found["logs"] if "samples" in log)["_value"]
    assert (row["question"], row["completion"], row["reward"]) == ("How tall?", "4", 1.0)
    assert row["images"][0]["_type"] == "trackio.image"
