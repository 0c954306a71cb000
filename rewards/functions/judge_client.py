"""ChatClient: requests to the chat endpoint of OpenAI's API, with time limits, retries, and waiting for a server.

It stands on Python's own HTTP client, so a machine that only scores needs nothing else; proxies and certificates are
those of the environment (HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE).
"""

import http.client
import json
import logging
import os
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rewards.core.judge_config import FILE_PREFIX, JudgeConfig, backoff_s

logger = logging.getLogger(__name__)

RETRIED_STATUSES = (408, 409, 425, 429)
"""Refusals of this moment; with them every status from 500 on."""
MOST_RETRY_AFTER_S = 120.0
"""A server may ask for a longer pause; the next try comes then all the same."""
WAIT_STEP_S = 2.0
"""Between two tries where nothing answers."""
MOST_REPLY_BYTES = 16 * 1024 * 1024
SHOWN_CHARS = 300


class JudgeError(RuntimeError):
    """A request without a usable reply; the message says why, and never holds the key."""


class Reply(NamedTuple):
    """One reply of a judge."""

    text: str
    is_cut: bool
    """Whether it ended at max_tokens."""
    prompt_tokens: int
    completion_tokens: int


class _Again(Exception):
    """An answer that may be another one on the next try."""

    def __init__(self, cause: str, pause_s: float | None = None) -> None:
        super().__init__(cause)
        self.pause_s = pause_s


