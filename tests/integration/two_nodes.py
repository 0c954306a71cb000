"""Two Ray nodes on this machine: a head, and a second one that a test can kill as a power cut would."""

import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestration.cluster.guard import processes

MARK = "MIXED_R1_TEST_NODE"
OBJECT_STORE_BYTES = 100 << 20
START_S = 60.0
ENVIRONMENT = {"RAY_worker_niceness": "0"}


class RayNode:
    """One raylet and everything below it, in a session of its own and marked by environment."""

    def __init__(self, temp_dir: Path, name: str, num_cpus: int, *arguments: str) -> None:
        self._mark = uuid.uuid4().hex
        self._log = temp_dir / f"{name}.out"
        command = [Path(sys.executable).parent / "ray", "start", "--block", "--disable-usage-stats"]
        options = {
            "num-cpus": num_cpus,
            "object-store-memory": OBJECT_STORE_BYTES,
            "resources": f'{{"{name}": 1}}',
            "min-worker-port": 0,
            "max-worker-port": 0,
        }
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [*command, *(f"--{key}={value}" for key, value in options.items()), *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                # With a token in the home folder a head asks for it, and `ray start --address` is told to send it.
                env={"RAY_AUTH_MODE": "token", **os.environ, **ENVIRONMENT, MARK: self._mark},
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._log.read_text()

    def pids(self) -> list[int]:
        """Processes of the node: by mark, by session, and by descent from one of these."""
        table = processes()
        found = {pid for pid in table if self._is_ours(pid)}
        while more := {pid for pid, process in table.items() if process.parent in found} - found:
            found |= more
        return sorted(found)

    def actors(self, name: str) -> list[int]:
        """Processes of the node that play an actor of this class."""
        return [pid for pid in self.pids() if _title(pid).startswith(f"ray::{name}")]

    def kill(self) -> None:
        """End all processes of the node at once, none of which can say goodbye."""
        while left := self.pids():
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self._process.poll()
            time.sleep(0.05)
        self._process.wait()

    def wait_until(self, condition: Callable[[], bool], timeout_s: float = START_S) -> None:
        """Until the condition holds, as long as the node lives."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self._process.poll() is None, self.output
            assert time.monotonic() < deadline, f"waited {timeout_s} s:\n{self.output}"
            time.sleep(0.1)

    def is_up(self) -> bool:
        """Whether the node says that it runs."""
        return "Ray runtime started" in self.output

    def _is_ours(self, pid: int) -> bool:
        try:
            # A process that sets its title wipes its environment; its session stays the node's.
            marked = f"{MARK}={self._mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            return marked or os.getsid(pid) == self._process.pid
        except OSError:
            return False


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
    except OSError:
        return ""


class TwoNodes:
    """A head and a second node; each offers a resource of its own name, so that a test can choose one."""

    def __init__(self, temp_dir: Path, *, head_cpus: int, second_cpus: int | None) -> None:
        # Ports are chosen by Ray. Dashboard agents would quarrel about theirs, and the head's port is in this file.
        self._temp_dir = temp_dir
        self._second: RayNode | None = None
        self.head = RayNode(
            temp_dir, "head", head_cpus, "--head", "--port=0", "--include-dashboard=false", f"--temp-dir={temp_dir}",
        )  # fmt: skip
        address_file = temp_dir / "ray_current_cluster"
        try:
            self.head.wait_until(lambda: address_file.is_file() and address_file.read_text() != "")
            self.address = address_file.read_text()
            if second_cpus is not None:
                self.add_second(second_cpus)
            self.head.wait_until(self.head.is_up)
        except BaseException:
            self.close()
            raise

    @property
    def second(self) -> RayNode:
        assert self._second is not None, "no second node yet"
        return self._second

    def add_second(self, num_cpus: int) -> None:
        """Let a second node join, and wait until it has."""
        self._second = RayNode(
            self._temp_dir, "second", num_cpus, f"--address={self.address}", f"--temp-dir={self._temp_dir}"
        )
        self._second.wait_until(self._second.is_up)

    def close(self) -> None:
        if self._second is not None:
            self._second.kill()
        self.head.kill()


@contextmanager
def two_nodes(*, head_cpus: int, second_cpus: int | None) -> Iterator[TwoNodes]:
    """Both nodes, or the head alone for now, until the block ends; nothing of them is left then.

    Their folder is not below pytest's: a Unix socket's path may have 107 bytes, and Ray adds seventy.
    """
    with tempfile.TemporaryDirectory(prefix="ray") as name:
        nodes = TwoNodes(Path(name), head_cpus=head_cpus, second_cpus=second_cpus)
        try:
            yield nodes
        finally:
            nodes.close()
