"""The export goes where the settings want it; a place that does not take it is no fault of the run."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestration.job import push_export
from orchestration.settings.errors import ConfigError
from orchestration.storage.push import check_place
from orchestration.storage.run_folder import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    found = RunFolder(tmp_path / "run")
    (found.export / "inner").mkdir(parents=True)
    (found.export / "config.json").write_text("{}")
    (found.export / "inner" / "model.safetensors").write_bytes(b"weights")
    return found


def test_all_files_arrive_in_a_folder_and_in_storage_by_uri(tmp_path: Path, folder: RunFolder) -> None:
    said: list[str] = []
    for place in (f"{tmp_path}/a/b", f"file://{tmp_path}/c"):
        push_export(folder, place, said.append)
        target = Path(place.removeprefix("file://"))
        assert (target / "inner" / "model.safetensors").read_bytes() == b"weights"
        assert (target / "config.json").read_text() == "{}"
        assert json.loads(folder.pushed.read_text()) == {"to": place}
        assert said[-1] == f"the export is in {place} too"


def test_what_was_copied_is_not_copied_again_and_what_failed_is(tmp_path: Path, folder: RunFolder) -> None:
    place, said = tmp_path / "a", []
    place.write_text("a file stands in the way")
    push_export(folder, str(place), said.append)
    assert said[0].startswith(f"training.push_to={place}: the export was not copied (")
    assert said[0].endswith(f"it is whole in {folder.export}, and the same command tries again")
    assert not folder.pushed.exists()
    place.unlink()
    push_export(folder, str(place), said.append)
    (place / "config.json").unlink()
    push_export(folder, str(place), said.append)
    assert len(said) == 2
    assert not (place / "config.json").exists()
    push_export(folder, None, said.append)
    assert len(said) == 2


def test_the_hub_gets_the_folder_and_its_refusal_is_said(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    calls: list[Any] = []
    monkeypatch.setattr(hub.HfApi, "create_repo", lambda self, name, **options: calls.append((name, options)))
    monkeypatch.setattr(hub.HfApi, "upload_folder", lambda self, **options: calls.append(options))
    push_export(folder, "hf://org/model", calls.append)
    assert calls[0] == ("org/model", {"private": True, "exist_ok": True})
    assert (calls[1]["repo_id"], calls[1]["folder_path"]) == ("org/model", folder.export)
    assert calls[2] == "the export is in hf://org/model too"

    def refuse(self: object, name: str, **options: object) -> None:
        raise ConnectionError("no network\nmore")

    monkeypatch.setattr(hub.HfApi, "create_repo", refuse)
    push_export(folder, "hf://org/other", calls.append)
    assert "not copied (org/other: ConnectionError: no network); it is whole in" in calls[-1]


@pytest.mark.parametrize("place", ["runs/x", "hf://model", "hf://a/b/c"])
def test_places_that_name_nothing_are_refused(place: str) -> None:
    with pytest.raises(ConfigError, match=rf"training\.push_to={place}"):
        check_place("training.push_to", place)


@pytest.mark.parametrize("place", ["/exports/x", "s3://bucket/x", "hf://org/model"])
def test_places_that_may_be_there_are_not_reached(place: str) -> None:
    check_place("training.push_to", place)
