"""What a failed call to an actor means: is the actor gone, or did the call itself go wrong?"""

from ray.exceptions import RayActorError, RayTaskError

from orchestration.errors import EngineLostError, LearnerLostError
from rollout.errors import EngineDiedError


def death_of(error: BaseException) -> str | None:
    """Say how the process behind a call ended; None if it lives and the call itself failed."""
    if isinstance(error, (EngineLostError, LearnerLostError, EngineDiedError)):
        return _first_line(error)
    # Inside a task error stands what the actor raised, be it the death of another one.
    if isinstance(error, RayActorError) and not isinstance(error, RayTaskError):
        return f"the actor died: {_first_line(error)}"
    return None


def cause_of(error: BaseException) -> BaseException:
    """Give what was raised in the actor, without Ray's wrapping around it."""
    while isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
        error = error.cause
    return error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
