"""What every actor does with its process before anything else is imported."""

import os
import sys
from pathlib import Path

import ray

from orchestration.cluster.process import Placement, interface_of


def settle(role: str, placement: Placement, log_dir: Path, devices: str | None = None) -> None:
    """Set the cores and variables of the process, and redirect its output and its children's to a log file.

    Comes before torch, NCCL and vLLM are imported, which read the variables then or later.

    Args:
        role: of the process, for the file's name.
        placement: what it runs on.
        log_dir: where log files are.
        devices: GPUs that it shall see although Ray reserved others, or none, for it.
    """
    os.environ.update(placement.variables)
    if (interface := interface_of(ray.util.get_node_ip_address())) is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    if placement.cores:
        os.sched_setaffinity(0, placement.cores)
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices
    log = os.open(log_dir / f"{role}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(log, stream.fileno())
    os.close(log)
