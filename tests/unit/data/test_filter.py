"""Filters of one's own: the example of the README through a whole build, what is counted, and what is refused."""

import json
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestration import data
from orchestration.data.filter import RowFilter
from orchestration.data.manifest import MAX_SAID, Tally, rejection_lines
from orchestration.data.page import dataset_page
from orchestration.data.sources.rows import Refused, Rejected, RejectReason
from orchestration.settings.errors import ConfigError, DataError
from orchestration.settings.recipe import FilterConfig
from rollout.dataset import SampleTable
from tests.tiny_models import make_tiny_model
from tests.unit.data.building import build, content, plan
from tests.unit.data.built_dataset import candidate, filled_tally, manifest

README = (Path(data.__path__[0]) / "README.md").read_text(encoding="utf-8").split("## A filter of your own")[1]
EXAMPLE = README.split("```python\n")[1].split("```")[0]
ENTRY = README.split("```yaml\n")[1].split("```")[0].partition("worth: ")[2].strip().replace('"', "")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    make_tiny_model(folder, corpus=["where is the red oval?"] * 3)
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_filter.py").write_text(EXAMPLE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(model: Path, root: Path, *more: str, entry: str = ENTRY) -> Any:
    return plan(model, root, f"+data.recipe.filters={{worth: {entry}}}", *more)


def rejected(root: Path) -> dict[str, int]:
    rows = json.loads((root / "manifest.json").read_text())["rejected"]
    found: Counter[str] = Counter()
    for row in rows:
        if row["stage"] == "filter":
            found[row["reason"]] += row["count"]
    return found


def questions(root: Path, role: str) -> list[str]:
    table = SampleTable(root / role)
    return [table[index].question for index in range(len(table))]


def test_the_example_of_the_readme_leaves_rows_out_and_counts_them(model: Path, folder: Path) -> None:
    build(plan(model, folder, f"data.recipe.out={folder / 'all'}"), is_tried=False)
    few = [question for question in questions(folder / "all", "train") if len(question.split()) < 6]
    assert few, "some drawn questions are short"

    entry = ENTRY.replace("min_words: 4", "min_words: 6")
    build(planned(model, folder, entry=entry), is_tried=False)
    assert sorted(questions(folder / "out", "train") + few) == sorted(questions(folder / "all", "train"))
    assert questions(folder / "out", "held_out") == questions(folder / "all", "held_out"), "only train rows are asked"
    assert rejected(folder / "out") == {"left_out/worth/few words": len(few)}
    lines = [line for line in rejection_lines(folder / "out") if "few words" in line]
    assert lines
    assert all(
        "at filter, left_out/worth/few words (a filter of the recipe leaves the row out)" in line for line in lines
    )
    assert "left_out/worth/few words" in (folder / "out" / "page.html").read_text()
    steps = json.loads((folder / "out" / "manifest.json").read_text())["stages"]
    assert steps[2:5] == ["normalise", "filter", "deduplicate"]
    assert "filter" not in json.loads((folder / "all" / "manifest.json").read_text())["stages"]


def test_changed_code_is_not_answered_from_the_cache_and_equal_code_is(model: Path, folder: Path) -> None:
    build(planned(model, folder), is_tried=False)
    first = planned(model, folder)
    (folder / "my_filter.py").write_text(
        EXAMPLE.replace('"few words"', '"hardly any words"').replace("< min", "< 2 + min")
    )
    changed = planned(model, folder, f"data.recipe.out={folder / 'second'}")
    assert changed.key != first.key
    build(changed, is_tried=False)
    assert set(rejected(folder / "second")) == {"left_out/worth/hardly any words"}

    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "my_filter.py").write_text(EXAMPLE)
    moved = planned(model, folder, entry=ENTRY.replace("my_filter", "elsewhere/my_filter"))
    assert moved.key == first.key, "where the file lies does not matter"
    assert planned(model, folder, entry=ENTRY.replace("4", "5")).key != first.key


def test_code_that_changes_while_a_build_runs_ends_it(model: Path, folder: Path) -> None:
    job = planned(model, folder)
    (folder / "my_filter.py").write_text(EXAMPLE + "\n\n\nLATER = 1\n")
    with pytest.raises(
        DataError, match=r"code of data.recipe.filters has changed since the build began; start it again"
    ):
        build(job, is_tried=False)


def test_a_filter_that_raises_leaves_its_rows_out_with_the_line_that_raised(model: Path, folder: Path) -> None:
    code = "def keep(row):\n    if row.task == 'chart':\n        raise KeyError('colour')\n    return True\n"
    (folder / "my_filter.py").write_text(code)
    build(planned(model, folder, entry="{path: 'my_filter.py:keep'}"), is_tried=False)
    (reason,) = rejected(folder / "out")
    assert reason == "filter_failed/worth/KeyError: 'colour' (my_filter.py, line 3)"
    assert questions(folder / "out", "train")

    (folder / "my_filter.py").write_text("def keep(row):\n    return row.answr\n")
    second = planned(model, folder, f"data.recipe.out={folder / 'none'}", entry="{path: 'my_filter.py:keep'}")
    said = (
        r"filter_failed/worth/AttributeError: 'Candidate' object has no attribute 'answr'.* \(filter\) x \d+; such as"
    )
    with pytest.raises(
        DataError, match=rf"no training row is left; most were rejected for {said} .*: worth: Attribute"
    ):
        build(second, is_tried=False)


def test_without_filters_nothing_of_a_dataset_speaks_of_them(model: Path, tmp_path: Path) -> None:
    build(plan(model, tmp_path), is_tried=False)
    assert b"filter" not in content(tmp_path / "out")["manifest.json"]


def loaded(folder: Path, code: str, **settings: Any) -> RowFilter:
    (folder / "some.py").write_text(code)
    return RowFilter("mine", FilterConfig(path=f"{folder / 'some.py'}:keep", **settings))


