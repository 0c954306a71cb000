"""A head and two nodes that declare GPUs which are not there, so that Ray hands out their numbers."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integration.two_nodes import RayNode

GPUS = 4
"""Of each node but the head."""


@dataclass(frozen=True)
class GpuNodes:
    address: str
    nodes: tuple[RayNode, ...]


@contextmanager
def gpu_nodes() -> Iterator[GpuNodes]:
    """Head without GPUs, `plain`; one node `fast`, one `cheap`; nothing of them is left after the block."""
    with tempfile.TemporaryDirectory(prefix="ray") as name:
        folder = Path(name)
        head = RayNode(
            folder, "head", 4, "--head", "--port=0", "--include-dashboard=false", f"--temp-dir={folder}", mark="plain"
        )
        started = [head]
        try:
            head.wait_until(head.is_up)
            address = (folder / "ray_current_cluster").read_text()
            join = (f"--address={address}", f"--temp-dir={folder}")
            for mark in ("fast", "cheap"):
                started.append(RayNode(folder, mark, 8, *join, num_gpus=GPUS, mark=mark))
                # One after the other: a raylet that does not come up within half a minute gives up.
                started[-1].wait_until(started[-1].is_up)
            yield GpuNodes(address, tuple(started))
        finally:
            for node in reversed(started):
                node.kill()
