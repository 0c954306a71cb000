"""Leaving Ray when its own thread does not."""

import logging
import os
import threading

import pytest
import ray
from ray._private.worker import global_worker

from orchestration.cluster import session as cluster


def test_a_listener_that_never_stops_holds_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=80 << 20)
    release = threading.Event()
    stuck = threading.Thread(target=release.wait, daemon=True)
    stuck.start()
    healthy, global_worker.listener_thread = global_worker.listener_thread, stuck
    monkeypatch.setattr(cluster, "LISTENER_S", 0.1)
    with caplog.at_level(logging.WARNING):
        cluster.leave_ray()
    assert not ray.is_initialized()
    assert "did not stop within 0.1 s" in caplog.text
    healthy.join(30)  # the real one, which heard that it shall stop
    assert not healthy.is_alive()
    release.set()
    cluster.leave_ray()  # nothing to leave
