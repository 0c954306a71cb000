"""A built dataset as one self-contained HTML page: mix, funnel, difficulty, lengths, licences, quotas, rows to see."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from orchestration.data.report.histograms import histogram_svg, stacked_bars_svg
from orchestration.data.report.sample_cards import cards
from orchestration.data.report.tally import REWARD_EDGES
from orchestration.page.curves import COLOURS
from orchestration.page.style import STYLE
from rollout.records import Sample

PAGE_STYLE = """
.plots { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 1.2rem; }
.short { color: #a8323e; font-weight: 600; }
details { margin: .4rem 0; }
td.text { white-space: normal; text-align: left; max-width: 40rem; overflow-wrap: anywhere; }
th.text { text-align: left; }
"""
NUM_VALUES = 12
"""Values of one property that a table lists; the rest is summed up."""
LENGTHS = {
    "prompt_tokens": "prompt tokens",
    "caption_words": "words of a caption",
    "box_area_frac": "share of the image in a box",
    "longer_side": "longer side of an image, pixels",
}
BALANCES = {
    "letter": "letter of the answer",
    "yes_no": "yes or no",
    "answer_type": "answer type",
    "stratum": "stratum",
    "boxes_per_row": "boxes of a row",
    "images_per_row": "images of a row",
}


def dataset_page(manifest: Mapping[str, Any], examples: Sequence[Sample]) -> str:
    """Give the page of a dataset; parts without numbers are left out.

    Args:
        manifest: As built, or read back from manifest.json.
        examples: Rows to show, with their images.
    """
    name = html.escape(manifest["recipe"]["name"])
    roles = manifest["result"]
    parts = [
        f"<h1>Dataset {name}</h1>{_headline(manifest)}",
        *(_mix(role, content) for role, content in sorted(roles.items(), reverse=True)),
        _quotas(manifest["quotas"]),
        _funnel(manifest),
        _rejections(manifest["rejected"]),
        _difficulty(manifest),
        *(_content(role, content) for role, content in sorted(roles.items(), reverse=True)),
        _licences(manifest),
        f"<h2>Rows</h2><p>Reference boxes in green.</p>{cards(examples)}" if examples else "",
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Dataset {name}</title>'
        f"<style>{STYLE}{PAGE_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _headline(manifest: Mapping[str, Any]) -> str:
    rows = ", ".join(f"{content['num_rows']:,} {role}" for role, content in sorted(manifest["result"].items()))
    found = manifest["deduplication"]
    code = manifest["code"]
    commit = f", commit {code['commit'][:12]}" if code["commit"] else ""
    text = (
        f"{rows or 'no'} rows in {len(manifest['shards'])} files. {sum(found['duplicates'].values()):,} duplicates and "
        f"{sum(found['leaks'].values()):,} leaks of evaluation sets were left out. Seed {manifest['recipe']['seed']}, "
        f"built by version {code['package']}{commit}."
    )
    return f"<p>{html.escape(text)}</p>"


def _mix(role: str, content: Mapping[str, Any]) -> str:
    return f"<h2>Mix of {html.escape(role)}</h2>{stacked_bars_svg(content['mix'])}"


def _quotas(quotas: Sequence[Mapping[str, Any]]) -> str:
    if not quotas:
        return ""
    rows = [
        [
            f"{quota['kind']} {quota['name']}",
            f"{quota['wished']:,}",
            f"{quota['found']:,}",
            _Html(f'<span class="short">{quota["missing"]:,}</span>') if quota["missing"] else "0",
        ]
        for quota in quotas
    ]
    return f"<h2>Quotas</h2>{_table(['quota', 'wished', 'found', 'missing'], rows)}"


def _funnel(manifest: Mapping[str, Any]) -> str:
    rows = []
    for entry in manifest["funnel"]:
        steps = {step["stage"]: step for step in entry["stages"]}
        first = f"{entry['stages'][0]['in']:,}" if entry["stages"] else "0"
        cells = [_after(steps.get(stage)) for stage in manifest["stages"]]
        rows.append([f"{entry['source']} ({entry['role']})", first, *cells])
    heads = ["source", "rows in", *(f"after {stage}" for stage in manifest["stages"])]
    return f"<h2>Funnel</h2>{_table(heads, rows)}"


def _after(step: Mapping[str, Any] | None) -> str:
    if step is None:
        return ""
    lost = step["in"] - step["out"]
    return f"{step['out']:,} (-{lost:,})" if lost else f"{step['out']:,}"


def _rejections(rejected: Sequence[Mapping[str, Any]]) -> str:
    if not rejected:
        return ""
    rows = []
    for entry in sorted(rejected, key=lambda entry: -entry["count"]):
        reason = f'<span title="{html.escape(entry["meaning"])}">{html.escape(entry["reason"])}</span>'
        examples = "".join(
            f"<code>{html.escape(e['source_id'])}: {html.escape(e['detail'])}<br>{html.escape(e['question'])}</code>"
            for e in entry["examples"]
        )
        details = f"<details><summary>{html.escape(entry['meaning'])}</summary>{examples}</details>"
        source = f"{entry['source']} ({entry['role']})"
        rows.append([source, entry["stage"], _Html(reason), f"{entry['count']:,}", _Html(details)])
    return f"<h2>Left out, and why</h2>{_table(['source', 'stage', 'reason', 'rows', 'examples'], rows, text=(4,))}"


def _difficulty(manifest: Mapping[str, Any]) -> str:
    plots = []
    for function, found in sorted(manifest["difficulty"].items()):
        before = found.get("before", {})
        for name, title in (("mean", "mean reward"), ("pass_rate", "share of right completions"), ("std", "deviation")):
            if name not in before:
                continue
            empty = {"edges": before[name]["edges"], "counts": [0] * len(before[name]["edges"])}
            plots.append(
                histogram_svg(
                    f"{function}: {title}",
                    found.get("after", {}).get(name, empty),
                    colour=COLOURS[function],
                    before=before[name],
                    band=_band(manifest["recipe"]["select"]["bands"].get(function), name),
                )
            )
    if not plots:
        return ""
    note = "<p>Rows of training before selection in grey, after it in colour; what the bands keep is shaded.</p>"
    return f'<h2>Difficulty</h2>{note}<div class="plots">{"".join(plots)}</div>'


def _band(settings: Mapping[str, Any] | None, name: str) -> tuple[float, float] | None:
    """Give what a band keeps of one statistic; the bins at the ends hold what is all wrong and all right."""
    if settings is None:
        return None
    if name == "std":
        return settings["min_std"], 1.0
    lowest = REWARD_EDGES[1] if settings["drop_all_wrong"] else 0.0
    highest = REWARD_EDGES[-1] if settings["drop_all_right"] else 1.0
    if name == "pass_rate":
        return lowest, highest
    return max(lowest, settings["min_mean"]), min(highest, settings["max_mean"])


def _content(role: str, content: Mapping[str, Any]) -> str:
    found = content["histograms"]
    plots = [histogram_svg(title, found[name]) for name, title in LENGTHS.items() if name in found]
    tables = [_shares(title, content["by"][name]) for name, title in BALANCES.items() if name in content["by"]]
    year = content["chart_year_frac"]
    years = f"<p>{year:.0%} of the chart rows ask for a year.</p>" if year is not None else ""
    return (
        f'<h2>Content of {html.escape(role)}</h2><div class="plots">{"".join(plots)}</div>{years}'
        f'<div class="plots">{"".join(tables)}</div>'
    )


def _shares(title: str, counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in ranked[NUM_VALUES:])
    listed = [*ranked[:NUM_VALUES], *([("others", rest)] if rest else [])]
    return _table([title, "rows", "share"], [[value, f"{n:,}", f"{n / total:.1%}"] for value, n in listed])


def _licences(manifest: Mapping[str, Any]) -> str:
    rows = [
        [name, facts["adapter"], facts["role"], str(len(facts["files"])), facts["license"], facts["license_note"]]
        for name, facts in sorted(manifest["sources"].items())
    ]
    heads = ["source", "adapter", "role", "files", "licence", "note"]
    return f"<h2>Sources and licences</h2>{_table(heads, rows, text=(4, 5))}" if rows else ""


class _Html(str):
    """Text that is HTML already; everything else is escaped."""

    __slots__ = ()


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, text: Sequence[int] = ()) -> str:
    head = _cells("th", heads, text)
    body = "".join(f"<tr>{_cells('td', row, text)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cells(kind: str, cells: Sequence[str], text: Sequence[int]) -> str:
    drawn = []
    for column, cell in enumerate(cells):
        style = ' class="text"' if column in text else ""
        drawn.append(f"<{kind}{style}>{cell if isinstance(cell, _Html) else html.escape(cell)}</{kind}>")
    return "".join(drawn)
