"""This machine, as a run without a cluster uses it."""

import os
from pathlib import Path

from orchestration.cluster.machines import Machine
from orchestration.cluster.needs import Needs

DRIVER_FOLDER = Path("/proc/driver/nvidia/gpus")
"""Where NVIDIA's kernel module lists its devices."""

GPU_DEVICES = (Path("/dev/nvidia0"), Path("/dev/dxg"))
"""What else shows a GPU: in containers that hide the driver's folder, and in Linux under Windows."""


def has_gpu() -> bool:
    """Return whether this machine shows any sign of an NVIDIA GPU; Ray counts them once it runs."""
    listed = DRIVER_FOLDER.is_dir() and any(DRIVER_FOLDER.iterdir())
    return listed or any(path.exists() for path in GPU_DEVICES)


def available_cores() -> tuple[int, ...]:
    """Cores that this process may use."""
    return tuple(sorted(os.sched_getaffinity(0)))


def this_machine(needs: Needs) -> Machine:
    """This machine; a run that starts Ray here may have more actors than there are cores, they share them."""
    return Machine(
        name="this machine",
        gpus=len(list(DRIVER_FOLDER.iterdir())) if DRIVER_FOLDER.is_dir() else 0,
        gpu=None,
        cpus=max(len(available_cores()), needs.num_actors),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    )
