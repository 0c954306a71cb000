"""What a run folder says about a run that needs nothing more."""

import json

from orchestration.errors import ResumeError
from orchestration.persistence.checkpoints import newest_step, store_of
from orchestration.persistence.state import RunFolder


def check_finished(folder: RunFolder, num_steps: int) -> bool:
    """Whether the run needs nothing more: all steps done, model exported.

    Raises:
        ResumeError: the folder holds more steps than are asked for.
    """
    step = newest_step(store_of(folder))
    if step is None:
        return False
    if step > num_steps:
        raise ResumeError(
            f"{folder.root} is at step {step}, beyond training.num_steps={num_steps}; raise num_steps or use another "
            "run_dir"
        )
    return step == num_steps and (folder.export / "config.json").is_file()


def read_evaluation(folder: RunFolder, name: str) -> dict[str, dict[str, float]]:
    """Scores by reward function that a run wrote under a name; empty when there are none."""
    path = folder.evaluation(name)
    return json.loads(path.read_text())["families"] if path.is_file() else {}
