"""A run folder as one self-contained HTML page: scores, curves, and what the model saw and said."""

import html
from collections.abc import Sequence
from math import nan
from typing import Any

from orchestration.page.curves import curves_svg, held_out_svg
from orchestration.page.pictures import picture_svg
from orchestration.page.style import STYLE
from orchestration.storage.finished import read_before_after
from orchestration.storage.run_folder import RunFolder, read_config
from orchestration.train.report_faults import faults_html, positions_html
from orchestration.train.tracking import read_held_out, read_metrics


def write_report(folder: RunFolder) -> None:
    """Write report.html from what the run recorded; parts that are not there yet are left out."""
    before, after = read_before_after(folder)
    metrics, held_out = read_metrics(folder), read_held_out(folder)
    parts = [
        f"<h1>Mixed-R1 run</h1><p>{html.escape(folder.root.name)}, {len(metrics)} steps</p>",
        _scores(before, after),
        _held_out(held_out) if len(held_out) > 1 else "",
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


def _scores(before: dict[str, Any], after: dict[str, Any]) -> str:
    if not before or not after:
        return ""
    tables = [_score_table("reward function", before["families"], after["families"])]
    if len(after.get("sources", {})) > 1:
        tables.append(_score_table("source", before["sources"], after["sources"]))
    return (
        f"<h2>Held-out reward</h2>{''.join(tables)}"
        "<p>Sampled: mean over samples ± its standard error, at the training temperature.</p>"
    )


def _score_table(title: str, before: dict[str, Any], after: dict[str, Any]) -> str:
    rows = []
    for name, a in after.items():
        b = before.get(name)
        if b is None:
            continue
        rows.append(
            f"<tr><td>{html.escape(name)}</td><td>{a['num_samples']}</td>"
            f"<td>{b['sampled']:.3f} ± {b['sampled_se']:.3f}</td><td>{a['sampled']:.3f} ± {a['sampled_se']:.3f}</td>"
            f"{_change(a['sampled'] - b['sampled'])}<td>{b['greedy']:.3f}</td><td>{a['greedy']:.3f}</td>"
            f"{_change(a['greedy'] - b['greedy'])}<td>{b['format']:.2f}</td><td>{a['format']:.2f}</td></tr>"
        )
    return (
        f"<table><tr><th>{title}</th><th>samples</th><th>sampled, before</th>"
        "<th>sampled, after</th><th>change</th><th>greedy, before</th><th>greedy, after</th><th>change</th>"
        f"<th>format, before</th><th>format, after</th></tr>{''.join(rows)}</table>"
    )


def _held_out(records: Sequence[dict[str, float]]) -> str:
    """Held-out scores during the run, as curves and as a table with a line for every step that was scored."""
    kinds = ("sampled", "greedy")
    names = sorted({key.rpartition("/")[0] for record in records for key in record if key.rpartition("/")[2] in kinds})
    heads = "".join(f"<th>{html.escape(name.removeprefix('held_out/'))}</th>" for name in names)
    rows = []
    for record in records:
        cells = (" / ".join(f"{record.get(f'{name}/{kind}', nan):.3f}" for kind in kinds) for name in names)
        rows.append(f"<tr><td>{record['step']}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return (
        f"<h2>Held-out reward during the run</h2>{held_out_svg(records)}"
        f"<div class='scroll'><table><tr><th>after step</th>{heads}</tr>{''.join(rows)}</table></div>"
        "<p>Each cell: sampled / greedy.</p>"
    )


def _change(value: float) -> str:
    return f'<td class="{"up" if value > 0 else "down"}">{value:+.3f}</td>'


def _examples(title: str, evaluation: dict[str, Any], folder: RunFolder) -> str:
    if not evaluation.get("examples"):
        return ""
    coord_mode = read_config(folder)["model"]["coord_mode"]
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
