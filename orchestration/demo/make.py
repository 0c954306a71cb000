"""Makes the demo's model in a process of its own, with a progress bar; the driver of a run never imports torch."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from orchestration.cluster.guard import guarded
from orchestration.demo.prepare import DemoProgress, model_folder, prepare_demo
from orchestration.settings.demo import DemoSettings, FamilyName
from orchestration.settings.errors import DataError

BAR_TITLE = "supervised warm start"
NUM_MARKS = 8
"""Lines that a warm start prints where nobody sees a bar move: in a log, one about every fifteen seconds."""


def make_in_subprocess(cache: Path, settings: DemoSettings, family: FamilyName) -> Path:
    """Give the model's folder; if it is not there yet, a child process makes it.

    Args:
        cache: Folder that all runs share.
        settings: Equal settings find the same model.
        family: Of the tiny model.

    Raises:
        DataError: the child failed; what it said is above.
    """
    folder = model_folder(cache, settings, family)
    if not folder.is_dir():
        wanted = json.dumps({"family": family, "settings": asdict(settings)})
        command = [sys.executable, "-m", "orchestration.demo.make", str(cache), wanted]
        # One thread: too small a model for two, and the order of sums, hence the weights, must not depend on cores.
        settled = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu"}
        with guarded() as marks:
            # In a group of its own, Ctrl-C reaches the parent alone, which ends the child: no traceback of torch.
            done = subprocess.run(command, env={**os.environ, **settled, **marks}, check=False, process_group=0)
        if done.returncode != 0:
            raise DataError(f"making the demo's model failed with exit code {done.returncode}; see above")
    return folder


def main() -> None:
    """Make the model as `make_in_subprocess` asks for: CACHE, then family and settings as JSON."""
    import transformers
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    columns = (TextColumn("{task.description:<34}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn())
    wanted = json.loads(sys.argv[2])
    settings = DemoSettings(**wanted["settings"])
    with Progress(*columns, disable=not sys.stdout.isatty()) as bars:
        bar = bars.add_task(BAR_TITLE, total=settings.warm_start_steps)

        def show(state: DemoProgress) -> None:
            bars.update(bar, completed=state.done, description=f"{BAR_TITLE}, loss {state.loss:.2f}")
            if bars.disable and state.done * NUM_MARKS // state.total > (state.done - 1) * NUM_MARKS // state.total:
                print(f"{BAR_TITLE}, step {state.done} of {state.total}, loss {state.loss:.2f}", flush=True)

        prepare_demo(Path(sys.argv[1]), settings=settings, family=wanted["family"], progress=show)


if __name__ == "__main__":
    main()
