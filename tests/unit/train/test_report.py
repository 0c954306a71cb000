"""The report of a run: its faults, its positions, and boxes where the reward reads them."""

import json
import re
from pathlib import Path

import pytest

from orchestration.page.figures import MODEL_COLOUR, REFERENCE_COLOUR
from orchestration.storage.faults import FaultLog, Role, read_faults
from orchestration.storage.run_folder import RunFolder
from orchestration.train.report import write_report
from tests.unit.storage.fault_limits import fault_limits


def page_of(folder: RunFolder) -> str:
    write_report(folder)
    return folder.report.read_text()


def test_faults_are_counted_by_role_and_escaped(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert "Faults" not in page_of(folder)
    log = FaultLog(fault_limits(), folder.faults)
    for index, cause in ((1, "died"), (0, "died"), (1, "no <heartbeat>")):
        log.record(Role.ENGINE, index, cause)
    log.record(Role.REWARD, 0, "died")
    folder.faults.write_text(folder.faults.read_text() + '{"role": "eng')
    assert [(fault.role, fault.index) for fault in read_faults(folder.faults)] == [
        ("engine", 1),
        ("engine", 0),
        ("engine", 1),
        ("reward", 0),
    ]

    page = page_of(folder)

    row = '<td>engine</td><td>3</td><td>number 1, 2 times</td><td class="text">no &lt;heartbeat&gt;</td>'
    assert row in page
    assert "<td>reward</td><td>1</td>" in page


def test_positions_are_counted_with_the_reasons_of_those_that_were_dropped(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.metrics.write_text('{"step": 0, "reward/mean": 0.5}\n')
    assert "groups trained on" not in page_of(folder)
    lines = [
        {"step": 0, "trained": [[0, "0-0", "a"], [2, "0-2", "c"]], "replaced": [[1, "0-1", "b"]], "dropped": []},
        {"step": 1, "trained": [[3, "0-3", "d"]], "replaced": [], "dropped": [[4, "too <long>"]]},
    ]
    folder.ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))

    page = page_of(folder)

    assert "3 groups trained on, 1 replaced, 1 dropped." in page
    assert "1 x too &lt;long&gt;" in page


@pytest.mark.parametrize(
    ("coord_mode", "answer"),
    [
        ("pixel", "[50, 20, 100, 60]"),
        ("pixel_resized", "[28, 14, 56, 42]"),
        ("norm1000", "[250, 200, 500, 600]"),
        ("norm1", "[0.25, 0.2, 0.5, 0.6]"),
    ],
)
def test_a_box_of_every_frame_is_drawn_in_pixels_of_the_image(tmp_path: Path, coord_mode: str, answer: str) -> None:
    folder = RunFolder(tmp_path)
    folder.config.write_text(json.dumps({"model": {"coord_mode": coord_mode}}))
    example = {
        "sample_id": "7f",
        "family": "grounding",
        "task": "iou",
        "question": "Where is <it>?",
        "answer": '[{"bbox_2d": [0, 0, 9, 9], "label": "it"}]',
        "images": [{"width": 200, "height": 100, "input_width": 112, "input_height": 70, "data": "data:"}],
        "greedy": f"<answer>{answer}</answer>",
        "greedy_reward": 1.0,
        "sampled": ["one", "two", "three"],
        "sampled_rewards": [0.5, 0.25, 0.0],
    }
    folder.evaluation("after").write_text(json.dumps({"rows": "r", "examples": [example]}))

    page = page_of(folder)

    assert "Where is &lt;it&gt;?" in page
    assert "three" not in page
    for colour, box in ((MODEL_COLOUR, [50.0, 20.0, 50.0, 40.0]), (REFERENCE_COLOUR, [0.0, 0.0, 9.0, 9.0])):
        drawn = next(rect for rect in re.findall("<rect [^>]*>", page) if colour in rect)
        numbers = [float(value) for value in re.findall(r' (?:x|y|width|height)="([0-9.]+)"', drawn)]
        assert numbers == pytest.approx(box)
