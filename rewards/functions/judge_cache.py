"""ReplyCache: what a judge has replied, by a digest of all that it was asked; shared by processes, kept after a kill.

Each process appends to a file of its own and reads those of the others, so that nobody locks anything: the folder may
be on a network file system, where SQLite's locks and shared memory cannot be relied on. A line that a kill cut short
has no line feed, is never read, and nothing is appended behind it.
"""

import json
import os
import socket
import threading
import uuid
from pathlib import Path
from typing import Any

from rewards.functions.judge_client import Reply

KEY_HEX = 32
"""Characters of a key: 16 bytes in hex."""


class ReplyCache:
    """Replies by key; may be used by several threads and several processes at once.

    Of each reply only its place in a file is held in memory.
    """

    def __init__(self, folder: Path) -> None:
        """Read what is there; the folder is made with the first reply."""
        self._folder = folder
        name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"
        self._own = folder / name
        self._file: int | None = None
        self._lock = threading.Lock()
        self._places: dict[bytes, tuple[Path, int]] = {}
        self._read_bytes: dict[Path, int] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read what other processes have added."""
        with self._lock:
            for path in sorted(self._folder.glob("*.jsonl")):
                if path != self._own:
                    self._read_on(path)

    def get(self, key: str) -> Reply | None:
        """Return the reply to a key; None where it is not known."""
        with self._lock:
            place = self._places.get(bytes.fromhex(key))
        if place is None:
            return None
        path, start = place
        try:
            with path.open("rb") as file:
                file.seek(start)
                record = json.loads(file.readline())
            if record["key"] != key:
                return None
            return Reply(record["reply"], record["is_cut"], record["prompt_tokens"], record["completion_tokens"])
        except (OSError, ValueError, KeyError, TypeError):
            return None  # deleted or damaged since: asked again

    def add(self, key: str, reply: Reply) -> None:
        """Append a reply; once this returns, no end of the process loses it.

        Raises:
            OSError: the file cannot be written.
        """
        record: dict[str, Any] = {"key": key, "reply": reply.text, "is_cut": reply.is_cut}
        record |= {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
        line = json.dumps(record).encode() + b"\n"
        with self._lock:
            if self._file is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._file = os.open(self._own, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            start = os.lseek(self._file, 0, os.SEEK_END)
            written = os.write(self._file, line)
            if written < len(line):  # the disk is full: what is behind this line must begin on one of its own
                os.ftruncate(self._file, start)
                raise OSError(f"{self._own} took {written} of {len(line)} bytes")
            self._places[bytes.fromhex(key)] = self._own, start

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def _read_on(self, path: Path) -> None:
        """Index the whole lines of a file from where the last reading ended."""
        start = self._read_bytes.get(path, 0)
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_size <= start:
                    return
                file.seek(start)
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # being written, or cut short by a kill
                    key = _key_of(line)
                    if key is not None:
                        self._places.setdefault(key, (path, start))
                    start += len(line)
        except OSError:
            return  # deleted since the folder was listed
        self._read_bytes[path] = start


class ReplyMemory:
    """Replies by key within one process, for scores that belong to no run."""

    def __init__(self) -> None:
        self._replies: dict[str, Reply] = {}

    def refresh(self) -> None:
        """There is nobody else to read from."""

    def get(self, key: str) -> Reply | None:
        """Return the reply to a key; None where it is not known."""
        return self._replies.get(key)

    def add(self, key: str, reply: Reply) -> None:
        self._replies[key] = reply

    def close(self) -> None:
        """Keep the replies; they end with the process."""


def _key_of(line: bytes) -> bytes | None:
    """Return the key of a line, which begins with it; None where the line is damaged."""
    begin = b'{"key": "'
    if not line.startswith(begin) or not line.rstrip().endswith(b"}"):
        return None
    try:
        key = bytes.fromhex(line[len(begin) : len(begin) + KEY_HEX].decode())
    except ValueError:
        return None
    return key if len(key) * 2 == KEY_HEX else None
