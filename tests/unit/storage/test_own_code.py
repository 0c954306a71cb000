"""A run keeps the code that its settings name, and does not go on with other code unless it is told to."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from orchestration.cli import compose
from orchestration.evaluate.checkpoint import settings_of_run
from orchestration.plan.findings import run_folder_refusal
from orchestration.settings.errors import ConfigError, ResumeError
from orchestration.settings.experiment import ExperimentConfig, build_settings
from orchestration.settings.own_code import check_own_code, own_code, with_own_code
from orchestration.storage.own_code import to_copies
from orchestration.storage.run_folder import RunFolder, read_config, settle_config

KEY = "data.recipe.sources.drawn_train.adapter"
"""A setting that names code, or one of our adapters."""


@cache
def composed() -> str:
    return json.dumps(compose([]))


def settings(root: Path, code: str, **others: Any) -> ExperimentConfig:
    values = json.loads(composed()) | {"run_dir": str(root), **others}
    values["data"]["recipe"]["sources"] = {"drawn_train": {"adapter": code, "options": {"num_rows": 8}}}
    return build_settings(values)


def code(folder: Path, text: str = "import helper\ndef read(x): ...\n") -> str:
    folder.mkdir(exist_ok=True)
    (folder / "mine.py").write_text(text)
    (folder / "helper.py").write_text("x = 1\n")
    return f"{folder}/mine.py:read"


def test_the_marked_settings_that_name_code_are_found_and_others_left(tmp_path: Path) -> None:
    config = settings(tmp_path, "a.py:read")
    assert own_code(config) == {KEY: "a.py:read"}
    assert own_code(settings(tmp_path, "drawn")) == {}
    changed = with_own_code(config, lambda key, text: f"{key}/{text}")
    assert own_code(changed) == {KEY: f"{KEY}/a.py:read"}
    assert with_own_code(config, lambda _, text: text) is config


def test_paths_are_settled_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    for typed, settled in (("mine.py:f", f"{tmp_path}/mine.py:f"), ("~/m.py:f", "/home/me/m.py:f"), ("a.b:f", "a.b:f")):
        values = compose([f"+data.recipe.sources.mine={{adapter: '{typed}'}}"])
        assert values["data"]["recipe"]["sources"]["mine"]["adapter"] == settled


def test_absent_files_and_names_are_refused_before_anything_starts(tmp_path: Path) -> None:
    check_own_code(settings(tmp_path, code(tmp_path / "a")))
    for name, said in (("min.py:read", "did you mean mine.py"), ("mine.py:raed", "mean read")):
        with pytest.raises(ConfigError, match=f"{KEY}=.*{said}"):
            check_own_code(settings(tmp_path, f"{tmp_path}/a/{name}"))


def test_a_run_keeps_digests_and_copies_and_actors_load_the_copies(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    config = settings(folder.root, code(tmp_path / "a"))
    settle_config(folder, config)
    record = json.loads(folder.own_code.read_text())[KEY]
    assert list(record["files"]) == ["mine.py", "helper.py"]
    [copy] = own_code(with_own_code(config, to_copies(folder.own_code, folder.own_code_copies))).values()
    assert copy == f"{folder.root}/own_code/{record['digest']}/mine.py:read"
    (tmp_path / "a" / "mine.py").write_text("def read(x): return 'edited during the run'\n")
    assert Path(copy.removesuffix(":read")).read_text() == "import helper\ndef read(x): ...\n"
    assert (Path(copy).parent / "helper.py").is_file()
    assert own_code(config) == {KEY: f"{tmp_path}/a/mine.py:read"}  # the settings of the run name the original


def test_moved_code_goes_on_and_changed_code_is_refused_by_setting_and_file(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    settle_config(folder, settings(folder.root, code(tmp_path / "a")))
    moved = settings(folder.root, code(tmp_path / "b"))
    assert run_folder_refusal(moved) == ""
    assert settle_config(folder, moved) == []
    assert read_config(folder)["data"]["recipe"]["sources"]["drawn_train"]["adapter"] == f"{tmp_path}/b/mine.py:read"
    assert settle_config(folder, moved) == []
    assert len(folder.config_changes.read_text().splitlines()) == 1

    (tmp_path / "b" / "helper.py").write_text("x = 2\n")
    said = rf"{KEY}: helper\.py of {tmp_path}/b/mine\.py:read changed.*allow_config_change=true"
    with pytest.raises(ResumeError, match=said):
        settle_config(folder, moved)
    assert KEY in run_folder_refusal(moved)
    for other in ("drawn", f"{tmp_path}/b/mine.py:x"):
        with pytest.raises((ResumeError, ConfigError), match=KEY):
            settle_config(folder, settings(folder.root, other))


def test_an_accepted_change_keeps_the_code_of_before(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    first = settings(folder.root, code(tmp_path / "a"))
    settle_config(folder, first)
    (tmp_path / "a" / "mine.py").write_text("def read(x): return 2\n")
    accepted = settings(folder.root, f"{tmp_path}/a/mine.py:read", allow_config_change=True)
    [told] = settle_config(folder, accepted)
    assert told.startswith("allow_config_change: from step 1 on")
    assert "mine.py" in told
    texts = {path.read_text() for path in folder.own_code_copies.glob("*/mine.py")}
    assert texts == {"import helper\ndef read(x): ...\n", "def read(x): return 2\n"}
    assert settle_config(folder, first) == []  # is what the run goes by now
    code(tmp_path / "a")
    with pytest.raises(ResumeError, match=KEY):
        settle_config(folder, first)


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    config = settings(folder.root, code(tmp_path / "a"))
    settle_config(folder, config)
    folder.own_code.write_text('{"a": ')
    with pytest.raises(ResumeError, match=r"own_code\.json is not whole"):
        settle_config(folder, config)


def test_a_run_is_evaluated_with_the_code_that_it_was_trained_with(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    settle_config(folder, settings(folder.root, code(tmp_path / "a")))
    (tmp_path / "a" / "mine.py").unlink()
    moved = RunFolder(folder.root.rename(tmp_path / "elsewhere"))
    values = settings_of_run(moved, json.loads(composed()))
    place = values["data"]["recipe"]["sources"]["drawn_train"]["adapter"]
    assert place.startswith(f"{tmp_path}/elsewhere/own_code/")
    check_own_code(build_settings(values))
