"""Errors of the learner room."""


class LearnerError(ValueError):
    """A setting, a group or a model folder that the learner cannot use; the message names it and the remedy."""


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, partial or of another model."""


class NonFiniteLossError(ArithmeticError):
    """A loss or gradient that is NaN or infinite, found before the optimiser step.

    Args:
        step: training step in which it was found.
        group_ids: groups whose tokens are not finite; all groups of the step when only the gradient is.
        quantity: what was not finite, with its value.
    """

    def __init__(self, step: int, group_ids: tuple[str, ...], quantity: str) -> None:
        super().__init__(step, group_ids, quantity)
        self.step = step
        self.group_ids = group_ids
        self.quantity = quantity

    def __str__(self) -> str:
        return (
            f"step {self.step}: {self.quantity} in groups {', '.join(self.group_ids)}; no weight was changed. Look at "
            "these groups' behaviour logprobs and images, lower optimizer.learning_rate, or resume from an older "
            "checkpoint"
        )
