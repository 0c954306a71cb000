"""Which commit a run and a dataset name as their code."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from orchestration.storage import commit
from orchestration.storage.commit import project_commit
from orchestration.storage.run_folder import RunFolder, write_environment
from orchestration.submit.job import source_folder, stage_code


def git(folder: Path, *arguments: str) -> str:
    named = ["-c", "user.name=n", "-c", "user.email=e", *arguments]
    return subprocess.run(["git", *named], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A work tree with one commit, and the module in a folder of it that is not tracked."""
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "of something else")
    module = tmp_path / ".venv" / "site-packages" / "orchestration" / "host" / "commit.py"
    module.parent.mkdir(parents=True)
    shutil.copy(commit.__file__, module)
    monkeypatch.setattr(commit, "__file__", str(module))
    monkeypatch.setattr(commit, "COMMIT_FILE", module.parents[1] / "COMMIT")
    return tmp_path


def test_a_machine_without_git_starts_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    write_environment(RunFolder(tmp_path))
    assert json.loads((tmp_path / "environment.json").read_text())["commit"] is None


def test_a_work_tree_around_an_installed_package_is_not_its_commit(elsewhere: Path) -> None:
    assert project_commit() is None


def test_files_that_the_work_tree_tracks_are_of_its_commit(elsewhere: Path) -> None:
    git(elsewhere, "add", "--force", ".")
    git(elsewhere, "commit", "-q", "-m", "the project")
    assert project_commit() == git(elsewhere, "rev-parse", "HEAD")


def test_the_code_of_a_job_knows_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestration.submit.job.project_commit", lambda: "0123abcd")
    staged = stage_code(source_folder(), tmp_path / "code", max_mib=100.0)
    monkeypatch.setattr(commit, "COMMIT_FILE", staged / "orchestration" / "COMMIT")
    assert project_commit() == "0123abcd"
