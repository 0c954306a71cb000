"""One line that says what a benchmark ran on."""

import os
import platform
import subprocess
from pathlib import Path


def describe_hardware() -> str:
    """Give processor, cores that this process may use, and commit."""
    models = [
        line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    return (
        f"{models[0] if models else platform.machine()}, {len(os.sched_getaffinity(0))} cores, commit {commit.strip()}"
    )
