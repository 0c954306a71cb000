"""Which changes of the code make rows anew: those of a stage's rules, and nothing else."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from orchestration.data import stages as rules

NO_RULES = {
    "orchestration/data/__init__.py": "holds nothing",
    "orchestration/data/build.py": "calls one stage after the other",
    "orchestration/data/look.py": "shows rows before anything is built",
    "orchestration/data/losses.py": "tells what was written",
    "orchestration/data/manifest.py": "states what was written",
    "orchestration/data/own_files.py": "makes sources of a recipe, whose keys hold them",
    "orchestration/data/page.py": "shows what was written",
    "orchestration/data/plan.py": "makes the keys",
    "orchestration/data/stages.py": "makes the keys and hands chunks to workers",
}


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the code that keys are made of, under which nothing is remembered."""
    for room in ("conf", "orchestration", "rewards", "rollout"):
        shutil.copytree(rules.ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(rules, "ROOT", tmp_path)
    return tmp_path


def keys() -> dict[str, str]:
    rules.stage_code.cache_clear()
    rules._code.cache_clear()
    return {stage: rules.stage_code(stage) for stage in rules.STAGES}


def changed(before: dict[str, str]) -> set[str]:
    after = keys()
    return {stage for stage in after if after[stage] != before[stage]}


@pytest.fixture(autouse=True)
def forget():
    yield
    rules.stage_code.cache_clear()
    rules._code.cache_clear()


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_every_module_that_a_row_passes_through_is_a_rule_of_some_stage():
    ruled = {path for stage in rules.STAGES for path in rules.stage_files(stage)}
    for path in (rules.ROOT / "orchestration" / "data").rglob("*.py"):
        name = str(path.relative_to(rules.ROOT))
        assert (path in ruled) != (name in NO_RULES), name


@pytest.mark.parametrize(
    ("file", "old", "new", "stages"),
    [
        ("orchestration/data/validate.py", '!= "guard"', '== "train"', {"validate"}),
        ("orchestration/data/normalise.py", '== "guard"', '!= "train"', {"normalise"}),
        ("orchestration/data/sources/rows.py", "EXCERPT_CHARS = 200", "EXCERPT_CHARS = 100", set(rules.STAGES)),
        ("rewards/text/yes_no.py", "def read_yes_no(", "def read_yes_or_no(", {"normalise", "sample"}),
        ("orchestration/data/select.py", "import bisect", "import bisect, math", {"select"}),
        ("orchestration/data/sources/json_files.py", 'row.text("question_string")', 'row.text("question")', {"read"}),
        ("orchestration/data/sources/formats.yaml", "question: query", "question: question", {"read"}),
    ],
)
def test_a_changed_rule_makes_the_rows_of_its_stages_anew(copy, file, old, new, stages):
    before = keys()
    edit(copy / file, old, new)
    assert changed(before) == stages


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("orchestration/data/validate.py", '"""Stage 2, ', '"""The second stage, '),
        ("rewards/text/yes_no.py", '"""', '"""In other words. '),
        ("rewards/text/yes_no.py", "\nfrom", "\n# Why.\nfrom"),
        ("orchestration/data/sources/formats.yaml", "Reads ChartQA", "Reads the ChartQA"),
        ("orchestration/cluster/layout.py", "import", "import os\nimport"),
        ("orchestration/data/stages.py", "import", "import os\nimport"),
    ],
)
def test_words_and_what_only_moves_rows_make_nothing_anew(copy, file, old, new):
    before = keys()
    edit(copy / file, old, new)
    assert changed(before) == set()


def test_a_version_that_is_raised_makes_the_rows_of_its_stage_anew(monkeypatch):
    before = keys()
    raised = dataclasses.replace(rules.STAGES["measure"], version=rules.STAGES["measure"].version + 1)
    monkeypatch.setitem(rules.STAGES, "measure", raised)
    assert changed(before) == {"measure"}


def test_another_release_of_a_library_makes_rows_anew_where_it_decides_them(monkeypatch):
    before = keys()
    real = rules._installed
    monkeypatch.setattr(rules, "_installed", lambda library: "9" if library == "math-verify" else real(library))
    assert changed(before) == {"normalise", "sample"}
