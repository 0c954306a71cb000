"""Ray's start and stop."""

import asyncio
import logging
import os
import secrets
import signal
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants, services
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR
from ray._private.worker import global_worker
from ray.exceptions import AuthenticationError, RayActorError, RayError, RayTaskError
from ray.job_config import JobConfig

from orchestration.cluster.guard import checkout, guarded
from orchestration.cluster.local_ray import private_folder
from orchestration.cluster.machines import available_cores
from orchestration.cluster.ray_errors import cause_of
from orchestration.settings.cluster import TOKEN_HINT, ClusterConfig
from orchestration.settings.errors import ConfigError, InfrastructureError, RayDiedError

FATAL_PROCESSES = ("raylet", "gcs_server")
"""Of a Ray that was started here; without one of them no actor can be started any more."""
CHECK_S = 1.0
"""Between two checks of these processes."""
LISTENER_S = 10.0
"""Time for Ray's listener to stop; it takes milliseconds."""

LOOPBACK = "127.0.0.1"
LOCAL_VARIABLES = {
    # Ray binds to every interface of a Linux machine and to loopback where it supports no clusters. This is its own
    # switch between the two, and its only one: the address that it is given is turned into the outside one again.
    ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0",
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
    "VLLM_HOST_IP": LOOPBACK,
}

QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}

logger = logging.getLogger(__name__)


@contextmanager
def ray_session(config: ClusterConfig, num_actors: int, log_dir: Path) -> Iterator[None]:
    """Join the cluster, or start one on this machine, for the length of the block.

    Args:
        config: Which cluster.
        num_actors: Actors that will reserve a core each; a Ray started here reports at least so many.
        log_dir: Where the actors' logs are, for messages.

    Raises:
        ConfigError: the cluster cannot be joined.
        InfrastructureError: an actor died that nobody replaced.
    """
    log_dir.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Every call is waited for by its first reference; Ray would print what the others hold when they are dropped.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    # Ray's default of 15 leaves its workers 4% of a core that anything else wants.
    os.environ.setdefault("RAY_worker_niceness", "0")
    with ExitStack() as stack:
        if config.address is None:
            folder = stack.enter_context(private_folder())
            marks = stack.enter_context(guarded())
            with starting_local_ray(folder, marks), _own_signals():
                # Without an address Ray would join whatever cluster was last started on this machine.
                ray.init(
                    address="local",
                    num_cpus=max(num_actors, len(available_cores())),
                    include_dashboard=False,
                    object_store_memory=config.object_store_bytes,
                    _temp_dir=str(folder),
                    job_config=_job_config(),
                    **QUIET,
                )
        else:
            with _own_signals():
                _join(config.address)
        with _unwrapping_errors(log_dir):
            yield


@contextmanager
def starting_local_ray(folder: Path, marks: Mapping[str, str]) -> Iterator[None]:
    """Make a Ray that is started in the block one of this machine alone.

    It listens on loopback and asks for a token that only this process and its children know. Its processes are in
    groups of their own: a signal that a terminal, GNU timeout or Slurm sends to the command's whole process group
    reaches the driver alone, which still needs Ray to save its work.

    A variable that the user has set stays as it is.

    Args:
        folder: for sockets of its processes.
        marks: variables that its processes get whatever the user has set, see `guarded`.
    """
    before = dict(os.environ)
    wanted: dict[str, str] = {**LOCAL_VARIABLES, "VLLM_RPC_BASE_PATH": str(folder)}
    if "RAY_AUTH_TOKEN_PATH" not in before:
        wanted["RAY_AUTH_TOKEN"] = _token()
    clusters, start = ray_constants.ENABLE_RAY_CLUSTER, services.ConsolePopen
    os.environ.update({**wanted, **before, **marks})
    # Read when ray is imported, which was long ago.
    ray_constants.ENABLE_RAY_CLUSTER = False
    services.ConsolePopen = partial(start, process_group=0)
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER, services.ConsolePopen = clusters, start
        for name in wanted.keys() | marks.keys():
            if name in before:
                os.environ[name] = before[name]
            else:
                del os.environ[name]


