"""A Ray cluster with a job server on this machine: a head, and workers as raylets of their own."""

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.two_nodes import RayNode

LOOPBACK = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


class JobCluster:
    """Head and workers, each with an agent of its own, as `ray start` makes them on as many machines."""

    def __init__(self, temp_dir: Path, *, head_cpus: int, worker_cpus: tuple[int, ...]) -> None:
        port = free_port()
        self.dashboard = f"http://{LOOPBACK}:{port}"
        self.nodes = [
            _node(
                temp_dir, "head", head_cpus, "--head", "--port=0", "--include-dashboard=true",
                f"--dashboard-host={LOOPBACK}", f"--dashboard-port={port}",
            )
        ]  # fmt: skip
        address_file = temp_dir / "ray_current_cluster"
        try:
            # One after the other: Ray gives a node thirty seconds to start, and agents that start together take longer.
            self._wait_for(self.nodes[0])
            for number, num_cpus in enumerate(worker_cpus):
                address = f"--address={address_file.read_text()}"
                self.nodes.append(_node(temp_dir, f"worker_{number}", num_cpus, address))
                self._wait_for(self.nodes[-1])
        except BaseException:
            self.close()
            raise

    def _wait_for(self, node: RayNode) -> None:
        node.wait_until(lambda: "Ray runtime started" in node.output)

    def pids(self, *words: str) -> list[int]:
        """Processes of the cluster whose command line holds all of these words, by pid."""
        found = []
        for pid in sorted({pid for node in self.nodes for pid in node.pids()}):
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if all(word in line for word in words):
                found.append(pid)
        return found

    def close(self) -> None:
        for node in reversed(self.nodes):
            node.kill()


def _node(temp_dir: Path, name: str, num_cpus: int, *arguments: str) -> RayNode:
    # Agents of nodes on one machine would quarrel about the port that each has by default.
    return RayNode(
        temp_dir, name, num_cpus, f"--temp-dir={temp_dir}", f"--dashboard-agent-listen-port={free_port()}", *arguments,
    )  # fmt: skip


@contextmanager
def job_cluster(*, head_cpus: int, worker_cpus: tuple[int, ...] = ()) -> Iterator[JobCluster]:
    """The cluster, until the block ends; nothing of it is left then."""
    with tempfile.TemporaryDirectory(prefix="ray") as name:
        cluster = JobCluster(Path(name), head_cpus=head_cpus, worker_cpus=worker_cpus)
        try:
            yield cluster
        finally:
            cluster.close()
