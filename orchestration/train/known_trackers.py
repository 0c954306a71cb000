"""TensorBoard, W&B, MLflow and Trackio as trackers of a run; each package is imported when its tracker is made.

Where steps are taken again after a rewind, TensorBoard drops the points of the first attempt. The others cannot remove
points: a step then has two in its history, of which the later one is of the weights that remain.
"""

import io
import json
import os
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from orchestration.settings.experiment import ExperimentConfig
from orchestration.storage.files import write_json
from orchestration.storage.run_folder import RunFolder, flatten, read_tracker_names
from orchestration.train.trackers import Outcome, RunInfo, ShownSample, Tracker, own_tracker
from orchestration.train.tracking import read_held_out

COLUMNS = ("step", "position", "sample_id", "task", "question", "answer", "completion", "reward", "parts", "reason")
"""Of a table of samples."""
JPEG_QUALITY = 85
MLFLOW_VALUE = 500
"""Characters of a parameter that every store of MLflow takes."""
MLFLOW_BATCH = 100
"""Parameters that MLflow takes at once; of metrics it takes more."""
MLFLOW_STATUS: Mapping[Outcome, str] = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
WANDB_EXIT_CODES: Mapping[Outcome, int] = {"finished": 0, "failed": 1, "stopped": 255}
"""255 is what W&B itself takes for Ctrl-C."""
MLFLOW_REFUSED = re.compile(r"[^\w\-. :/]")
"""Characters that MLflow refuses in names of metrics."""


def known_tracker(name: str, folder: RunFolder, info: RunInfo) -> Tracker:
    """Make a tracker by a name of the setting `trackers`.

    Raises:
        Exception: of its package; it is not installed, or its server does not answer.
    """
    if name == "tensorboard":
        return TensorboardTracker(folder, info)
    if name == "wandb":
        return WandbTracker(info)
    if name == "mlflow":
        return MlflowTracker(folder, info)
    if name == "trackio":
        return TrackioTracker(info)
    return own_tracker(name, info)


class TensorboardTracker(Tracker):
    """Event files in run_dir/tensorboard."""

    def __init__(self, folder: RunFolder, info: RunInfo) -> None:
        self._folder = folder
        self.place = ""  # a folder of the run, as others
        self._open(info.first_step)

    def _open(self, first_step: int) -> None:
        """Begin a file that has TensorBoard drop the points of `first_step` and later, but for its held-out scores."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(self._folder.tensorboard), purge_step=first_step)
        for scores in read_held_out(self._folder):
            if scores["step"] == first_step:  # of the weights before that step, which remain
                self.log_held_out(first_step, {name: value for name, value in scores.items() if name != "step"})

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def log_held_out(self, step: int, scores: Mapping[str, float]) -> None:
        self.log_metrics(step, scores)

    def log_samples(self, step: int, samples: Sequence[ShownSample]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        lines = [text for sample in samples for text in (_headline(sample), sample.question, sample.completion)]
        # Indented by four, Markdown shows text as it is, whatever it contains.
        self._writer.add_text("samples", "\n\n---\n\n".join(map(_indented, lines)), step)
        shown = {sample.position: sample for sample in samples}
        for number, sample in enumerate(shown.values()):
            for index, image in enumerate(sample.images):
                value = Summary.Image(
                    height=image.height, width=image.width, colorspace=3, encoded_image_string=_jpeg(image)
                )
                summary = Summary(value=[Summary.Value(tag=f"samples/group_{number}/image_{index}", image=value)])
                self._writer.file_writer.add_summary(summary, step)
        self._writer.flush()

    def rewind(self, first_step: int) -> None:
        self._writer.close()
        self._open(first_step)

    def close(self) -> None:
        self._writer.close()


class WandbTracker(Tracker):
    """A run of W&B; started again it is the same run, by its id.

    W&B refuses steps below one that it has seen, so the step is a metric of its own, and the axis of all others.
    """

    def __init__(self, info: RunInfo) -> None:
        import wandb

        options = info.tracking.wandb
        limit_s = info.tracking.close_timeout_s
        given: dict[str, Any] = {
            "console": "off",  # it would take that of the run over
            "save_code": False,
            "silent": True,
            "init_timeout": limit_s,
            "finish_timeout": limit_s,  # the end of the process waits for W&B's uploads too
            "finish_timeout_raises": True,
        }
        if options.address is not None:
            given["base_url"] = options.address
        self._wandb: Any = wandb
        self._run: Any = wandb.init(
            project=info.tracking.project,
            entity=options.entity,
            name=info.name,
            id=info.id,
            dir=str(info.folder),
            mode=options.mode,
            resume="allow",
            config=dict(info.settings),
            settings=wandb.Settings(**given),
            reinit="create_new",
            allow_val_change=True,
        )
        self.place = self._run.url if options.mode == "online" else str(Path(self._run.dir).parent)
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        self._outcome: Outcome = "finished"

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log({"step": step, **metrics})

    def log_held_out(self, step: int, scores: Mapping[str, float]) -> None:
        self.log_metrics(step, scores)

    def log_samples(self, step: int, samples: Sequence[ShownSample]) -> None:
        table = self._wandb.Table(columns=list(COLUMNS), data=[_cells(step, sample) for sample in samples])
        # Beside the table: images inside of one are kept outside of the run's folder, and are not part of offline runs.
        images = [
            self._wandb.Image(image, caption=f"position {sample.position}: {sample.question}", file_type="jpg")
            for sample in {sample.position: sample for sample in samples}.values()
            for image in sample.images
        ]
        self._run.log({"step": step, "samples": table, **({"samples/images": images} if images else {})})

    def log_outcome(self, outcome: Outcome) -> None:
        self._outcome = outcome

    def close(self) -> None:
        self._run.finish(exit_code=WANDB_EXIT_CODES[self._outcome])


class MlflowTracker(Tracker):
    """A run of MLflow, on a server or in a folder; started again it is the same run.

    Settings are parameters, which MLflow never changes, and the file config.json, which is always of the last start.
    """

    def __init__(self, folder: RunFolder, info: RunInfo) -> None:
        address = info.tracking.mlflow.address or os.environ.get("MLFLOW_TRACKING_URI") or str(info.folder / "mlruns")
        if "://" not in address:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3 asks for it before it uses a folder
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._metric = Metric
        self._client: Any = MlflowClient(tracking_uri=address)
        self.place = address
        known = read_tracker_names(folder)
        if known.get("mlflow_address") == address:
            self._run_id = known["mlflow_run"]
            self._client.update_run(self._run_id, status="RUNNING")
        else:
            self._run_id = self._begin(info, Param)
            write_json(folder.trackers, known | {"mlflow_address": address, "mlflow_run": self._run_id})
        self._client.log_dict(self._run_id, dict(info.settings), "config.json")

    def _begin(self, info: RunInfo, param: Any) -> str:
        """Create the run with its parameters and return its id."""
        project = info.tracking.project
        found = self._client.get_experiment_by_name(project)
        experiment = found.experiment_id if found is not None else self._client.create_experiment(project)
        run_id: str = self._client.create_run(experiment, run_name=info.name).info.run_id
        params = [param(key, str(value)[:MLFLOW_VALUE]) for key, value in flatten(info.settings)]
        for start in range(0, len(params), MLFLOW_BATCH):
            self._client.log_batch(run_id, params=params[start : start + MLFLOW_BATCH])
        return run_id

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        from mlflow.utils.time import get_current_time_millis

        now = get_current_time_millis()
        found = [self._metric(MLFLOW_REFUSED.sub("_", name), value, now, step) for name, value in metrics.items()]
        for start in range(0, len(found), MLFLOW_BATCH):
            self._client.log_batch(self._run_id, metrics=found[start : start + MLFLOW_BATCH])

    def log_held_out(self, step: int, scores: Mapping[str, float]) -> None:
        self.log_metrics(step, scores)

    def log_samples(self, step: int, samples: Sequence[ShownSample]) -> None:
        table = {"columns": list(COLUMNS), "data": [_cells(step, sample) for sample in samples]}
        self._client.log_dict(self._run_id, table, f"samples/step_{step:08d}.json")
        for sample in {sample.position: sample for sample in samples}.values():
            for index, image in enumerate(sample.images):
                name = f"samples/step_{step:08d}_position_{sample.position}_{index}.jpg"
                self._client.log_image(self._run_id, image, artifact_file=name)

    def log_outcome(self, outcome: Outcome) -> None:
        self._client.set_terminated(self._run_id, status=MLFLOW_STATUS[outcome])


class TrackioTracker(Tracker):
    """A run of Trackio, in the folder of this machine or on a Space or server; started again it is the same run.

    Trackio tells runs apart by their names, so a part of the id belongs to the name.
    """

    def __init__(self, info: RunInfo) -> None:
        import trackio

        options = info.tracking.trackio
        is_server = options.address is not None and options.address.startswith(("http://", "https://"))
        self._trackio: Any = trackio
        self._run: Any = trackio.init(
            project=info.tracking.project,
            name=f"{info.name}-{info.id[:6]}",
            space_id=None if is_server else options.address,
            server_url=options.address if is_server else None,
            config=dict(info.settings),
            resume="allow",
            private=options.private,
            embed=False,
            auto_log_gpu=False,  # of the driver's machine, which is not where the model runs
            auto_log_cpu=False,
        )
        self.place = options.address or f"trackio show --project {info.tracking.project}"

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def log_held_out(self, step: int, scores: Mapping[str, float]) -> None:
        self.log_metrics(step, scores)

    def log_samples(self, step: int, samples: Sequence[ShownSample]) -> None:
        rows = []
        for sample in samples:
            images = [self._trackio.Image(image) for image in sample.images]
            rows.append({"images": images, **dict(zip(COLUMNS, _cells(step, sample), strict=True))})
        self._run.log({"samples": self._trackio.Table(data=rows)}, step=step)

    def close(self) -> None:
        self._run.finish()


def trackers_of(config: ExperimentConfig, folder: RunFolder, *, first_step: int) -> dict[str, Callable[[], Tracker]]:
    """Return what makes each tracker of a run, by its name."""
    names = read_tracker_names(folder)
    if config.trackers and "id" not in names:
        names = {"id": uuid.uuid4().hex[:16], **names}
        write_json(folder.trackers, names)
    info = RunInfo(
        folder=folder.root,
        name=config.tracking.name or folder.root.name,
        id=names.get("id", ""),
        first_step=first_step,
        settings=json.loads(json.dumps(asdict(config))),
        tracking=config.tracking,
    )
    return {name: partial(known_tracker, name, folder, info) for name in config.trackers}


def _cells(step: int, sample: ShownSample) -> list[Any]:
    """Return the row of a sample below COLUMNS, in types that every tool takes."""
    parts = ", ".join(f"{name} {value:g}" for name, value in sample.parts.items())
    return [
        step,
        sample.position,
        sample.sample_id,
        sample.task,
        sample.question,
        sample.answer,
        sample.completion,
        sample.reward,
        parts,
        sample.reason,
    ]


def _headline(sample: ShownSample) -> str:
    reward = "masked" if sample.reward is None else f"{sample.reward:.3f}"
    return f"reward {reward}, {sample.reason}; {sample.task}, reference {sample.answer}, sample {sample.sample_id}"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines() or [""])


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()