@cache
def _token() -> str:
    """Return this process's token, which Ray reads once. Without one, Ray would write one into the home folder."""
    return secrets.token_hex(32)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Restore the handlers of SIGINT and SIGTERM after the block, in which Ray replaces them in Python and in C++."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _join(address: str) -> None:
    # Ray sends a token that lies in the home folder to the cluster that it finds itself, and to no other.
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    try:
        # A job's configuration comes from its submission, with the folder of its code.
        job_config = None if RAY_JOB_CONFIG_JSON_ENV_VAR in os.environ else _job_config()
        ray.init(address=address, job_config=job_config, **QUIET)
    except (AuthenticationError, ConnectionError) as error:
        raise ConfigError(
            f"cluster.address={address} cannot be joined: {_last_line(error)}. If it asks for a token, {TOKEN_HINT}"
        ) from error


def _job_config() -> JobConfig:
    """Return how workers find modules: where they are installed, or in our checkout; not in the working directory."""
    root = checkout()
    # Ray adds the working directory of every driver but of those that come through its client.
    return JobConfig(_client_job=True, _py_driver_sys_path=[str(root)] if root else [])


@contextmanager
def _unwrapping_errors(log_dir: Path) -> Iterator[None]:
    """Raise errors of the block without Ray's wrapping, and disconnect from Ray at its end."""
    try:
        yield
    except RayError as error:
        cause = cause_of(error)
        if isinstance(cause, RayActorError):
            raise InfrastructureError(f"an actor of the run died: {_last_line(cause)}; see {log_dir}") from error
        if isinstance(error, RayTaskError):
            raise cause from error
        raise
    finally:
        leave_ray()


async def while_ray_lives(work: Coroutine[Any, Any, None]) -> None:
    """Await `work`, and check meanwhile the processes of the Ray that `ray_session` started on this machine.

    Of a cluster that was joined nothing is checked: a run survives the loss of one of its nodes.

    Raises:
        RayDiedError: one of them is gone; the work is cancelled.
    """
    working = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait([working], timeout=CHECK_S))[0]:
            _check_processes()
        await working
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


def _check_processes() -> None:
    for name, process in global_worker.node.dead_processes():
        if name in FATAL_PROCESSES:
            raise RayDiedError(
                f"Ray's {name} on this machine ended with exit code {process.returncode}, and the run's actors go with "
                "it; see whether memory ran out (dmesg). The same command continues from the latest checkpoint"
            )


def leave_ray() -> None:
    """Do what `ray.shutdown` does, but wait no more than `LISTENER_S` for Ray's own listener.

    Ray waits without a limit for its thread that listens for error messages. Now and then that thread's cancelled poll
    never returns (Ray issue 44836), and a run that has done all its work would hold its machines for ever.
    """
    worker = global_worker
    if worker.connected and hasattr(worker, "listener_thread"):
        worker.threads_stopped.set()
        subscribers = (worker.gcs_error_subscriber, worker.gcs_log_subscriber)
        stopping = threading.Thread(target=_stop, args=(subscribers, worker.listener_thread), daemon=True)
        stopping.start()
        stopping.join(LISTENER_S)
        if stopping.is_alive():
            logger.warning("Ray's listener for error messages did not stop within %s s; leaving without it", LISTENER_S)
            # It is a daemon and keeps its own event, which stays set.
            del worker.listener_thread, worker.gcs_error_subscriber, worker.gcs_log_subscriber
            worker.threads_stopped = threading.Event()
    ray.shutdown()


def _stop(subscribers: Sequence[Any], listener: threading.Thread) -> None:
    for subscriber in subscribers:
        subscriber.close()
    listener.join()


def _last_line(error: Exception) -> str:
    """Ray's errors of actors end with the reason."""
    return str(error).strip().splitlines()[-1].strip()
