"""Ray's errors as this project's: a process that is gone, an object that is gone, or what an actor itself raised.

Ray distinguishes two cases by the class alone. A bare error is about the call: the actor that was asked is gone, or the
object that was awaited. A RayTaskError is an answer: the actor that was asked lives, and what it raised is the cause.
That cause can be Ray's again, where an actor asked another one or fetched an object.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from ray.exceptions import (
    ActorPlacementGroupRemoved,
    ActorUnschedulableError,
    GetTimeoutError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectFreedError,
    ObjectLostError,
    ObjectStoreFullError,
    OutOfDiskError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    ReferenceCountingAssertionError,
    WorkerCrashedError,
)

from orchestration.settings.errors import (
    EngineLostError,
    InfrastructureError,
    JudgeLostError,
    LearnerLostError,
    PayloadLostError,
    RewardLostError,
)
from orchestration.storage.faults import Role
from rollout.errors import EngineDiedError

LOST_BY_ROLE: dict[Role, type[InfrastructureError]] = {
    Role.ENGINE: EngineLostError,
    Role.REWARD: RewardLostError,
    Role.JUDGE: JudgeLostError,
    Role.LEARNER: LearnerLostError,
}

# Ray's memory monitor and the loss of a node have errors of their own beside RayActorError. An actor that is
# "unavailable" may come back, but its calls do not: it counts as gone.
PROCESS_GONE = (
    RayActorError,
    ActorPlacementGroupRemoved,
    ActorUnschedulableError,
    GetTimeoutError,
    LocalRayletDiedError,
    NodeDiedError,
    OutOfMemoryError,
    WorkerCrashedError,
)
STORE_FULL = (ObjectStoreFullError, OutOfDiskError)
# Objects that this code gave up itself would be lost again and again.
MISTAKES = (ObjectFreedError, ReferenceCountingAssertionError)

MAX_CHARS = 300
"""Characters that are kept of Ray's own explanation, which goes on for pages."""


def translate(error: RayError, role: Role, index: int) -> BaseException:
    """Convert a Ray error of actor `index` of a role to one of ours.

    Returns:
        The error of the role that is gone; EngineLostError also where a learner rank found an engine gone that it
        called; PayloadLostError for an object that is gone or found no room; else the cause itself, without Ray's
        wrapping.
    """
    cause = cause_of(error)
    if isinstance(cause, ObjectLostError) and not isinstance(cause, MISTAKES):
        return PayloadLostError(
            f"{role} {index} asked for object {cause.object_ref_hex}, which went with the node that held it",
            cause.object_ref_hex,
        )
    if isinstance(cause, STORE_FULL):
        return PayloadLostError(
            f"{role} {index} found no room in the object store, nor on the disk to which Ray spills "
            f"({type(cause).__name__}); free the disk, raise cluster.object_store_bytes, or lower training.run_ahead"
        )
    if isinstance(cause, EngineDiedError):
        return EngineLostError(f"{role} {index}: {cause}")
    if isinstance(cause, PROCESS_GONE):
        if isinstance(error, RayTaskError):
            # Only learner ranks call actors, and those are engines.
            return EngineLostError(f"an engine died while {role} {index} called it: {_explanation(cause)}")
        return LOST_BY_ROLE[role](f"{role} {index} died: {_explanation(cause)}")
    return cause


@contextmanager
def translating(role: Role, index: int) -> Iterator[None]:
    """Raise what `translate` returns for an error that Ray raises in the block about actor `index` of a role."""
    try:
        yield
    except RayError as error:
        translated = translate(error, role, index)
        if translated is error:
            raise
        raise translated from error


def cause_of(error: BaseException) -> BaseException:
    """Return what was raised in the actor, without Ray's wrapping around it."""
    while isinstance(error, RayTaskError) and error.cause is not None:
        error = error.cause
    return error


def _explanation(error: BaseException) -> str:
    """Return the line with Ray's reason: the last one about an actor, else the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1 if isinstance(error, RayActorError) else 0][:MAX_CHARS]
