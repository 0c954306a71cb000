"""A stopped engine core goes when the process that built its engine is killed."""

import multiprocessing
import os
import select
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

import tests.integration.environment  # noqa: F401
from tests.integration.tiny import rollout_config, save_tiny_model

CONTEXT = multiprocessing.get_context("spawn")
LIMIT_S = 10.0


def build_and_wait(folder: Path, channel: Connection) -> None:
    from rollout.engine import GenerationEngine

    engine = GenerationEngine(rollout_config(), folder)
    channel.send([process.pid for process in engine._watch._processes])
    signal.pause()


@pytest.mark.slow
def test_a_stopped_engine_core_dies_with_the_process_that_built_it(tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "model")
    received, sent = CONTEXT.Pipe(duplex=False)
    builder = CONTEXT.Process(target=build_and_wait, args=(tmp_path / "model", sent))
    builder.start()
    [pid] = received.recv()
    core = os.pidfd_open(pid)
    os.kill(pid, signal.SIGSTOP)
    os.kill(builder.pid, signal.SIGKILL)
    builder.join()
    is_gone = bool(select.select([core], [], [], LIMIT_S)[0])
    if not is_gone:
        signal.pidfd_send_signal(core, signal.SIGKILL)
    os.close(core)
    assert is_gone, "the engine's core outlived the process that built it"
