"""A judge on this machine for tests: an HTTP server that answers like OpenAI's chat endpoint."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What the server sends: a text as a chat completion, or raw bytes with a status."""

    text: str = "10"
    status: int = 200
    raw: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    finish: str = "stop"
    hangs_up: bool = False


class FakeJudge(ThreadingHTTPServer):
    """Answers by `reply`, which gets the request's body, and keeps every body and header that came."""

    daemon_threads = True

    def __init__(self, reply: Callable[[dict[str, Any]], Answer]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply = reply
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.lock = threading.Lock()
        self.num_now = self.most_at_once = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: FakeJudge

    def do_POST(self) -> None:
        judge = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with judge.lock:
            judge.bodies.append(body)
            judge.headers.append(dict(self.headers) | {"path": self.path})
            judge.num_now += 1
            judge.most_at_once = max(judge.most_at_once, judge.num_now)
        try:
            answer = judge.reply(body)
        finally:
            with judge.lock:
                judge.num_now -= 1
        if answer.hangs_up:
            self.close_connection = True
            return
        content = answer.raw
        if content is None:
            choice = {"message": {"role": "assistant", "content": answer.text}, "finish_reason": answer.finish}
            usage = {"prompt_tokens": 11, "completion_tokens": 3}
            content = json.dumps({"choices": [choice], "usage": usage}).encode()
        with suppress(BrokenPipeError):  # whoever asked has given up
            self.send_response(answer.status)
            for name, value in (*answer.headers, ("Content-Length", str(len(content)))):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def judging(reply: Callable[[dict[str, Any]], Answer]) -> Iterator[FakeJudge]:
    """Serve within the block."""
    server = FakeJudge(reply)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
