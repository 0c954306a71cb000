"""The script of a first device: whatever a check does, the others run and the table says what became of each."""

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.gpu import first_device
from tests.gpu.first_device import CHECKS, PYTEST, Check, main, run_checks, table


def python(name: str, program: str, limit_s: float = 30.0) -> Check:
    return Check(name=name, command=(sys.executable, "-c", program), limit_s=limit_s)


def test_a_check_that_fails_crashes_or_hangs_costs_that_check_alone() -> None:
    outcomes = run_checks(
        [
            python("wrong", "raise ValueError('3 wrong')"),
            python("crash", "import os; os.abort()"),
            python("hang", "print('began', flush=True); import threading; threading.Event().wait()", limit_s=1.0),
            python("good", "print('found: 7 tensors')"),
        ],
        seconds=100.0,
    )
    assert [outcome.result for outcome in outcomes] == [
        "failed: ValueError: 3 wrong",
        "failed: no output",
        "time limit of 1 s; last line: began",
        "ok",
    ]
    assert [outcome.is_good for outcome in outcomes] == [False, False, False, True]
    lines = table(outcomes).splitlines()
    assert lines[1] == "| check | result | s |"
    assert lines[6].startswith("| good | ok | ")
    assert lines[-1] == "good: 7 tensors"


def test_a_check_for_which_no_time_is_left_is_not_run() -> None:
    [outcome] = run_checks([python("late", "print(1)")], seconds=0.0)
    assert (outcome.result, outcome.is_good) == ("not run: no time left", False)


def test_a_test_that_lacks_a_package_is_skipped_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "test_it.py"
    file.write_text("import pytest\n@pytest.mark.gpu\ndef test_it():\n    pytest.importorskip('no_such_package')\n")
    command = (*PYTEST, "-c", "pyproject.toml", "--rootdir", str(tmp_path), str(file))
    [outcome] = run_checks([Check(name="it", command=command, limit_s=60.0)], seconds=60.0)
    assert outcome.result.startswith("skipped: could not import 'no_such_package'")
    assert outcome.is_good


def test_without_a_gpu_it_says_so_and_fails(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_device, "PAYLOAD", tmp_path)
    assert main(["1"]) == 1
    assert capsys.readouterr().out == "no GPU here: torch sees none; nothing was checked\n"


class Collected:
    """Names of all tests below tests/gpu."""

    names: tuple[str, ...] = ()

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        self.names = tuple(item.nodeid for item in items)


@pytest.mark.slow  # it imports all that tests of a GPU import
def test_every_check_selects_tests_and_every_test_of_a_gpu_is_selected() -> None:
    collected = Collected()
    options = ["--collect-only", "-qqq", "-m", "gpu", "-p", "no:faulthandler", "-p", "no:cacheprovider", "--no-summary"]
    pytest.main([*options, str(Path(first_device.__file__).parent)], plugins=[collected])
    left = set(collected.names)
    for check in (check for checks in CHECKS.values() for check in checks if "pytest" in check.command):
        file, _, words = check.command[-3:]
        chosen = {
            name for name in collected.names if file in name and all(word in name for word in words.split(" and "))
        }
        assert chosen, check.name
        left -= chosen
    assert left == set()
