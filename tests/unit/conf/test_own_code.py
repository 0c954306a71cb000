"""Code of the user: found, loaded, and digested with what it imports from beside it."""

import os
import sys
from pathlib import Path

import pytest

from conf.own_code import OwnCodeError, check_own, digest_of, files_of, is_own, load_own, root_of


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def test_a_name_in_a_file_or_a_module(tmp_path: Path) -> None:
    write(tmp_path, mine="def score(x):\n    return 2 * x\nclass Many:\n    one = 1\n")
    assert load_own("k", f"{tmp_path}/mine.py:score")(3) == 6
    assert load_own("k", f"{tmp_path}/mine.py:Many.one") == 1
    assert load_own("k", "json:dumps")([1]) == "[1]"
    assert is_own("a.py:b")
    assert not is_own("chart")


def test_a_path_counts_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, mine="value = 5\n")
    monkeypatch.chdir(tmp_path)
    assert load_own("k", "mine.py:value") == 5


def test_two_files_of_one_name_stay_apart_and_hide_no_module(tmp_path: Path) -> None:
    write(tmp_path / "a", json="value = 1\n")
    write(tmp_path / "b", json="value = 2\n")
    assert load_own("k", f"{tmp_path}/a/json.py:value") == 1
    assert load_own("k", f"{tmp_path}/b/json.py:value") == 2
    assert load_own("k", "json:dumps")(1) == "1"


def test_a_file_imports_what_lies_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    write(tmp_path, top="from beside_7 import value\n", beside_7="value = 7\n")
    assert load_own("k", f"{tmp_path}/top.py:value") == 7


def test_a_changed_file_is_loaded_anew_with_what_it_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    write(tmp_path, top="from beside_8 import value\n", beside_8="value = 8\n")
    assert load_own("k", f"{tmp_path}/top.py:value") == 8
    write(tmp_path, beside_8="value = 'changed'\n")
    assert load_own("k", f"{tmp_path}/top.py:value") == "changed"


def test_a_change_of_equal_size_within_one_second_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    for top, beside in ((1, 2), (3, 2), (3, 4)):
        write(tmp_path, top_9=f"from beside_9 import value\npair = ({top}, value)\n", beside_9=f"value = {beside}\n")
        for file in tmp_path.glob("*.py"):
            os.utime(file, (1_000_000_000, 1_000_000_000))
        assert load_own("k", f"{tmp_path}/top_9.py:pair") == (top, beside)


