"""Records steps with one tracker, in a process of its own: `python -m ... RUN_DIR TRACKER FIRST END OUTCOME SETTINGS`.

Goes back one step once it has taken all, and takes it again, as after a learner that was lost.
"""

import io
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from orchestration.settings.composition import compose
from orchestration.settings.experiment import build_settings
from orchestration.storage.run_folder import RunFolder
from orchestration.train.known_trackers import trackers_of
from orchestration.train.trackers import Trackers
from orchestration.train.tracking import RunRecord
from tests.unit.train.tracked import scored, step_of


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (600, 300), (255, 0, 0)).save(file, "PNG")
    return file.getvalue()


def main(run_dir: str, tracker: str, first: str, end: str, outcome: Any, *settings: str) -> None:
    config = build_settings(compose([f"run_dir={run_dir}", f"trackers=[{tracker}]", *settings]))
    folder, start, stop = RunFolder(Path(run_dir)), int(first), int(end)
    made = trackers_of(config, folder, first_step=start)
    record = RunRecord(
        folder,
        first_step=start,
        num_steps=9,
        trackers=Trackers(made, config.tracking, say=print, images_of=lambda position: lambda: [png()]),
        say=print,
    )
    record.log_held_out(scored(start, 0.25 + start))
    for step in range(start, stop):
        record.log_step(**step_of(step, clock=1.0))
    record.rewind(first_step=stop - 1)
    record.log_step(**step_of(stop - 1, clock=2.0))
    record.close(outcome)


if __name__ == "__main__":
    main(*sys.argv[1:])
