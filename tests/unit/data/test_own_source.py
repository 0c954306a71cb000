"""A source of one's own: the example of the README through a whole build, changed code, and what is said of faults."""

import csv
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orchestration.data import sources
from orchestration.data.sources.own import OwnSource
from orchestration.data.sources.registry import describe, find_adapter
from orchestration.data.sources.rows import BadRow, RawRow
from orchestration.settings.errors import ConfigError, DataError
from orchestration.settings.recipe import SourceConfig
from rollout.dataset import SampleTable
from tests.tiny_models import make_tiny_model
from tests.unit.data.building import build, plan

README = (Path(sources.__path__[0]) / "README.md").read_text(encoding="utf-8").split("## A source of your own")[1]
EXAMPLE = README.split("```python\n")[1].split("```")[0]
ENTRY = README.split("```yaml\n")[1].split("```")[0].strip()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    make_tiny_model(folder, corpus=["how many in the year?"] * 3)
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a researcher: my_source.py and raw files, of which one row is too old and one bad."""
    (tmp_path / "my_source.py").write_text(EXAMPLE)
    raw = tmp_path / "reports"
    (raw / "pictures").mkdir(parents=True)
    with (raw / "train.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["id", "year", "question", "answer", "picture"])
        for number in range(6):
            pixels = np.random.default_rng(number).integers(0, 255, (56, 56, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(raw / "pictures" / f"{number}.png")
            lines.writerow([f"r{number}", 2019 + number, f"How many in chart {number}?", number + 3, f"{number}.png"])
        lines.writerow(["r9", 2024, "How many in the lost chart?", 4, "lost.png"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(model: Path, root: Path, *more: str) -> Any:
    name, _, entry = ENTRY.partition(": ")
    source = f"+data.recipe.sources.{name}={entry.replace(chr(34), '')}"
    return plan(model, root, f"model.path={model}", f"data.recipe.raw={root}", source, *more)


def rows_of(out: Path) -> dict[str, Any]:
    table = SampleTable(out / "train")
    samples = [table[index] for index in range(len(table))]
    return {sample.source_id: sample for sample in samples if sample.source == "reports"}


def test_the_example_of_the_readme_is_built(model: Path, folder: Path) -> None:
    build(planned(model, folder), is_tried=False)
    found = rows_of(folder / "out")
    assert sorted(found) == ["r1", "r2", "r3", "r4", "r5"], "r0 is older than min_year, r9 has no picture"
    assert (found["r2"].question, found["r2"].answer, found["r2"].task) == ("How many in chart 2?", "5", "chart")
    assert found["r2"].metadata == {"year": "2021"}
    assert found["r2"].images[0].data == (folder / "reports" / "pictures" / "2.png").read_bytes()
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    assert manifest["sources"]["reports"]["license"] == "ours"
    assert list(manifest["sources"]["reports"]["files"]) == ["train.csv"]
    reasons = Counter({row["reason"]: row["count"] for row in manifest["rejected"] if row["source"] == "reports"})
    assert reasons == {"image_missing": 1}


def test_changed_code_is_not_answered_from_the_cache_and_equal_code_is(model: Path, folder: Path) -> None:
    build(planned(model, folder), is_tried=False)
    first = planned(model, folder).key
    (folder / "my_source.py").write_text(EXAMPLE.replace('line["question"]', 'line["question"].upper()'))
    changed = planned(model, folder, f"data.recipe.out={folder / 'second'}")
    assert changed.key != first
    build(changed, is_tried=False)
    assert rows_of(folder / "second")["r2"].question == "HOW MANY IN CHART 2?"

    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "my_source.py").write_text(EXAMPLE)
    moved = "data.recipe.sources.reports.adapter=elsewhere/my_source.py:rows"
    assert planned(model, folder, moved).key == first, "where the file lies does not matter"
    (folder / "reports" / "train.csv").write_text("id,year,question,answer,picture\nr1,2022,How many?,7,1.png\n")
    assert planned(model, folder).key != first, "nor is a changed raw file answered from the cache"


def test_code_that_changes_while_a_build_runs_ends_it(model: Path, folder: Path) -> None:
    job = planned(model, folder)
    (folder / "my_source.py").write_text(EXAMPLE + "\n\n\nLATER = 1\n")
    with pytest.raises(DataError, match=r"sources.reports: .*my_source.py:rows has changed since the build began"):
        build(job, is_tried=False)


def test_a_fault_of_the_code_is_said_before_the_build_or_ends_it(model: Path, folder: Path) -> None:
    for change, said in (
        ("data.recipe.sources.reports.adapter=my_sorce.py:rows", r"reports.*adapter=.*my_sorce.py:rows: .* is no "
         r"file; did you mean my_source.py"),
        ("data.recipe.sources.reports.adapter=my_source.py:row", r"has no row; did you mean rows\?"),
        ("+data.recipe.sources.reports.options.max_year=1", r"sources.reports: adapter=.*my_source.py:rows cannot be "
         r"called with options min_year, max_year: got an unexpected keyword argument 'max_year'; it is called as"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            planned(model, folder, change)
    (folder / "my_source.py").write_text(EXAMPLE.replace('"answer": line["answer"]', '"answer": line["anwser"]'))
    with pytest.raises(
        DataError, match=r"sources.reports: adapter=.*my_source.py:rows failed after 0 rows: KeyError: 'anwser' "
        r"\(my_source.py, line 14\)"
    ):  # fmt: skip
        build(planned(model, folder), is_tried=False)
    shutil.rmtree(folder / "reports")
    with pytest.raises(DataError, match=r"reports: .*reports \(the folder does not exist\) holds no files"):
        planned(model, folder)


def read(folder: Path, code: str, path: str | None = None) -> list[RawRow | BadRow]:
    (folder / "some.py").write_text(code)
    adapter = find_adapter(f"{folder / 'some.py'}:rows")
    assert isinstance(adapter, OwnSource)
    config = SourceConfig(adapter="some.py:rows", path=path)
    root = folder / (path or "")
    return [row for part in adapter.parts(root, config) for row in adapter.rows(root, part, config)]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('{"question": "q", "anwser": 1, "task": "chart"}', "anwser is not a field of a row; did you mean answer?"),
        ('{"question": "q", "answer": 1}', "task is missing"),
        ('{"answer": 1, "task": "chart"}', "question is missing"),
        ('{"question": "q", "answer": {"a": 1}, "task": "chart"}', "answer is a dict; it should be a text or a number"),
        ('{"question": "q", "answer": 1, "task": "chart", "images": 7}', "images[0] is 7; it should be an image"),
        (
            '{"question": "q", "answer": 1, "task": "chart", "metadata": {"a": []}}',
            "metadata.a is a list; it should be",
        ),
        ('{"question": "q", "answer": 1, "task": "chart", "metadata": "a"}', "metadata is 'a'; it should be a dict of"),
        (
            '{"question": "q", "task": "iou", "boxes": [[1, 2, 3, 4]], "box_form": "corners"}',
            "box_form is 'corners'; it",
        ),
        ('"q"', "the row is 'q', no object with named fields"),
    ],
)
def test_a_bad_row_is_left_out_with_its_number_and_its_fault(row: str, said: str, tmp_path: Path) -> None:
    good = '{"question": "q", "answer": 1, "task": "chart"}'
    found = read(tmp_path, f"def rows(root, split):\n    yield {good}\n    yield {row}\n    yield {good}\n")
    assert [isinstance(one, RawRow) for one in found] == [True, False, True]
    assert isinstance(found[1], BadRow)
    assert found[1].source_id == "train/1"
    assert said in found[1].detail


def test_values_as_libraries_give_them_are_read(tmp_path: Path) -> None:
    code = """
