"""Images behind links: asked for once, several at a time, refused by name; against a server on this machine."""

import json
import logging
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from orchestration.data import links as links_module
from orchestration.data.chunks import Chunk, ImageReader
from orchestration.data.links import Links, RowsAhead, shown_link
from orchestration.data.plan import FileDigests, plan_sources
from orchestration.data.read import read_image, read_sources
from orchestration.data.sources.fields import cell_image, file_image
from orchestration.data.sources.rows import BadRow, RawImage, RawRow, Refused, RejectReason
from orchestration.data.sources.turns import read_turns
from orchestration.settings.recipe import RecipeConfig, SourceConfig
from tests.unit.data.faults import encoded, picture

PNG = encoded(picture(1, (32, 32)))
SCHEME = "http:" + "//"


@dataclass
class Site:
    """A server on this machine: pictures by path, and what else a server does."""

    address: str
    asked: Counter[str] = field(default_factory=Counter)
    pictures: dict[str, bytes] = field(default_factory=dict)
    together: threading.Barrier = field(default_factory=lambda: threading.Barrier(4, timeout=20))
    credentials: set[str] = field(default_factory=set)

    def link(self, path: str) -> str:
        return f"{SCHEME}{self.address}{path}"


@pytest.fixture
def site() -> Iterator[Site]:
    release = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            here.asked[path] += 1
            here.credentials.add(self.headers.get("Authorization", ""))
            if path.startswith("/status/"):
                _, _, status, name = path.split("/")
                is_passing = name == "once.png" and here.asked[path] > 1
                return self.answer(PNG if is_passing else b"", 200 if is_passing else int(status))
            if path == "/away":
                return self.answer(b"", 302, Location="file:///etc/hostname")
            if path == "/round":
                return self.answer(b"", 302, Location="/round")
            if path == "/moved":
                return self.answer(b"", 301, Location="/1.png")
            if path == "/huge":
                return self.answer(bytes(200_000))
            if path == "/slow":
                self.head(10)
                release.wait(20)
                return None
            if path == "/cut":
                self.head(len(PNG))
                self.wfile.write(PNG[:20])
                self.close_connection = True
                return None
            if path.startswith("/together/"):
                here.together.wait()
            return self.answer(here.pictures.get(path, b""), 200 if path in here.pictures else 404)

        def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
            self.head(len(body), status, **headers)
            try:
                self.wfile.write(body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def head(self, length: int, status: int = 200, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(length), "Content-Type": "text/html", **headers}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *request: object) -> None:
            """Log nothing: errors of connections that a client gives up end here."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    here = Site(f"127.0.0.1:{server.server_port}", pictures={"/1.png": PNG})
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01), daemon=True)
    thread.start()
    yield here
    release.set()
    server.shutdown()
    server.server_close()
    thread.join()


def links_of(root: Path, max_bytes: int = 100_000, timeout_s: float = 20.0, total_s: float = 20.0) -> Links:
    return Links(root, max_bytes, timeout_s=timeout_s, total_s=total_s, backoff_s=0.0)


def refusal(links: Links, link: str) -> Refused:
    with pytest.raises(Refused) as caught:
        links.read(link)
    return caught.value


def kept(root: Path) -> list[Path]:
    return sorted((root / "links").glob("*"))


def test_a_link_is_asked_for_once(site: Site, tmp_path: Path) -> None:
    for _ in range(2):
        with links_of(tmp_path) as links:
            assert [links.read(site.link("/1.png")) for _ in range(3)] == [PNG] * 3
    assert site.asked == {"/1.png": 1}
    (file,) = kept(tmp_path)
    assert file.read_bytes() == PNG
    assert len(file.name) == 64


def test_links_that_differ_by_their_query_are_two(site: Site, tmp_path: Path) -> None:
    with links_of(tmp_path) as links:
        links.read(site.link("/1.png?size=1"))
        links.read(site.link("/1.png?size=2"))
    assert site.asked == {"/1.png": 2}


@pytest.mark.parametrize(
    ("path", "reason", "told", "num_asked"),
    [
        ("/none.png", "image_missing", "/none.png: status 404", 1),
        ("/status/403/a.png", "image_missing", "status 403", 1),
        ("/status/204/a.png", "image_missing", "status 204", 1),
        ("/status/500/a.png", "image_missing", "status 500", 3),
        ("/status/429/a.png", "image_missing", "status 429", 3),
        ("/cut", "image_missing", "no answer in 3 tries (", 3),
        ("/away", "image_missing", "redirected to something else than http or https", 1),
        ("/round", "image_missing", "cannot be asked for (TooManyRedirects)", 6),
        ("/huge", "image_file_too_large", "/huge: more than 100000 bytes", 1),
    ],
)
def test_a_link_that_gives_no_image_is_refused_by_name(
    site: Site, tmp_path: Path, path: str, reason: str, told: str, num_asked: int
) -> None:
    with links_of(tmp_path) as links:
        error = refusal(links, site.link(path))
        again = refusal(links, site.link(path))
    assert (error.reason.value, again.detail) == (reason, error.detail)
    assert told in error.detail
    assert error.detail.startswith(f"{SCHEME}{site.address}{path}: ")
    assert site.asked == {path: num_asked}
    assert kept(tmp_path) == []


@pytest.mark.parametrize("path", ["/status/500/once.png", "/status/429/once.png", "/moved"])
def test_a_fault_that_passes_and_a_redirect_cost_no_row(site: Site, tmp_path: Path, path: str) -> None:
    with links_of(tmp_path) as links:
        assert links.read(site.link(path)) == PNG
    assert len(kept(tmp_path)) == 1


def test_a_slow_answer_is_given_up(site: Site, tmp_path: Path) -> None:
    with links_of(tmp_path, timeout_s=0.05) as links:
        assert "no answer in 3 tries (ConnectionError)" in refusal(links, site.link("/slow")).detail
    assert site.asked == {"/slow": 3}
    assert kept(tmp_path) == []


def test_an_answer_that_drips_is_given_up_as_a_whole(site: Site, tmp_path: Path) -> None:
    site.pictures["/drip.png"] = bytes(90_000)
    with links_of(tmp_path, total_s=-1.0) as links:
        assert "no end of the answer within -1 s" in refusal(links, site.link("/drip.png")).detail
    assert kept(tmp_path) == []


def test_nobody_listening_is_no_image(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with links_of(tmp_path) as links:
            error = refusal(links, f"{SCHEME}{address}/1.png?signature=secret")
    assert error.detail == f"{SCHEME}{address}/1.png: no answer in 3 tries (ConnectionError)"


def test_a_download_that_is_killed_leaves_no_image(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise KeyboardInterrupt

    with links_of(tmp_path) as links, monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", killed)
        with pytest.raises(KeyboardInterrupt):
            links.read(site.link("/1.png"))
    assert all(".partial-" in path.name for path in kept(tmp_path))
    with links_of(tmp_path) as links:
        assert links.read(site.link("/1.png")) == PNG
    assert site.asked == {"/1.png": 2}


def test_a_kept_image_above_a_lower_limit_is_refused(site: Site, tmp_path: Path) -> None:
    with links_of(tmp_path) as links:
        links.read(site.link("/1.png"))
    with links_of(tmp_path, max_bytes=10) as links:
        assert refusal(links, site.link("/1.png")).reason is RejectReason.IMAGE_FILE_TOO_LARGE
    assert site.asked == {"/1.png": 1}


def test_credentials_are_used_and_never_told(site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    link = f"{SCHEME}me:secret@{site.address}/none.png?X-Signature=secret#secret"
    with caplog.at_level(logging.INFO), links_of(tmp_path) as links:
        assert refusal(links, link).detail == f"{SCHEME}{site.address}/none.png: status 404"
        with pytest.raises(Refused, match=r"fetch_images=true fetches it") as caught:
            read_image(tmp_path, RawImage(link=link), 10)
    assert any(site.credentials)
    assert "secret" not in caplog.text + caught.value.detail


@pytest.mark.parametrize(
    ("link", "told"),
    [
        ("HTTPS:" + "//Host/A.png?x", "https:" + "//host/A.png"),
        ("http:" + "//[::1/a.png?secret", "a link that is none"),
        ("http:" + "//host:port/a.png?secret", "a link that is none"),
    ],
)
def test_a_link_is_told_without_what_may_be_secret(link: str, told: str) -> None:
    assert shown_link(link) == told


@pytest.mark.parametrize("link", ["http:" + "//[::1/a.png", "http:" + "//host:port/a.png", "http:" + "///a.png"])
def test_a_link_that_is_none_is_refused(link: str, tmp_path: Path) -> None:
    with links_of(tmp_path) as links:
        assert refusal(links, link).reason is RejectReason.IMAGE_MISSING


def test_links_of_the_next_rows_are_fetched_together(site: Site, tmp_path: Path) -> None:
    """The server answers only when four ask at once."""
    site.pictures |= {f"/together/{number}.png": PNG for number in range(4)}
    rows = [
        RawRow(source_id=str(n), task="open", question="?", images=(RawImage(link=site.link(f"/together/{n}.png")),))
        for n in range(4)
    ]
    with links_of(tmp_path) as links:
        for row in RowsAhead(rows, links):
            assert isinstance(row, RawRow)
            assert links.read(row.images[0].link or "") == PNG
    assert site.asked.total() == 4


def test_rows_that_are_skipped_are_not_asked_for(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links_module, "ROWS_AHEAD", 2)
    site.pictures |= {f"/{number}.png": PNG for number in range(9)}
    rows: list[RawRow | BadRow] = [
        RawRow(source_id=str(n), task="open", question="?", images=(RawImage(link=site.link(f"/{n}.png")),))
        for n in range(8)
    ]
    rows.insert(5, BadRow(source_id="bad", reason=RejectReason.MISSING_FIELD, detail=""))
    with links_of(tmp_path) as links:
        ahead = RowsAhead(rows, links)
        ahead.skip(3)
        rows_read = [next(ahead)]
        ahead.skip(3)
        rows_read += ahead
        for row in rows_read:
            assert isinstance(row, RawRow)
            assert links.read(str(row.images[0].link)) == PNG
    assert [row.source_id for row in rows_read] == ["3", "6", "7"]
    assert set(site.asked) - {"/4.png"} == {"/3.png", "/6.png", "/7.png"}  # 4 was ahead before it was skipped
    assert [row.source_id for row in RowsAhead(rows, None)][4:6] == ["4", "bad"]


@pytest.mark.parametrize(
    "cell",
    [
        "https:" + "//host/train2017/000000000009.jpg", {"path": "https:" + "//host/train2017/000000000009.jpg"},
        {"bytes": None, "path": "https:" + "//host/train2017/000000000009.jpg"},
        {"url": "https:" + "//host/train2017/000000000009.jpg"},
        "https:/" + "/host/train2017/000000000009.jpg", "HTTPS:/host/train2017/000000000009.jpg",
    ],
)  # fmt: skip
def test_cells_that_are_links(cell: object) -> None:
    image = cell_image(cell, "image", "pictures")
    assert (image.path, image.data, image.image_id) == (None, None, "coco/9")
    assert (image.link or "").lower() == "https:" + "//host/train2017/000000000009.jpg"


def test_a_folder_may_be_a_link() -> None:
    assert file_image("https:" + "//host/pictures", "1.jpg") == RawImage(link="https:" + "//host/pictures/1.jpg")
    assert file_image("pictures", "https.jpg") == RawImage(path="pictures/https.jpg")


def test_parts_of_openai_may_be_links() -> None:
    part = {"type": "image_url", "image_url": {"url": "https:" + "//host/1.jpg", "detail": "low"}}
    read = read_turns([{"role": "user", "content": [part, {"type": "text", "text": "How many?"}]}], "messages")
    assert read is not None
    assert [(turn.text, turn.images) for turn in read] == [
        ("<image>How many?", (RawImage(link="https:" + "//host/1.jpg"),))
    ]


MAPPING = {"id": "id", "question": "q", "answer": "a", "images": "image", "task": {"constant": "chart"}}


def build(root: Path, *links: str, chunk_rows: int = 2, fetch_images: bool = True) -> list[Chunk]:
    folder = root / "raw" / "own"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"id": str(n), "q": "?", "a": "1", "image": link} for n, link in enumerate(links)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = SourceConfig(adapter="jsonl", path="own", options={"files": ["*.jsonl"], "mapping": MAPPING})
    recipe = RecipeConfig(
        name="own", seed=0, sources={"own": source}, raw=str(root / "raw"), chunk_rows=chunk_rows,
        fetch_images=fetch_images,
    )  # fmt: skip
    plans = plan_sources(recipe, root / "store", FileDigests(root / "store" / "files.json"))
    return read_sources([plan.tasks for plan in plans], map, lambda rows: None)


def outcome(chunks: list[Chunk]) -> list[str]:
    return [
        line
        for chunk in chunks
        for line in (
            *(values["row"]["source_id"] for values in chunk.rows()),
            *(f"{values['source_id']} {values['detail']}" for values in chunk.rejected()),
        )
    ]


def test_rows_without_leave_to_fetch_name_the_setting(site: Site, tmp_path: Path) -> None:
    chunks = build(tmp_path, site.link("/1.png?secret"), fetch_images=False)
    assert outcome(chunks) == [
        f"0 {SCHEME}{site.address}/1.png is a link; data.recipe.fetch_images=true fetches it, or download it and name "
        "the file"
    ]
    assert not site.asked


def test_rows_of_a_build_hold_what_their_links_lead_to(site: Site, tmp_path: Path) -> None:
    other = encoded(picture(2, (32, 32)))
    site.pictures["/2.png"] = other
    chunks = build(tmp_path, site.link("/1.png"), site.link("/2.png"), site.link("/1.png"))
    reader = ImageReader(tmp_path / "store")
    images = [reader.read(chunk.address, row["row"]["images"][0]["index"]) for chunk in chunks for row in chunk.rows()]
    assert images == [PNG, other, PNG]
    assert site.asked == {"/1.png": 1, "/2.png": 1}
    build(tmp_path, site.link("/1.png"), site.link("/2.png"), chunk_rows=1)
    assert site.asked == {"/1.png": 1, "/2.png": 1}


def test_a_link_that_failed_is_asked_again_by_the_next_build(site: Site, tmp_path: Path) -> None:
    links = [site.link(path) for path in ("/1.png", "/late.png", "/1.png", "/1.png?2")]
    first = build(tmp_path, *links)
    assert outcome(first) == ["0", f"1 {SCHEME}{site.address}/late.png: status 404", "2", "3"]
    site.pictures["/late.png"] = PNG
    second = build(tmp_path, *links)
    assert outcome(second) == ["0", "1", "2", "3"]
    assert site.asked == {"/1.png": 2, "/late.png": 2}
    third = build(tmp_path, *links)
    assert [chunk.digest for chunk in third] == [chunk.digest for chunk in second]
    assert site.asked == {"/1.png": 2, "/late.png": 2}


def test_a_chunk_that_ends_elsewhere_than_before_loses_and_doubles_no_row(site: Site, tmp_path: Path) -> None:
    """Chunks end after so many rows with images: one more in the first moves the beginning of the others."""
    links = [site.link(f"/{'late' if number == 1 else 1}.png?{number}") for number in range(9)]
    assert len(build(tmp_path, *links, chunk_rows=3)) == 3
    site.pictures["/late.png"] = PNG
    assert outcome(build(tmp_path, *links, chunk_rows=3)) == [str(number) for number in range(9)]
