"""Errors of the rollout."""


class RolloutError(ValueError):
    """A prompt, sample or setting that the rollout cannot use; the message names the field and the remedy."""


class WeightSyncError(RuntimeError):
    """Weights of engine and learner disagree, or a transfer broke before it was whole."""


class EngineDiedError(RuntimeError):
    """The engine's core process is gone, and with it every request; build another engine."""
