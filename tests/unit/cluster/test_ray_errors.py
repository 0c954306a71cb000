"""Ray's errors in our words; each is built as Ray hands it out: bare, or wrapped as an actor's answer."""

import pickle
from typing import Any

import pytest
from ray import exceptions as ray_errors
from ray.exceptions import RayError, RayTaskError

from orchestration.cluster.ray_errors import translate, translating
from orchestration.settings.errors import (
    EngineLostError,
    InfrastructureError,
    LearnerLostError,
    PayloadLostError,
    RewardLostError,
    ScoringError,
)
from orchestration.storage.faults import Role
from rollout.errors import RolloutError

LOST_ID = "f" * 56


def answer(cause: Exception) -> RayError:
    """What Ray raises where an actor raised `cause`: an error of both classes."""
    wrapped = RayTaskError("method", "Traceback ...", cause, proctitle="ray::Actor", pid=1, ip="127.0.0.1")
    return wrapped.as_instanceof_cause()


def gone() -> list[RayError]:
    """Every way in which Ray says that a process is gone."""
    return [
        ray_errors.RayActorError(),
        ray_errors.ActorDiedError(),
        ray_errors.ActorUnavailableError("Socket closed", None),
        ray_errors.ActorUnschedulableError("no node fits"),
        ray_errors.ActorPlacementGroupRemoved(),
        ray_errors.WorkerCrashedError(),
        ray_errors.NodeDiedError("node died"),
        ray_errors.LocalRayletDiedError(),
        ray_errors.OutOfMemoryError("the node ran low on memory"),
        ray_errors.GetTimeoutError("too long"),
    ]


def lost() -> list[RayError]:
    kinds: list[Any] = [ray_errors.ObjectLostError, ray_errors.ObjectFetchTimedOutError, ray_errors.OwnerDiedError]
    return [*(kind(LOST_ID, None, "") for kind in kinds), ray_errors.ObjectReconstructionFailedError(LOST_ID)]


@pytest.mark.parametrize("error", gone(), ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    ("role", "expected"),
    [(Role.ENGINE, EngineLostError), (Role.LEARNER, LearnerLostError), (Role.REWARD, RewardLostError)],
)
def test_a_process_that_is_gone_is_named_by_role(error: RayError, role: Role, expected: type[Exception]) -> None:
    told = translate(error, role, 3)
    assert type(told) is expected
    assert str(told).startswith(f"{role} 3 died: ")
    assert isinstance(told, InfrastructureError)


@pytest.mark.parametrize("error", gone(), ids=lambda error: type(error).__name__)
def test_a_rank_that_found_an_engine_dead_lives_itself(error: RayError) -> None:
    told = translate(answer(error), Role.LEARNER, 1)
    assert type(told) is EngineLostError
    assert "while learner 1 called it" in str(told)


@pytest.mark.parametrize("error", lost(), ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("wrap", [lambda error: error, answer], ids=["awaited", "inside an actor"])
def test_an_object_that_is_gone_takes_nobody_with_it(error: RayError, wrap: Any) -> None:
    told = translate(wrap(error), Role.REWARD, 0)
    assert isinstance(told, PayloadLostError)
    assert told.object_id == LOST_ID
    assert isinstance(told, InfrastructureError)


@pytest.mark.parametrize("error", [ray_errors.ObjectStoreFullError("full"), ray_errors.OutOfDiskError("full")])
def test_a_full_store_costs_the_group_and_names_the_remedy(error: RayError) -> None:
    told = translate(answer(error), Role.ENGINE, 0)
    assert isinstance(told, PayloadLostError)
    assert told.object_id == ""
    assert "raise cluster.object_store_bytes" in str(told)


@pytest.mark.parametrize("error", [RolloutError("bad"), ScoringError("bad"), KeyError("x"), ZeroDivisionError()])
def test_an_error_of_the_actor_comes_out_as_itself(error: Exception) -> None:
    assert translate(answer(error), Role.ENGINE, 0) is error
    assert translate(answer(answer(error)), Role.ENGINE, 0) is error


@pytest.mark.parametrize(
    "error",
    [
        ray_errors.RaySystemError("cannot be deserialised"),
        ray_errors.TaskCancelledError(),
        ray_errors.ObjectFreedError(LOST_ID, None, ""),
        ray_errors.ReferenceCountingAssertionError(LOST_ID, None, ""),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_would_happen_again_stays_a_bug(error: RayError) -> None:
    assert not isinstance(translate(error, Role.ENGINE, 0), InfrastructureError)


def test_the_block_raises_our_error_from_rays() -> None:
    with pytest.raises(EngineLostError) as caught, translating(Role.ENGINE, 0):
        raise ray_errors.ActorDiedError()
    assert isinstance(caught.value.__cause__, ray_errors.ActorDiedError)
    unknown = ray_errors.RaySystemError("odd")
    with pytest.raises(ray_errors.RaySystemError) as caught_unknown, translating(Role.ENGINE, 0):
        raise unknown
    assert caught_unknown.value is unknown
    assert unknown.__cause__ is None


def test_the_reason_of_a_death_is_rays_last_line() -> None:
    error = ray_errors.RayActorError(error_msg="The actor died.\n\tpid: 7\nIts node was terminated.\n")
    assert str(translate(error, Role.ENGINE, 2)) == "engine 2 died: Its node was terminated."


def test_lost_objects_keep_their_id_between_processes() -> None:
    error = pickle.loads(pickle.dumps(PayloadLostError("gone", LOST_ID)))
    assert (str(error), error.object_id) == ("gone", LOST_ID)
    assert isinstance(error, InfrastructureError)
