"""Files in a store: the same words on a local file system and on object storage."""

import errno
import hashlib
import os
import pickle
import subprocess
import sys

import pytest
from pyarrow import fs

from learner import store as store_module
from learner.errors import CheckpointError
from learner.store import PREFIX, FileEntry, FileStore, StagingArea, open_store
from tests.unit.memory_store import MemoryHandler


@pytest.fixture(params=["local", "object storage"])
def store(request, tmp_path):
    if request.param == "local":
        return open_store(tmp_path / "kept")
    return FileStore(fs.PyFileSystem(MemoryHandler()), "bucket/run")


@pytest.mark.parametrize("num_bytes", [0, 5, 25])
def test_what_is_put_is_described_read_listed_fetched_and_deleted(store, num_bytes, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "CHUNK_BYTES", 10)
    source = tmp_path / "source"
    source.write_bytes(data := bytes(range(num_bytes)))

    entry = store.put(source, "step/weights/part")
    store.put_bytes(b"other", "step/meta")
    store.sync("step")

    blake2b = hashlib.blake2b(data, digest_size=32).hexdigest()
    assert entry == FileEntry(name="step/weights/part", num_bytes=num_bytes, blake2b=blake2b)
    assert store.digest("step/weights/part") == entry
    assert store.read("step/weights/part") == data
    assert store.folders() == ["step"]
    assert store.sizes("step") == {"weights/part": num_bytes, "meta": 5}
    assert store.fetch("step/weights/part", tmp_path / "a" / "b") == entry
    assert (tmp_path / "a" / "b").read_bytes() == data

    store.delete("step/meta")
    assert store.sizes("step") == {"weights/part": num_bytes}
    store.delete("step")
    assert store.folders() == []
    store.delete("step/meta")
    store.delete("step")
    assert store.read("step/meta") is None
    assert store.sizes("step") == {}


def test_a_file_that_is_put_again_holds_the_second_content(store):
    store.put_bytes(b"a longer first content", "one")
    store.put_bytes(b"second", "one")

    assert store.read("one") == b"second"


def test_only_a_local_store_gives_paths(tmp_path):
    assert open_store(tmp_path).local_path("step") == tmp_path / "step"
    assert open_store(f"file://{tmp_path}").local_path("step") == tmp_path / "step"
    assert FileStore(fs.PyFileSystem(MemoryHandler()), "bucket").local_path("step") is None


def test_a_store_travels_between_processes(tmp_path):
    open_store(tmp_path).put_bytes(b"x", "one")

    assert pickle.loads(pickle.dumps(open_store(tmp_path))).read("one") == b"x"


def test_a_uri_that_nobody_knows_is_refused():
    with pytest.raises(CheckpointError, match=r"checkpoint_dir=nosuch://bucket cannot be opened .* s3://bucket/folder"):
        open_store("nosuch://bucket")


def test_a_store_that_is_full_is_named():
    store = FileStore(fs.PyFileSystem(MemoryHandler(capacity=3)), "bucket/run")

    with pytest.raises(
        CheckpointError, match=r"one was not written to py::memory:bucket/run \(No space left"
    ) as caught:
        store.put_bytes(b"four", "one")

    assert caught.value.__cause__.errno == errno.ENOSPC


def test_a_folder_is_empty_however_often_it_is_asked_for(tmp_path):
    area = StagingArea(tmp_path)
    (area.folder("share") / "left").write_text("x")

    assert list(area.folder("share").iterdir()) == []


def test_nothing_is_there_while_nothing_is_staged(tmp_path):
    area = StagingArea(tmp_path)
    assert list(tmp_path.iterdir()) == []

    area.folder("share")
    area.folder("fetched")
    area.remove("share")
    assert area.path("fetched").is_dir()
    area.remove("fetched")
    assert list(tmp_path.iterdir()) == []

    area.folder("share")
    area.close()
    assert list(tmp_path.iterdir()) == []


def test_what_a_dead_process_left_goes_and_all_else_stays(tmp_path):
    code = f"""
import os, signal
from pathlib import Path
from learner.store import StagingArea
(StagingArea(Path({str(tmp_path)!r})).folder("share") / "weights").write_text("x")
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert len(list(tmp_path.rglob("weights"))) == 1
    alive = StagingArea(tmp_path)
    alive.folder("share")
    (tmp_path / "not_ours").mkdir()
    (tmp_path / f"{PREFIX}without_a_lock").mkdir()

    StagingArea(tmp_path)

    assert list(tmp_path.rglob("weights")) == []
    assert alive.path("share").is_dir()
    assert (tmp_path / "not_ours").is_dir()
    assert (tmp_path / f"{PREFIX}without_a_lock").is_dir()
    alive.close()


def test_others_cannot_look_into_it(tmp_path):
    area = StagingArea(tmp_path)

    assert os.stat(area.folder("share").parent).st_mode & 0o077 == 0
    area.close()


def test_a_parent_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(CheckpointError, match=r"training\.staging_dir: .*/file cannot be written"):
        StagingArea(tmp_path / "file")
