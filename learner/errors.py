"""Errors of the learner."""


class LearnerError(ValueError):
    """A setting, a group or a model folder that the learner cannot use; the message names it and the remedy."""


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, partial or of another model."""


class DamagedCheckpointError(CheckpointError):
    """A marked checkpoint with a file that is not what was written; the message names the file."""


class DivergedError(ArithmeticError):
    """An update that must not be applied, found before any weight moved.

    Args:
        step: training step in which it was found.
        group_ids: groups that stand out; all groups of the update when none does.
        quantity: what was wrong, with its value.
    """

    def __init__(self, step: int, group_ids: tuple[str, ...], quantity: str) -> None:
        super().__init__(step, group_ids, quantity)
        self.step = step
        self.group_ids = group_ids
        self.quantity = quantity

    def __str__(self) -> str:
        return (
            f"step {self.step}: {self.quantity} in groups {', '.join(self.group_ids)}; the update was not applied. "
            f"Look at these groups' behaviour logprobs and images, {self.remedy}, or resume from an older checkpoint"
        )

    remedy = "lower learner.optimizer.learning_rate"


class NonFiniteLossError(DivergedError):
    """A loss or gradient that is NaN or infinite."""


class ExplodingGradientError(DivergedError):
    """A gradient whose norm is above learner.abort_grad_norm."""

    remedy = "lower learner.optimizer.learning_rate, raise learner.abort_grad_norm"