def unread() -> list[bytes]:
    raise AssertionError("images are read for a function that does not ask for them")


@pytest.mark.parametrize(
    ("answer", "reason", "said"),
    [
        ("False", "left_out", "mine"),
        ("(False, 'too  dark\\n')", "left_out", "mine/too dark"),
        ("(False, 'x' * 200)", "left_out", f"mine/{'x' * 80}"),
        ("None", "filter_failed", "mine/returned None; it must be True, False or (bool, reason)"),
        ("1", "filter_failed", "mine/returned 1; it must be True, False or (bool, reason)"),
        ("(False, 3)", "filter_failed", "mine/returned (False, 3); it must be True, False or (bool, reason)"),
        ("exit('no')", "filter_failed", "mine/SystemExit: no (some.py, line 2)"),
        ("1 / 0", "filter_failed", "mine/ZeroDivisionError: division by zero (some.py, line 2)"),
    ],
)
def test_what_a_filter_answers_is_counted_as_what_it_is(answer: str, reason: str, said: str, tmp_path: Path) -> None:
    one = loaded(tmp_path, f"def keep(row):\n    return {answer}\n")
    with pytest.raises(Refused) as caught:
        one.check(candidate("chart", "3"), unread)
    assert (caught.value.reason.value, caught.value.said) == (reason, said)


@pytest.mark.parametrize("hang", ["time.sleep(600)", "swallow()"])
def test_a_filter_that_hangs_ends_the_stage_with_its_row_and_its_line(hang: str, tmp_path: Path) -> None:
    code = f"""
import time
def swallow():
    while True:
        try:
            time.sleep(600)
        except Exception:
            pass
def keep(row):
    return {hang}
"""
    one = loaded(tmp_path, code, timeout_s=0.01)
    with pytest.raises(DataError, match=(
        r"filters\.mine: .*some\.py:keep was asked about row .* of .*: OutOfTimeError: no answer within 0\.01 s "
        r"\(some\.py, line \d+\); correct the function, or raise data\.recipe\.filters\.mine\.timeout_s"
    )):  # fmt: skip
        one.check(candidate("chart", "3"), unread)
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_time_limit_is_no_part_of_what_is_built(model: Path, folder: Path) -> None:
    longer = "+data.recipe.filters.worth.timeout_s=9", "+data.recipe.sources.demo.timeout_s=9"
    assert planned(model, folder, *longer).key == planned(model, folder).key


@pytest.mark.parametrize("answer", ["True", "(True, 'fine')", "np.bool_(True)"])
def test_a_row_that_a_filter_keeps_stays(answer: str, tmp_path: Path) -> None:
    loaded(tmp_path, f"import numpy as np\ndef keep(row):\n    return {answer}\n").check(
        candidate("chart", "3"), unread
    )


def test_roles_and_images_are_given_on_request(tmp_path: Path) -> None:
    code = "def keep(row, images, size):\n    return False, f'{row.role} {len(images[0])} {size}'\n"
    one = loaded(tmp_path, code, parameters={"size": 2}, roles=("held_out",))
    one.check(candidate("chart", "3"), unread)
    with pytest.raises(Refused, match="left_out: mine: held_out 5 2"):
        one.check(candidate("chart", "3", role="held_out"), lambda: [b"bytes"])


@pytest.mark.parametrize(
    ("code", "settings", "said"),
    [
        ("def kept(row): pass", {}, r"data.recipe.filters.mine.path=.* has no keep; did you mean kept\?"),
        ("keep = 1", {}, r"is a int; name a function keep\(row"),
        (
            "def keep(row, size): pass",
            {},
            r"cannot be called with parameters \(none\): missing a required argument: 'size'",
        ),
        (
            "def keep(row): pass",
            {"parameters": {"size": 1}},
            r"with parameters size: got an unexpected keyword argument",
        ),
        ("import no_such_module_5", {}, r"cannot be imported: ModuleNotFoundError at"),
    ],
)
def test_a_fault_is_said_before_anything_is_read(code: str, settings: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        loaded(tmp_path, code + "\n", **settings)


def test_a_filter_of_the_recipe_is_checked_by_the_plan(model: Path, folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"filters.worth.path=.*my_filtr.py:keep: .*did you mean my_filter.py\?"):
        planned(model, folder, entry="{path: 'my_filtr.py:keep'}")
    with pytest.raises(ConfigError, match=r"data.recipe.filters.worth.roles"):
        planned(model, folder, entry="{path: 'my_filter.py:keep', roles: [guard]}")


def test_many_reasons_of_a_filter_are_summed_and_the_funnel_still_adds_up() -> None:
    def more(add: Callable[[Tally], None]) -> dict[str, Any]:
        tally = filled_tally()
        add(tally)
        return manifest(tally)

    def add(tally: Tally) -> None:
        for number in range(MAX_SAID + 5):
            for stage in ("read", "deduplicate"):
                tally.enter(stage, "train", "charts/human")
            tally.reject(
                Rejected(
                    stage="deduplicate", source="charts/human", source_id=f"s{number:02d}", role="train",
                    reason=RejectReason.LEFT_OUT, detail="d", question="q", said=f"mine/{number:02d}",
                )
            )  # fmt: skip

    found = more(add)
    rows = {row["reason"]: row for row in found["rejected"] if row["reason"].startswith("left_out")}
    assert len(rows) == MAX_SAID + 1
    assert rows["left_out/mine/other reasons"]["count"] == 5
    assert [example["source_id"] for example in rows["left_out/mine/other reasons"]["examples"]] == [
        "s20",
        "s21",
        "s22",
    ]
    assert "left_out/mine/other reasons" in dataset_page(found, [])
