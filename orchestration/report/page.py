"""A run folder as one self-contained HTML page: scores, curves, and what the model saw and said."""

import html
import json
from typing import Any

from orchestration.persistence.state import RunFolder
from orchestration.report.curves import curves_svg
from orchestration.report.faults import faults_html, positions_html
from orchestration.report.pictures import picture_svg
from orchestration.report.style import STYLE
from orchestration.tracking import read_metrics


def write_report(folder: RunFolder) -> None:
    """Write report.html from what the run recorded; parts that are not there yet are left out."""
    before, after = (_evaluation(folder, name) for name in ("before", "after"))
    metrics = read_metrics(folder)
    parts = [
        f"<h1>Mixed-R1 run</h1><p>{html.escape(folder.root.name)}, {len(metrics)} steps</p>",
        _scores(before, after),
        f"<h2>Training</h2>{curves_svg(metrics)}{positions_html(folder)}" if metrics else "",
        faults_html(folder),
        _examples("Held-out completions after training", after, folder),
        _examples("The same samples before training", before, folder),
    ]
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Mixed-R1 {html.escape(folder.root.name)}</title>'
        f"<style>{STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )
    partial = folder.report.with_name(folder.report.name + ".partial")
    partial.write_text(page)
    partial.replace(folder.report)


def _evaluation(folder: RunFolder, name: str) -> dict[str, Any]:
    path = folder.evaluation(name)
    return json.loads(path.read_text()) if path.is_file() else {}


def _scores(before: dict[str, Any], after: dict[str, Any]) -> str:
    if not before or not after:
        return ""
    rows = []
    for family, a in after["families"].items():
        b = before["families"].get(family)
        if b is None:
            continue
        rows.append(
            f"<tr><td>{family}</td><td>{a['num_samples']}</td>"
            f"<td>{b['sampled']:.3f} ± {b['sampled_se']:.3f}</td><td>{a['sampled']:.3f} ± {a['sampled_se']:.3f}</td>"
            f"{_change(a['sampled'] - b['sampled'])}<td>{b['greedy']:.3f}</td><td>{a['greedy']:.3f}</td>"
            f"{_change(a['greedy'] - b['greedy'])}<td>{b['format']:.2f}</td><td>{a['format']:.2f}</td></tr>"
        )
    return (
        "<h2>Held-out reward</h2><table><tr><th>reward function</th><th>samples</th><th>sampled, before</th>"
        "<th>sampled, after</th><th>change</th><th>greedy, before</th><th>greedy, after</th><th>change</th>"
        f"<th>format, before</th><th>format, after</th></tr>{''.join(rows)}</table>"
        "<p>Sampled: mean over samples ± its standard error, at the training temperature.</p>"
    )


def _change(value: float) -> str:
    return f'<td class="{"up" if value > 0 else "down"}">{value:+.3f}</td>'


def _examples(title: str, evaluation: dict[str, Any], folder: RunFolder) -> str:
    if not evaluation.get("examples"):
        return ""
    coord_mode = json.loads(folder.config.read_text())["model"]["coord_mode"]
    cards = [_card(example, coord_mode) for example in evaluation["examples"]]
    legend = "<p>Boxes: the reference in green, the model's greedy answer in red.</p>"
    return f'<h2>{title}</h2>{legend}<div class="cards">{"".join(cards)}</div>'


def _card(example: dict[str, Any], coord_mode: str) -> str:
    pictures = "".join(picture_svg(image, example, coord_mode=coord_mode) for image in example["images"])
    sampled = "".join(
        f"<code>{html.escape(text)}</code><span class='tag'>sampled, reward {reward:.2f}</span>"
        for text, reward in zip(example["sampled"][:2], example["sampled_rewards"][:2], strict=True)
    )
    return (
        f'<div class="card">{pictures}<p class="tag">{html.escape(example["task"])} · '
        f"{html.escape(example['sample_id'][:16])}</p><b>{html.escape(example['question'])}</b>"
        f"<div>reference: {html.escape(example['answer'])}</div><code>{html.escape(example['greedy'])}</code>"
        f"<span class='tag'>greedy, reward {example['greedy_reward']:.2f}</span>{sampled}</div>"
    )