def test_a_dataclass_can_be_declared(tmp_path: Path) -> None:
    imports = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    write(tmp_path, mine=f"{imports}@dataclass\nclass A:\n    x: int\n")
    assert load_own("k", f"{tmp_path}/mine.py:A")(x=1).x == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mine.py:scor", "has no scor; did you mean score?"),
        ("min.py:score", "is no file; did you mean mine.py?"),
        ("elsewhere/x.py:score", "is no file; correct the path; it counts from the working folder"),
        ("mine.py", "names no code; write FILE.py:NAME or PACKAGE.MODULE:NAME"),
        ("mine.py:", "names no code"),
        ("http://x/y:score", "names no code"),
        ("no_such_module_9:score", "cannot import no_such_module_9 from Python files; install the package"),
        ("raises.py:score", "ZeroDivisionError at {folder}/raises.py:2: division by zero"),
        ("broken.py:score", "SyntaxError at {folder}/broken.py:1"),
    ],
)
def test_what_is_wrong_is_said_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    write(tmp_path, mine="def score():\n    pass\n", raises="x = 1\ny = x / 0\n", broken="def (:\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OwnCodeError) as caught:
        load_own("reward.functions.mine", text)
    assert str(caught.value).startswith(f"reward.functions.mine={text}")
    assert said.format(folder=tmp_path) in str(caught.value)


def test_a_check_refuses_what_loading_would_refuse_and_executes_nothing(tmp_path: Path) -> None:
    code = "def score():\n    inside = 1\n    global later\n    later = 2\nclass Many:\n    one = 1\n1 / 0\n"
    write(tmp_path, mine=code, dotted="from .mine import score\n")
    for name in ("score", "later", "Many", "Many.one"):
        check_own("k", f"{tmp_path}/mine.py:{name}")
    for name in ("inside", "one"):
        with pytest.raises(OwnCodeError, match=f"has no {name}"):
            check_own("k", f"{tmp_path}/mine.py:{name}")
    with pytest.raises(OwnCodeError, match=r"line 1 imports by a dot.*PACKAGE\.MODULE:NAME"):
        check_own("k", f"{tmp_path}/dotted.py:score")


def test_a_file_that_raised_is_read_again(tmp_path: Path) -> None:
    write(tmp_path, mine="1 / 0\n")
    with pytest.raises(OwnCodeError):
        load_own("k", f"{tmp_path}/mine.py:value")
    write(tmp_path, mine="value = 3\n")
    assert load_own("k", f"{tmp_path}/mine.py:value") == 3


def test_its_files_are_those_it_imports_from_beside_it(tmp_path: Path) -> None:
    write(tmp_path, mine="import json, helper\nfrom pack.deep import x\n", helper="import other\n", other="", unused="")
    (tmp_path / "pack").mkdir()
    write(tmp_path / "pack", deep="from . import near\nx = 1\n", near="", far="")
    (tmp_path / "pack" / "__init__.py").write_text("")
    names = {str(path.relative_to(tmp_path)) for path in files_of("k", f"{tmp_path}/mine.py:value")}
    assert names == {"mine.py", "helper.py", "other.py", "pack/__init__.py", "pack/deep.py", "pack/near.py"}


def test_a_module_has_the_files_of_its_own_package_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "own_package_3"
    package.mkdir()
    write(package, score="import json\nfrom own_package_3.rules import rule\nimport beside\n", rules="rule = 1\n")
    (package / "__init__.py").write_text("")
    write(tmp_path, beside="")
    monkeypatch.syspath_prepend(str(tmp_path))
    names = {path.name for path in files_of("k", "own_package_3.score:rule")}
    assert names == {"score.py", "__init__.py", "rules.py"}


def test_the_digest_follows_the_code_and_not_the_place(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write(tmp_path / folder, mine="import helper\ndef score(): pass\ndef other(): pass\n", helper="x = 1\n")
    first = digest_of("k", f"{tmp_path}/a/mine.py:score")
    assert digest_of("k", f"{tmp_path}/b/mine.py:score") == first
    assert digest_of("k", f"{tmp_path}/a/mine.py:other") != first
    write(tmp_path / "b", helper="x = 2\n")
    assert digest_of("k", f"{tmp_path}/b/mine.py:score") != first


def test_data_that_code_finds_beside_itself_belongs_to_it(tmp_path: Path) -> None:
    mine = (
        "import os\nfrom pathlib import Path\nPROMPT = Path(__file__).parent / 'prompts' / 'rubric.txt'\n"
        "NAMES = os.path.join(os.path.dirname(__file__), 'prompts', 'names.txt')\nname = 'words.txt'\n"
    )
    write(tmp_path, mine=mine, plain="name = 'words.txt'\n")
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "rubric.txt").write_text("Say yes or no.")
    (tmp_path / "prompts" / "names.txt").write_text("a")
    (tmp_path / "words.txt").write_text("yes")
    (tmp_path / "unnamed.txt").write_text("")
    names = {str(path.relative_to(tmp_path)) for path in files_of("k", f"{tmp_path}/mine.py:name")}
    assert names == {"mine.py", "prompts/rubric.txt", "prompts/names.txt", "words.txt"}
    assert files_of("k", f"{tmp_path}/plain.py:name") == [tmp_path / "plain.py"]  # perhaps a file that it writes
    before = digest_of("k", f"{tmp_path}/mine.py:name")
    (tmp_path / "prompts" / "rubric.txt").write_text("Say true or false.")
    assert digest_of("k", f"{tmp_path}/mine.py:name") != before


def test_names_are_imported_from_the_folder_of_a_file_or_of_the_topmost_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "own_package_4"
    package.mkdir()
    write(package, score="")
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert root_of("k", f"{package}/score.py:value") == package
    assert root_of("k", "own_package_4.score:value") == tmp_path
