"""NVIDIA's driver of this machine, and whether it is new enough for the CUDA that torch and vLLM are built for."""

import ctypes
import re
from pathlib import Path

NEEDED_CUDA = 13000
"""CUDA 13.0, as the driver counts: 1000 x major + 10 x minor."""
NEEDED_BRANCH = 580
"""The first branch of the driver that brings CUDA 13.0."""
KERNEL_MODULE = Path("/proc/driver/nvidia/version")
VERSION = re.compile(r"NVRM version:.*?(\d+\.\d+(?:\.\d+)*)")


def driver_version(file: Path = KERNEL_MODULE) -> str | None:
    """Return the version of the driver's kernel module, such as 580.95.05; None where there is none or it is hidden."""
    found = VERSION.search(file.read_text()) if file.is_file() else None
    return found[1] if found else None


def driver_cuda(library: str = "libcuda.so.1") -> int | None:
    """Return the newest CUDA that the driver runs, 12080 for 12.8; None where no driver is installed.

    A compatibility library of CUDA's that is found before the driver's own (images of NVIDIA have one) counts.
    """
    version = ctypes.c_int()
    try:
        is_known = ctypes.CDLL(library).cuDriverGetVersion(ctypes.byref(version)) == 0
    except (OSError, AttributeError):
        return None
    return version.value if is_known else None


def driver_fault() -> str | None:
    """Return what is wrong with the driver of this machine; None where torch and vLLM can use it, or there is none."""
    return too_old(driver_cuda(), driver_version())


def too_old(cuda: int | None, version: str | None) -> str | None:
    """Return what to do about a driver that is too old; None for one that is not.

    Args:
        cuda: from `driver_cuda`.
        version: from `driver_version`.

    Example:
        >>> print(too_old(12080, "570.124.06"))
        the NVIDIA driver here (570.124.06, CUDA 12.8) is too old for CUDA 13.0; install branch 580 or newer
    """
    if cuda is None or cuda >= NEEDED_CUDA:
        return None
    branch = f"{version}, " if version is not None else ""
    return (
        f"the NVIDIA driver here ({branch}CUDA {_number(cuda)}) is too old for CUDA {_number(NEEDED_CUDA)}; "
        f"install branch {NEEDED_BRANCH} or newer"
    )


def _number(cuda: int) -> str:
    return f"{cuda // 1000}.{cuda % 1000 // 10}"
