"""What a run folder says about a run that needs nothing more."""

import json
from typing import Any

from orchestration.settings.errors import ResumeError
from orchestration.storage.checkpoints import newest_step, store_of
from orchestration.storage.run_folder import RunFolder


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


def read_evaluation(folder: RunFolder, name: str) -> dict[str, Any]:
    """Return the held-out scores that a run wrote under a name; empty where there are none that can be read."""
    try:
        return dict(json.loads(folder.evaluation(name).read_text()))
    except (OSError, TypeError, ValueError):
        return {}


def read_before_after(folder: RunFolder) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the scores before and after training; those before are empty where they are of other rows."""
    before, after = read_evaluation(folder, "before"), read_evaluation(folder, "after")
    return (before if before.get("rows") == after.get("rows") else {}), after
