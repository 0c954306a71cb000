"""Self-contained HTML pages: one evaluation with its worst samples, two evaluations with their largest changes."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from orchestration.evaluate.cards import ImagesOf, escape, pair_card, sample_card
from orchestration.evaluate.compare import Comparison
from orchestration.evaluate.paired import PairedComparison
from orchestration.evaluate.presets.base import PresetResult
from orchestration.evaluate.presets.statistics import Estimate
from orchestration.evaluate.summary import Block, Summary
from orchestration.evaluate.table import spell_p_value
from orchestration.evaluate.whiskers import change_svg, share_svg
from orchestration.page.style import STYLE
from orchestration.workers.answers import EvaluatedSample, row_metrics

METRICS = ("task_reward", "reward", "format", "unreadable_frac", "truncated_frac", "num_tokens")
UNBOUNDED = ("num_tokens", "length_ratio")
"""Metrics that are no share and get no bar."""
SMALLEST_AXIS = 0.01
"""Changes below it are not drawn large."""
LEGEND = "<p>Boxes: the reference in green, the model's in red, in original pixels.</p>"


def evaluation_page(
    *,
    title: str,
    summary: Summary,
    preset: PresetResult | None,
    samples: Sequence[EvaluatedSample],
    image_of: ImagesOf,
    num_worst: int = 6,
) -> str:
    """Give the page of one evaluation.

    Args:
        title: Heading, for instance checkpoint and dataset.
        summary: Of these samples.
        preset: Table of a benchmark, if one was asked for.
        samples: All rows.
        image_of: Gives images by sample id; asked for the shown samples alone.
        num_worst: Samples shown of each reward function, lowest score first.
    """
    overall = summary.overall
    failures = "".join(f"<li>{count}: {escape(cause)}</li>" for cause, count in summary.failures.items())
    reasons = ", ".join(f"{escape(name)} {count}" for name, count in summary.reasons.items())
    parts = [
        f"<h1>{escape(title)}</h1><p>{overall.num_samples} rows, {overall.num_failed} without a score. "
        f"Answers by how they were read: {reasons or 'none'}.</p>",
        f"<ul>{failures}</ul>" if failures else "",
        "" if preset is None else _preset_section(preset),
        *_summary_sections(summary),
        *_worst_sections(samples, image_of, num_worst),
    ]
    return _document(title, parts)


def comparison_page(
    *,
    title: str,
    comparisons: Sequence[Comparison],
    before: Sequence[EvaluatedSample],
    after: Sequence[EvaluatedSample],
    image_of: ImagesOf,
    num_shown: int = 8,
) -> str:
    """Give the page of two evaluations: changes with intervals, then the largest losses and gains.

    Args:
        title: Heading.
        comparisons: One per metric.
        before: Rows of one side.
        after: Rows of the other, matched by sample id.
        image_of: Gives images by sample id; asked for the shown samples alone.
        num_shown: Samples of each list.
    """
    changes = _changes(before, after)
    losses = [pair for change, pair in changes if change < 0.0][:num_shown]
    gains = [pair for change, pair in reversed(changes) if change > 0.0][:num_shown]
    parts = [f"<h1>{escape(title)}</h1>", *map(_comparison_section, comparisons)]
    for heading, pairs in (("Largest losses", losses), ("Largest gains", gains)):
        if pairs:
            cards = "".join(pair_card(old, new, image_of) for old, new in pairs)
            parts.append(f'<h2>{heading}</h2>{LEGEND}<div class="cards wide">{cards}</div>')
    return _document(title, parts)


def worst_samples(samples: Sequence[EvaluatedSample], num_worst: int) -> dict[str, list[EvaluatedSample]]:
    """Give the scored rows with the lowest task reward of each reward function, greedy if there is a greedy one."""
    scored: dict[str, list[tuple[float, str, EvaluatedSample]]] = defaultdict(list)
    for sample in samples:
        value = _score(sample)
        if value is not None:
            scored[sample.function].append((value, sample.sample_id, sample))
    return {
        name: [sample for _, _, sample in sorted(scored[name], key=lambda row: row[:2])[:num_worst]]
        for name in sorted(scored)
    }


def _score(sample: EvaluatedSample) -> float | None:
    metrics = row_metrics(sample)
    return metrics.get("greedy/task_reward", metrics.get("sampled/task_reward"))


def _changes(
    before: Sequence[EvaluatedSample], after: Sequence[EvaluatedSample]
) -> list[tuple[float, tuple[EvaluatedSample, EvaluatedSample]]]:
    """Give the pairs that both sides scored, largest loss first."""
    old = {sample.sample_id: sample for sample in before}
    found = []
    for sample in after:
        earlier = old.get(sample.sample_id)
        start, end = None if earlier is None else _score(earlier), _score(sample)
        if earlier is not None and start is not None and end is not None:
            found.append((end - start, (earlier, sample)))
    return sorted(found, key=lambda change: (change[0], change[1][0].sample_id))


def _summary_sections(summary: Summary) -> list[str]:
    passes = [name for name in summary.overall.metrics if name.startswith("pass@")]
    wanted = [f"{kind}/{metric}" for kind in ("greedy", "sampled") for metric in METRICS] + passes
    metrics = [name for name in wanted if name in summary.overall.metrics]
    tables = (
        ("By task", summary.by_task, True),
        ("By source", summary.by_source, False),
        ("By reward function", summary.by_function, False),
    )
    sections = []
    for title, blocks, has_totals in tables:
        rows = "".join(_block_row(name, block, metrics) for name, block in blocks.items())
        if has_totals:
            rows += _block_row("all rows", summary.overall, metrics)
            cells = "".join(_cell(name, summary.macro.get(name)) for name in metrics)
            rows += f"<tr><td>mean over tasks</td><td></td><td></td>{cells}</tr>"
        header = "".join(map(_heading, ("rows", "failed", *metrics)))
        sections.append(f'<h2>{title}</h2><div class="scroll"><table><tr><th></th>{header}</tr>{rows}</table></div>')
    return sections


def _block_row(name: str, block: Block, metrics: Sequence[str]) -> str:
    cells = "".join(_cell(metric, block.metrics.get(metric)) for metric in metrics)
    return f"<tr><td>{escape(name)}</td><td>{block.num_samples}</td><td>{block.num_failed}</td>{cells}</tr>"


def _heading(name: str) -> str:
    """Give a heading that may break behind its slash."""
    return f"<th>{escape(name).replace('/', '/<wbr>')}</th>"


def _cell(metric: str, estimate: Estimate | None) -> str:
    if estimate is None:
        return "<td></td>"
    if metric.endswith(UNBOUNDED):
        return f'<td>{estimate.value:.1f}<br><span class="small">{estimate.low:.1f} to {estimate.high:.1f}</span></td>'
    interval = f'<span class="small">{estimate.low:.3f} to {estimate.high:.3f}</span>'
    return f"<td>{estimate.value:.3f}<br>{interval}<br>{share_svg(estimate)}</td>"


def _preset_section(result: PresetResult) -> str:
    tables: dict[str, Mapping[str, Estimate]] = {"all rows": result.metrics, **result.groups}
    names = list(dict.fromkeys(name for metrics in tables.values() for name in metrics))
    header = "".join(map(_heading, names))
    rows = "".join(
        f"<tr><td>{escape(group)}</td>{''.join(_cell(name, metrics.get(name)) for name in names)}</tr>"
        for group, metrics in tables.items()
    )
    return (
        f"<h2>Benchmark {escape(result.preset)}</h2><p>{result.num_rows} rows scored, {result.num_skipped} of other "
        f'tasks, {result.num_failed} failed.</p><div class="scroll"><table><tr><th></th>{header}</tr>{rows}'
        "</table></div>"
    )


def _worst_sections(samples: Sequence[EvaluatedSample], image_of: ImagesOf, num_worst: int) -> list[str]:
    return [
        f"<h2>Lowest scores: {escape(name)}</h2>{LEGEND if name == 'grounding' else ''}"
        f'<div class="cards">{"".join(sample_card(sample, image_of) for sample in rows)}</div>'
        for name, rows in worst_samples(samples, num_worst).items()
        if rows
    ]


def _comparison_section(comparison: Comparison) -> str:
    tables = {"task": comparison.by_task, "source": comparison.by_source, "function": comparison.by_function}
    named = {f"{kind} {name}": row for kind, table in tables.items() for name, row in table.items()}
    named = {"all rows": comparison.overall, **named}
    limit = max(SMALLEST_AXIS, *(abs(b) for row in named.values() for b in (row.difference.low, row.difference.high)))
    rows = "".join(_comparison_row(name, row, limit) for name, row in named.items())
    left_out = comparison.overall.num_only_before + comparison.overall.num_only_after
    note = f" {left_out} rows that one side lacks are left out." if left_out else ""
    return (
        f"<h2>{escape(comparison.metric)}</h2><p>Interval: bootstrap over rows. p: paired sign-flip test, two-sided; "
        f'adjusted: Holm over the rows of one kind.{note}</p><div class="scroll"><table><tr><th></th><th>pairs</th>'
        f"<th>before</th><th>after</th><th>change</th><th>p</th><th>adjusted</th></tr>{rows}</table></div>"
    )


def _comparison_row(name: str, row: PairedComparison, limit: float) -> str:
    change = row.difference
    direction = "up" if change.low > 0.0 else "down" if change.high < 0.0 else "small"
    adjusted = "" if row.adjusted_p_value is None else escape(spell_p_value(row.adjusted_p_value))
    return (
        f"<tr><td>{escape(name)}</td><td>{row.num_pairs}</td><td>{row.before:.3f}</td><td>{row.after:.3f}</td>"
        f'<td><span class="{direction}">{change.value:+.3f}</span><br><span class="small">{change.low:+.3f} to '
        f"{change.high:+.3f}</span><br>{change_svg(change, limit)}</td><td>{escape(spell_p_value(row.p_value))}</td>"
        f"<td>{adjusted}</td></tr>"
    )


def _document(title: str, parts: Sequence[str]) -> str:
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )
