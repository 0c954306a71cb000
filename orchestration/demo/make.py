"""Makes the demo's artifacts in a process of its own, with progress bars; the driver of a run never imports torch."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from orchestration.demo.prepare import DemoPaths, DemoProgress, demo_paths, prepare_demo
from orchestration.demo.samples import DemoSample
from orchestration.demo.settings import DemoSettings, FamilyName
from orchestration.errors import DataError
from rollout.dataset import write_samples
from rollout.records import ImageBytes, Sample

BAR_TITLES = {"samples": "drawing tasks", "warm_start": "supervised warm start"}


def make_in_subprocess(cache: Path, settings: DemoSettings, family: FamilyName | None) -> DemoPaths:
    """Give the artifacts' paths; what is not there yet is made by a child process.

    Args:
        cache: Folder that all runs share.
        settings: Equal settings find equal artifacts.
        family: Of the tiny model; None where a run brings its own model and wants the samples alone.

    Raises:
        DataError: the child failed; what it said is above.
    """
    paths = demo_paths(cache, settings, family)
    if not (paths.train.is_file() and (paths.model is None or paths.model.is_dir())):
        wanted = json.dumps({"family": family, "settings": asdict(settings)})
        command = [sys.executable, "-m", "orchestration.demo.make", str(cache), wanted]
        # One thread: too small a model for two, and the order of sums, hence the weights, must not depend on cores.
        done = subprocess.run(
            command,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu"},
            check=False,
        )
        if done.returncode != 0:
            raise DataError(f"making the demo's data and model failed with exit code {done.returncode}; see above")
    return paths


def to_sample(row: DemoSample) -> Sample:
    """Give a drawn row as the rollout stores it."""
    width, height = row.image_size
    return Sample(
        sample_id=row.sample_id,
        source=row.source,
        task=row.task,
        question=row.question,
        images=(ImageBytes(data=row.image_png, width=width, height=height),),
        options=row.options,
        answer=row.answer,
        answer_type=row.answer_type,
    )


def write_rows(path: Path, rows: Iterable[DemoSample]) -> int:
    """Write drawn rows as one Parquet file."""
    return write_samples(path, map(to_sample, rows))


def main() -> None:
    """Make artifacts as `make_in_subprocess` asks for: CACHE, then family and settings as JSON."""
    import transformers
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    columns = (TextColumn("{task.description:<32}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as bars:
        tasks = {}

        def show(state: DemoProgress) -> None:
            if state.phase not in tasks:
                tasks[state.phase] = bars.add_task(BAR_TITLES[state.phase], total=state.total)
            loss = "" if state.loss is None else f", loss {state.loss:.2f}"
            bars.update(tasks[state.phase], completed=state.done, description=BAR_TITLES[state.phase] + loss)

        wanted = json.loads(sys.argv[2])
        prepare_demo(
            Path(sys.argv[1]),
            settings=DemoSettings(**wanted["settings"]),
            family=wanted["family"],
            write_samples=write_rows,
            progress=show,
        )


if __name__ == "__main__":
    main()
