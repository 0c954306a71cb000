"""Images behind http(s) links: each is fetched once, several at a time, and kept in the store."""

import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from orchestration.data.sources.rows import BadRow, RawRow, Refused, RejectReason

if TYPE_CHECKING:
    import requests

FOLDER = "links"
NUM_TRIES = 3
NUM_THREADS = 16
ROWS_AHEAD = 64
"""Rows whose links are being fetched while an earlier row is read."""
MAX_REDIRECTS = 5
MAX_WAIT_S = 30.0
"""What a server may ask for by Retry-After."""
CHUNK_BYTES = 64 * 1024
SHOWN_CHARS = 200


class Links:
    """Fetches images by their links and keeps them in a folder, by the SHA-256 of the link.

    A link that is there is never asked again: delete its file to fetch it anew. Links that failed are not kept.

    Example:
        >>> with Links(Path("cache/data"), max_bytes=30_000_000) as links:  # doctest: +SKIP
        ...     data = links.read("https://images.cocodataset.org/val2017/000000000139.jpg")
    """

    def __init__(
        self, store: Path, max_bytes: int, *, timeout_s: float = 30.0, total_s: float = 300.0, backoff_s: float = 1.0
    ) -> None:
        """Prepare a session; nothing is asked yet.

        Args:
            store: Folder of all chunks; images are kept in `links` below it.
            max_bytes: Largest encoded image.
            timeout_s: For the connection, and for each part of an answer.
            total_s: For the whole answer.
            backoff_s: Waited before the second try, and twice that before the third.
        """
        self._folder = store / FOLDER
        self._max_bytes = max_bytes
        self._timeout_s, self._total_s, self._backoff_s = timeout_s, total_s, backoff_s
        self._pool = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="links")
        self._coming: dict[str, Future[None]] = {}
        self._sessions = threading.local()

    def read(self, link: str) -> bytes:
        """Return the bytes behind a link, from the store where they are there.

        Raises:
            Refused: IMAGE_MISSING with the status or the fault of the connection, or IMAGE_FILE_TOO_LARGE.
        """
        path = self._path(link)
        if not path.is_file():
            self._start(link).result()
        if path.stat().st_size > self._max_bytes:
            raise self._too_large(link)
        return path.read_bytes()

    def start(self, row: RawRow | BadRow) -> None:
        """Begin to fetch the links of a row that are not in the store."""
        for image in () if isinstance(row, BadRow) else row.images:
            if image.link and not self._path(image.link).is_file():
                self._start(image.link)

    def forget(self) -> None:
        """Drop what is known of fetched links, which the store keeps; those that failed are not asked again."""
        self._coming = {
            link: fetch for link, fetch in self._coming.items() if not fetch.done() or fetch.exception() is not None
        }

    def close(self) -> None:
        """Drop what has not begun and wait for what has."""
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _path(self, link: str) -> Path:
        return self._folder / hashlib.sha256(link.encode("utf-8", "replace")).hexdigest()

    def _start(self, link: str) -> Future[None]:
        if link not in self._coming:
            self._coming[link] = self._pool.submit(self._fetch, link)
        return self._coming[link]

    def _fetch(self, link: str) -> None:
        path = self._path(link)
        data = self._data(link)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Another process may fetch the same link.
        partial = path.with_name(f"{path.name}.partial-{os.getpid()}-{threading.get_ident()}")
        partial.write_bytes(data)
        partial.replace(path)

    def _data(self, link: str) -> bytes:
        fault = ""
        for number in range(NUM_TRIES):
            data, fault, wait_s = self._try(link)
            if data is not None:
                return data
            if wait_s is None:
                break
            if number + 1 < NUM_TRIES:
                time.sleep(min(MAX_WAIT_S, max(wait_s, self._backoff_s * 2**number)))
        raise Refused(RejectReason.IMAGE_MISSING, f"{shown_link(link)}: {fault}")

    def _try(self, link: str) -> tuple[bytes | None, str, float | None]:
        """Ask for a link once.

        Returns:
            The bytes, or None with the fault and the least seconds before another try, None where one is no use.

        Raises:
            Refused: It is too large.
        """
        import requests

        deadline = time.monotonic() + self._total_s
        try:
            with self._session().get(link, stream=True, timeout=self._timeout_s) as answer:
                if answer.status_code != requests.codes.ok:
                    is_passing = answer.status_code == requests.codes.too_many_requests or answer.status_code >= 500
                    return None, f"status {answer.status_code}", _retry_after(answer) if is_passing else None
                data = bytearray()
                for chunk in answer.iter_content(CHUNK_BYTES):
                    data += chunk
                    if len(data) > self._max_bytes:
                        raise self._too_large(link)
                    if time.monotonic() > deadline:
                        return None, f"no end of the answer within {self._total_s:g} s", 0.0
                return bytes(data), "", None
        except (requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema):
            return None, "redirected to something else than http or https", None
        except (
            requests.exceptions.InvalidURL,
            requests.exceptions.TooManyRedirects,
            UnicodeError,
            ValueError,
        ) as error:
            return None, f"cannot be asked for ({type(error).__name__})", None
        except (requests.exceptions.RequestException, OSError) as error:
            # Their texts repeat the whole link.
            return None, f"no answer in {NUM_TRIES} tries ({type(error).__name__})", 0.0

    def _session(self) -> "requests.Session":
        """Return the session of this thread: connections to a host are kept."""
        import requests

        if not hasattr(self._sessions, "own"):
            session = requests.Session()
            session.max_redirects = MAX_REDIRECTS
            session.headers["Accept-Encoding"] = "identity"
            self._sessions.own = session
        own: requests.Session = self._sessions.own
        return own

    def _too_large(self, link: str) -> Refused:
        return Refused(RejectReason.IMAGE_FILE_TOO_LARGE, f"{shown_link(link)}: more than {self._max_bytes} bytes")


class RowsAhead:
    """The rows of a part, while the links of the next ones are being fetched."""

    def __init__(self, rows: Iterable[RawRow | BadRow], links: Links | None) -> None:
        self._rows = iter(rows)
        self._links = links
        self._next: deque[RawRow | BadRow] = deque()

    def __iter__(self) -> Iterator[RawRow | BadRow]:
        return self

    def __next__(self) -> RawRow | BadRow:
        if self._links is None:
            return next(self._rows)
        for row in islice(self._rows, ROWS_AHEAD - len(self._next)):
            self._links.start(row)
            self._next.append(row)
        if not self._next:
            raise StopIteration
        return self._next.popleft()

    def skip(self, num_rows: int) -> None:
        """Leave rows out; none of their links is asked for, but those that are coming already."""
        while num_rows and self._next:
            self._next.popleft()
            num_rows -= 1
        for _ in islice(self._rows, num_rows):
            pass


def shown_link(link: str) -> str:
    """Return a link for messages, without user, password, query and fragment: signed links hold credentials there.

    Example:
        >>> shown_link("https://me:secret@host:8080/a/1.png?token=x")
        'https://host:8080/a/1.png'
    """
    try:
        parts = urlsplit(link)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "a link that is none"
    return f"{parts.scheme}://{host}{port}{parts.path}"[:SHOWN_CHARS]


def _retry_after(answer: "requests.Response") -> float:
    """Return the seconds that an answer asks to wait; 0 where it asks for none, or for a date."""
    asked = answer.headers.get("Retry-After", "")
    return float(asked) if asked.isascii() and asked.isdigit() and len(asked) < 6 else 0.0
