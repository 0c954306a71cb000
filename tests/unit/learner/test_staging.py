"""A process's own folder on local disk."""

import os
import subprocess
import sys

import pytest

from learner.errors import CheckpointError
from learner.store import PREFIX, StagingArea


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