import numpy as np
from PIL import Image

def rows(root, split):
    yield {"question": "q", "answer": np.float64(3.0), "task": "chart", "images": Image.new("RGB", (30, 40))}
    yield {"question": "q", "answer": "b", "task": "match_mcq", "options": np.array(["x", "y"]), "id": 7,
           "metadata": {"year": np.int64(2020)}}
    yield {"question": "q", "task": "iou", "boxes": np.array([[1, 2, 3, 4]]), "box_form": "xywh", "images": ["a.png"]}
"""
    first, second, third = read(tmp_path, code)
    assert isinstance(first, RawRow)
    assert first.answer == "3"
    assert first.images[0].data is not None
    assert first.images[0].data.startswith(b"\x89PNG")
    assert isinstance(second, RawRow)
    assert (second.source_id, second.options, second.metadata) == ("7", ("x", "y"), {"year": "2020"})
    assert isinstance(third, RawRow)
    assert third.boxes is not None
    assert (third.boxes[0].values, third.box_form, third.images[0].path) == ((1.0, 2.0, 3.0, 4.0), "xywh", "a.png")


def test_what_is_no_iterable_of_rows_ends_the_build(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="failed after 0 rows: TypeError: it returned NoneType; it must yield one dict"):
        read(tmp_path, "def rows(root, split):\n    pass\n")
    with pytest.raises(ConfigError, match="is a int; name a function rows"):
        read(tmp_path, "rows = 1\n")


@pytest.mark.parametrize("number", [0, 2])
def test_a_source_that_hangs_ends_the_build_with_the_number_of_its_row(number: int, tmp_path: Path) -> None:
    (tmp_path / "some.py").write_text(
        "import time\ndef rows(root, split):\n"
        f"    for _ in range({number}):\n        yield {{'question': 'q', 'answer': 1, 'task': 'chart'}}\n"
        "    time.sleep(600)\n"
    )
    adapter = find_adapter(f"{tmp_path / 'some.py'}:rows")
    config = SourceConfig(adapter="some.py:rows", timeout_s=0.02)
    [part] = adapter.parts(tmp_path, config)
    with pytest.raises(DataError, match=(
        rf"adapter=.*some\.py:rows hung after {number} rows: OutOfTimeError: no answer within 0\.02 s \(some\.py, "
        r"line 5\); correct the function, or raise the source's timeout_s"
    )):  # fmt: skip
        list(adapter.rows(tmp_path, part, config))


def test_root_is_none_without_a_path_and_pictures_are_no_files_of_the_key(tmp_path: Path) -> None:
    code = 'def rows(root, split):\n    yield {"question": str(root), "answer": 1, "task": split}\n'
    assert [row.question for row in read(tmp_path, code) if isinstance(row, RawRow)] == ["None"]
    raw = tmp_path / "raw"
    (raw / ".git").mkdir(parents=True)
    for name in ("a.csv", "b.PNG", ".git/c"):
        (raw / name).write_text("x")
    (part,) = find_adapter(f"{tmp_path / 'some.py'}:rows").parts(raw, SourceConfig(adapter="", path="raw"))
    assert [path.name for path in part.files] == ["a.csv"]


def test_the_list_of_sources_says_how_one_of_your_own_is_named() -> None:
    assert "FILE.py:NAME" in describe().splitlines()[-1]