class _Nobody(Exception):
    """Nothing answered."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would come as a GET, and the key would go to another server."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class ChatClient:
    """Asks one server; may be used by several threads at once.

    Example:
        >>> judge = JudgeConfig(model="tiny", address="http://127.0.0.1:8000/v1", prompt="{answer}?")
        >>> ChatClient(judge).address
        'http://127.0.0.1:8000/v1'
    """

    def __init__(self, config: JudgeConfig, *, pause: Callable[[float], None] | None = None) -> None:
        """Store the settings; nothing is connected yet.

        `pause` waits that many seconds; by default until `interrupted`, at most.
        """
        self._config = config
        self._closed = threading.Event()
        self._pause = pause if pause is not None else self._wait
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._away_since: float | None = None
        """Since when nobody has answered any request: all of them together wait for `wait_s`."""
        handlers: list[Any] = [_NoRedirect()]
        if config.address.startswith(FILE_PREFIX):
            handlers.append(urllib.request.ProxyHandler({}))  # a server beside us, which no proxy of the site reaches
        self._opener = urllib.request.build_opener(*handlers)

    @property
    def address(self) -> str:
        """The server's address now.

        Raises:
            JudgeError: the judge has none, as its server is started by a run.
        """
        return self._address_and_key()[0]

    def ask(self, body: Mapping[str, Any]) -> Reply:
        """Send one request and wait for its reply, through retries and the replacement of a server.

        Raises:
            JudgeError: there is no usable reply within the limits of the settings.
        """
        data = json.dumps(body).encode()
        failed_tries = 0
        while True:
            if self._closed.is_set():
                raise JudgeError("the judge was closed while it was asked")
            try:
                reply = self._send(data)
            except _Nobody as error:
                self._count("num_waits")
                if self._away_s(error) >= self._config.wait_s:
                    raise JudgeError(f"{error}, for wait_s={self._config.wait_s:g}") from error
                self._pause(min(WAIT_STEP_S, self._config.wait_s))
            except _Again as error:
                self._away_since = None
                if failed_tries >= self._config.retries:
                    raise JudgeError(f"{error}, after {failed_tries + 1} tries") from error
                self._count("num_retries")
                self._pause(backoff_s(failed_tries) if error.pause_s is None else error.pause_s)
                failed_tries += 1
            else:
                self._away_since = None
                return reply

    def take_counts(self) -> Counter[str]:
        """Return what was counted since the last call."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return counts

    @contextmanager
    def interrupted(self) -> Iterator[None]:
        """End all requests that wait for their next try within the block, and refuse others."""
        self._closed.set()
        try:
            yield
        finally:
            self._closed.clear()

    def _away_s(self, error: _Nobody) -> float:
        """Return for how long nobody has answered; tells the user when it begins."""
        now = time.monotonic()
        with self._lock:
            is_new = self._away_since is None
            self._away_since = now if self._away_since is None else self._away_since
            away_s = now - self._away_since
        if is_new:
            logger.warning("%s; requests to the judge wait for wait_s=%g at most", error, self._config.wait_s)
        return away_s

    def _send(self, data: bytes) -> Reply:
        started = time.monotonic()
        address, key = self._address_and_key()
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        request = urllib.request.Request(f"{address}/chat/completions", data=data, headers=headers, method="POST")
        self._count("num_requests")
        limit_s = self._config.timeout_s
        try:
            with self._opener.open(request, timeout=limit_s) as response:
                content = _read(response, started + limit_s)
        except urllib.error.HTTPError as error:
            raise self._refusal(error, key) from None  # its chain would show the request, headers included
        except TimeoutError:
            raise _Again(f"no reply within timeout_s={limit_s:g}") from None
        except (OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            if isinstance(reason, TimeoutError):
                raise _Again(f"no reply within timeout_s={limit_s:g}") from None
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise JudgeError(f"{address}: {reason}; SSL_CERT_FILE names the certificates to trust") from None
            raise _Nobody(f"nothing answers at {address} ({type(reason).__name__}: {reason})") from None
        reply = _read_reply(content, key)
        with self._lock:
            self._counts["num_prompt_tokens"] += reply.prompt_tokens
            self._counts["num_completion_tokens"] += reply.completion_tokens
        return reply

    def _refusal(self, error: urllib.error.HTTPError, key: str) -> Exception:
        try:
            said = error.read(64 * SHOWN_CHARS).decode(errors="replace").strip()
        except (OSError, http.client.HTTPException):
            said = ""
        cause = f"status {error.code}: {_without(key, said)[:SHOWN_CHARS] or error.reason}"
        if error.code not in RETRIED_STATUSES and error.code < 500:
            return JudgeError(cause)
        try:
            pause_s = min(MOST_RETRY_AFTER_S, max(0.0, float(error.headers.get("Retry-After", ""))))
        except ValueError:  # none, or a date
            pause_s = None
        return _Again(cause, pause_s)

    def _address_and_key(self) -> tuple[str, str]:
        """Return address and key; those of a server that a run started stand in a file."""
        address, key = self._config.address, ""
        if not address:
            raise JudgeError(
                f"the judge's model is the folder {self._config.model}, for which only a run starts a server; give it "
                "an address to ask it from here"
            )
        if address.startswith(FILE_PREFIX):
            path = Path(address.removeprefix(FILE_PREFIX))
            try:
                address, key = [*path.read_text().split("\n"), "", ""][:2]
            except OSError as error:
                raise _Nobody(f"{path} holds no address yet ({error.strerror})") from None
        if variable := self._config.key_variable:
            key = os.environ.get(variable, "")
            if not key:
                raise JudgeError(f"the environment variable {variable} (key_variable) is not set; export the API key")
        return address.strip().rstrip("/"), key.strip()

    def _wait(self, seconds: float) -> None:
        self._closed.wait(seconds)

    def _count(self, name: str) -> None:
        with self._lock:
            self._counts[name] += 1


def _read(response: http.client.HTTPResponse, deadline: float) -> bytes:
    """Read a whole reply; a server that sends it byte by byte must end by the deadline too."""
    parts, size = [], 0
    while part := response.read1(1 << 16):
        parts.append(part)
        size += len(part)
        if size > MOST_REPLY_BYTES:
            raise JudgeError(f"the reply is longer than {MOST_REPLY_BYTES} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError
    return b"".join(parts)


def _without(key: str, said: str) -> str:
    return said.replace(key, "***") if key else said


def _read_reply(content: bytes, key: str) -> Reply:
    try:
        values = json.loads(content)
        choice = values["choices"][0]
        said = choice["message"]["content"]
        usage = values.get("usage") or {}
        text = said if isinstance(said, str) else "".join(part["text"] for part in said or ())
        return Reply(
            text=text,
            is_cut=choice.get("finish_reason") == "length",
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            completion_tokens=int(usage.get("completion_tokens") or 0),
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError):
        shown = _without(key, content[: 64 * SHOWN_CHARS].decode(errors="replace"))[:SHOWN_CHARS]
        raise _Again(f"the reply is no chat completion: {shown!r}") from None
