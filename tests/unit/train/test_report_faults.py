"""The report's tables of faults and positions."""

import json
from pathlib import Path

from orchestration.storage.faults import FaultLog, Role, read_faults
from orchestration.storage.run_folder import RunFolder
from orchestration.train.report_faults import faults_html, positions_html
from tests.unit.storage.fault_limits import fault_limits


def test_faults_are_read_back_counted_by_role_and_escaped(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert faults_html(folder) == ""
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
    page = faults_html(folder)
    assert "<td>engine</td><td>3</td><td>number 1, 2 times</td><td>no &lt;heartbeat&gt;</td>" in page
    assert "<td>reward</td><td>1</td>" in page


def test_positions_are_summed_up_with_the_reasons_of_those_that_were_dropped(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert positions_html(folder) == ""
    lines = [
        {"step": 0, "trained": [[0, "0-0", "a"], [2, "0-2", "c"]], "replaced": [[1, "0-1", "b"]], "dropped": []},
        {"step": 1, "trained": [[3, "0-3", "d"]], "replaced": [], "dropped": [[4, "too <long>"]]},
    ]
    folder.ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = positions_html(folder)
    assert "3 groups trained on, 1 replaced, 1 dropped." in page
    assert "1 x too &lt;long&gt;" in page
