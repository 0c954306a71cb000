"""JudgeActor: the server of a judge under Ray, vLLM's own with OpenAI's API, in a process that ends with the actor."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import ray

from orchestration.cluster.process import Placement, settle
from orchestration.settings.errors import JudgeLostError

POLL_S = 0.5
ANSWER_S = 600.0
"""For one look at the server; whoever asks for the heartbeat gives up earlier."""
LIFELINE = Path(__file__).with_name("judge_lifeline.py")
KEY_VARIABLE = "VLLM_API_KEY"
"""Where vLLM's server finds the key that requests must have."""


class JudgeServer:
    """One server process; it answers under `address` once `wait` returns."""

    def __init__(self, command: Sequence[str], host: str, port: int, *, key: str) -> None:
        """Start the command, which is to serve there; nothing is waited for."""
        self.address = f"http://{host}:{port}/v1"
        self._health = f"http://{host}:{port}/health"
        # No proxy of the site reaches a machine of the cluster.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(LIFELINE), *command],
            stdin=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, KEY_VARIABLE: key},
        )

    def wait(self) -> None:
        """Wait until the server answers; whoever calls sets the limit.

        Raises:
            JudgeLostError: its process has ended.
        """
        while not self._answers():
            self._check_alive()
            time.sleep(POLL_S)

    def check(self) -> None:
        """Raise JudgeLostError unless the server answers."""
        self._check_alive()
        if not self._answers():
            raise JudgeLostError(f"the judge's server at {self.address} lives, but does not answer that it is well")

    def close(self) -> None:
        """End the server with all its processes."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _check_alive(self) -> None:
        if (code := self._process.poll()) is not None:
            raise JudgeLostError(f"the judge's server has ended (exit code {code}); its log says why")

    def _answers(self) -> bool:
        try:
            with self._opener.open(self._health, timeout=ANSWER_S) as response:
                return bool(response.status == 200)
        except OSError:  # refused, or an error of the server
            return False


def vllm_command(
    model: Path, name: str, host: str, port: int, *, num_gpus: int, arguments: Sequence[str] = ()
) -> list[str]:
    """Return the command of a server that knows the model of a folder by a name; `arguments` come last and win."""
    # One worker lives in the engine's process. Several are its children; Ray actors they must not become.
    executor = "uni" if num_gpus <= 1 else "mp"
    # A CPU generator cannot be rewound, which a prompt computed in parts asks for; whole prompts keep seeds.
    on_cpu = ("--enforce-eager", "--no-enable-chunked-prefill") if num_gpus == 0 else ()
    return [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(model), "--served-model-name", name, "--host", host, "--port", str(port)),
        *("--tensor-parallel-size", str(max(1, num_gpus)), "--distributed-executor-backend", executor),
        *("--disable-uvicorn-access-log", *on_cpu, *arguments),
    ]


def free_port(host: str) -> int:
    """Return a port that nobody holds now; a server that loses it to another ends, and is started again."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@ray.remote(concurrency_groups={"health": 1})
class JudgeActor:
    """Starts the server of one judge and watches it."""

    def __init__(
        self,
        name: str,
        model: Path,
        served_name: str,
        arguments: Sequence[str],
        num_gpus: int,
        key: str,
        placement: Placement,
        log_dir: Path,
    ) -> None:
        """Start the server; `ready` waits for it."""
        settle(f"judge_{name}", placement, log_dir)
        host = ray.util.get_node_ip_address()
        port = free_port(host)
        command = vllm_command(model, served_name, host, port, num_gpus=num_gpus, arguments=arguments)
        self._server = JudgeServer(command, host, port, key=key)

    def ready(self) -> int:
        """Return the process id once the server answers."""
        self._server.wait()
        return os.getpid()

    @ray.method(concurrency_group="health")
    def beat(self) -> None:
        """Raise JudgeLostError unless the server answers, on a thread of its own."""
        self._server.check()

    def address(self) -> str:
        return self._server.address
