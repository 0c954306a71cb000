"""What a run survived, and what became of its positions, as tables of the report."""

import html
from collections import Counter, defaultdict

from orchestration.storage.faults import Fault, read_faults
from orchestration.storage.run_folder import RunFolder, read_json_lines


def faults_html(folder: RunFolder) -> str:
    """Faults by role with their commonest and latest causes; empty where there were none."""
    by_role: dict[str, list[Fault]] = defaultdict(list)
    for fault in read_faults(folder.faults):
        by_role[fault.role].append(fault)
    if not by_role:
        return ""
    rows = "".join(
        f"<tr><td>{role}</td><td>{len(found)}</td><td>{html.escape(_commonest(found))}</td>"
        f"<td>{html.escape(found[-1].cause)}</td></tr>"
        for role, found in sorted(by_role.items())
    )
    head = "<tr><th>what was lost</th><th>times</th><th>most often</th><th>the last cause</th></tr>"
    return f"<h2>Faults that the run survived</h2><table>{head}{rows}</table>"


def positions_html(folder: RunFolder) -> str:
    """How many positions of the prompt stream were trained on, replaced and dropped, with the commonest reasons."""
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    fates = ("trained", "replaced", "dropped")
    for entry in read_json_lines(folder.ledger, *fates):
        counts.update({fate: len(entry[fate]) for fate in fates})
        reasons.update(reason for _, reason in entry["dropped"])
    if not counts:
        return ""
    words = f"{counts['trained']} groups trained on, {counts['replaced']} replaced, {counts['dropped']} dropped"
    listed = "".join(f"<li>{count} x {html.escape(reason)}</li>" for reason, count in reasons.most_common(5))
    return f"<p>{words}.</p>" + (f"<ul>{listed}</ul>" if listed else "")


def _commonest(faults: list[Fault]) -> str:
    (index, count), *_ = Counter(fault.index for fault in faults).most_common(1)
    return f"number {index}, {count} times"
