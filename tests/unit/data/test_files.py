"""Raw files: digests that are remembered, and image paths that stay inside their source."""

import os
from pathlib import Path

import pytest

from orchestration.data.plan import FileDigests
from orchestration.data.read import is_unchanged, read_image
from orchestration.data.rows import RawImage, Refused


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "source" / "images").mkdir(parents=True)
    (tmp_path / "source" / "images" / "a.png").write_bytes(b"12345")
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "source" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "source" / "inner.png").symlink_to(tmp_path / "source" / "images" / "a.png")
    return tmp_path / "source"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../secret.png", "path_outside_root"),
        ("images/../../secret.png", "path_outside_root"),
        ("/etc/passwd", "path_outside_root"),
        ("link.png", "path_outside_root"),
        ("images/b.png", "image_missing"),
        ("images", "image_missing"),
        ("a\0b.png", "image_missing"),
        ("x" * 5000, "image_missing"),
        ("", "image_missing"),
    ],
)
def test_a_path_that_leads_elsewhere_or_nowhere_is_refused(root: Path, path: str, reason: str) -> None:
    with pytest.raises(Refused) as refusal:
        read_image(root, RawImage(path=path), max_bytes=100)
    assert refusal.value.reason == reason


@pytest.mark.parametrize("path", ["images/a.png", "inner.png", "./images/a.png"])
def test_a_path_inside_gives_bytes_and_a_stamp(root: Path, path: str) -> None:
    data, stamp = read_image(root, RawImage(path=path), max_bytes=5)
    assert data == b"12345"
    assert stamp is not None
    assert is_unchanged(root, stamp)
    (root / "images" / "a.png").write_bytes(b"123456")
    assert not is_unchanged(root, stamp)


def test_an_image_file_above_the_limit_is_never_read(root: Path) -> None:
    for image in (RawImage(path="images/a.png"), RawImage(data=b"12345")):
        with pytest.raises(Refused) as refusal:
            read_image(root, image, max_bytes=4)
        assert refusal.value.reason == "image_file_too_large"


def test_a_digest_is_remembered_until_size_or_time_change(tmp_path: Path) -> None:
    file, memory = tmp_path / "a.json", tmp_path / "memory" / "files.json"
    file.write_text("one")
    digests = FileDigests(memory)
    first = digests.of(file)
    digests.save()
    assert first == "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"  # SHA-256 of "one"

    state = file.stat()
    file.write_text("two")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert FileDigests(memory).of(file) == first  # same size, same time: taken as read
    file.write_text("other")
    assert FileDigests(memory).of(file) != first
