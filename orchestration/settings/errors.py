"""Errors of orchestration."""


class ConfigError(ValueError):
    """A setting that cannot be used; the message names the dotted key, the value and the remedy."""


class DataError(ValueError):
    """Too many samples or rewards fail for the run to be trusted."""


class LossError(DataError):
    """A dataset is built, and lacks rows that its recipe does not allow to be lost."""


class ScoringError(RuntimeError):
    """A group that no reward actor could score; it is dropped with this reason and counted."""


class ResumeError(ValueError):
    """A run folder that this configuration cannot continue."""


class InfrastructureError(RuntimeError):
    """A process or machine of the run died; the run continues from its latest checkpoint with the same command."""


class EngineLostError(InfrastructureError):
    """An engine died, hangs or lost its GPU; its groups go elsewhere and the engine is built again."""


class RewardLostError(InfrastructureError):
    """A reward actor died or hangs; its group is scored by another one."""


class JudgeLostError(InfrastructureError):
    """The server of a judge died or hangs; requests wait for the one that replaces it."""


class PayloadLostError(InfrastructureError):
    """A group vanished between two actors, or found no room in the object store; it is sampled again.

    Args:
        message: what is gone and why.
        object_id: hex id of the object that is gone; empty where an object could not be written at all.
    """

    def __init__(self, message: str, object_id: str = "") -> None:
        super().__init__(message)
        self.object_id = object_id


class LearnerLostError(InfrastructureError):
    """A learner rank died or hangs; the ranks are built again from the last checkpoint."""


class TransferBrokenError(InfrastructureError):
    """A transfer of weights that did not reach every engine; it is repeated with the remaining ones."""


class TooManyFaultsError(InfrastructureError):
    """More faults than `cluster.faults` allows. It ends the run and is not retried."""


class RayDiedError(InfrastructureError):
    """Ray itself died on this machine, and every actor with it; none can be started again."""


class StoppedError(RuntimeError):
    """The run was asked to stop, saved a checkpoint and ended; the same command continues it."""


class InterruptedRunError(StoppedError):
    """Ctrl-C ended the run; the message says where the same command continues."""
