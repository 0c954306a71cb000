"""Runs rollout, rewards and learner together: the training run, the other commands, and the embedded demo."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestration.experiment import Experiment

__all__ = ["Experiment"]


def __getattr__(name: str) -> Any:
    """Import `Experiment` when it is first asked for, so that `import orchestration` stays light."""
    if name != "Experiment":
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from orchestration.experiment import Experiment

    return Experiment
