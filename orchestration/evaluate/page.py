"""HTML pages: an evaluation with its worst samples, and a comparison with its largest changes."""

from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup

from orchestration.evaluate.benchmarks import PresetResult
from orchestration.evaluate.statistics import Estimate, PairedComparison
from orchestration.evaluate.summary import Block, Comparison, Summary
from orchestration.page.figures import change_svg, data_uri, images_svg, render, share_svg
from orchestration.page.formatting import NO_NAME, p_value
from orchestration.workers.answers import EvaluatedSample, drawable_boxes, row_metrics, split_rows
from rewards.core.config import DEFAULT_FORMAT, FormatConfig
from rollout.records import ImageBytes

ImagesOf = Callable[[str], Sequence[ImageBytes]]
"""Returns the images of a sample by its id; called for the shown samples only."""

METRICS = ("task_reward", "reward", "format", "unreadable_frac", "truncated_frac", "num_tokens")
UNBOUNDED = ("num_tokens", "length_ratio")
"""Metrics that are not in [0, 1] and get no bar."""
SMALLEST_AXIS = 0.01
"""Least range of the axis, so that tiny changes are not drawn large."""


def evaluation_page(
    *,
    title: str,
    summary: Summary,
    preset: PresetResult | None,
    samples: Sequence[EvaluatedSample],
    image_of: ImagesOf,
    num_worst: int = 6,
    form: FormatConfig = DEFAULT_FORMAT,
) -> str:
    """Return the page of one evaluation: its tables, then the `num_worst` lowest scores of each reward function.

    `form` is that of the answers, from which boxes are drawn.
    """
    passes = [name for name in summary.overall.metrics if name.startswith("pass@")]
    wanted = [f"{kind}/{metric}" for kind in ("greedy", "sampled") for metric in METRICS] + passes
    metrics = [name for name in wanted if name in summary.overall.metrics]

    def block_rows(blocks: Mapping[str, Block]) -> list[list[object]]:
        return [
            [name or NO_NAME, block.num_samples, block.num_failed, *_cells(block.metrics, metrics)]
            for name, block in blocks.items()
        ]

    by_task = block_rows({**summary.by_task, "all rows": summary.overall})
    by_task.append(["mean over tasks", "", "", *_cells(summary.macro, metrics)])
    preset_tables = {} if preset is None else {"all rows": preset.metrics, **preset.groups}
    preset_metrics = list(dict.fromkeys(name for found in preset_tables.values() for name in found))
    return render(
        "evaluation.html",
        title=title,
        summary=summary,
        metrics=metrics,
        tables=[
            ("By task", by_task),
            ("By source", block_rows(summary.by_source)),
            ("By reward function", block_rows(summary.by_function)),
        ],
        preset=preset,
        preset_metrics=preset_metrics,
        preset_rows=[[group, *_cells(found, preset_metrics)] for group, found in preset_tables.items()],
        worst={
            name: [_shown(sample, image_of(sample.sample_id), form) for sample in rows]
            for name, rows in worst_samples(samples, num_worst).items()
        },
    )


def comparison_page(
    *,
    title: str,
    comparisons: Sequence[Comparison],
    before: Sequence[EvaluatedSample],
    after: Sequence[EvaluatedSample],
    image_of: ImagesOf,
    num_shown: int = 8,
    form: FormatConfig = DEFAULT_FORMAT,
) -> str:
    """Return the page of two evaluations: changes with intervals, then the `num_shown` largest losses and gains.

    Rows are matched by sample id.
    """
    changes = _changes(before, after)
    losses = [pair for change, *pair in changes if change < 0.0][:num_shown]
    gains = [pair for change, *pair in reversed(changes) if change > 0.0][:num_shown]
    return render(
        "comparison.html",
        title=title,
        comparisons=[_comparison(comparison) for comparison in comparisons],
        losses=[_shown_pair(pair, image_of, form) for pair in losses],
        gains=[_shown_pair(pair, image_of, form) for pair in gains],
    )


def worst_samples(samples: Sequence[EvaluatedSample], num_worst: int) -> dict[str, list[EvaluatedSample]]:
    """Return the scored rows with the lowest task reward (greedy if possible) of each reward function."""
    scored = [(value, sample) for sample in samples if (value := _score(sample)) is not None]
    scored.sort(key=lambda row: (row[0], row[1].sample_id))
    by_function = split_rows((sample for _, sample in scored), "function")
    return {name: rows[:num_worst] for name, rows in by_function.items()}


def _score(sample: EvaluatedSample) -> float | None:
    metrics = row_metrics(sample)
    return metrics.get("greedy/task_reward", metrics.get("sampled/task_reward"))


def _changes(
    before: Sequence[EvaluatedSample], after: Sequence[EvaluatedSample]
) -> list[tuple[float, EvaluatedSample, EvaluatedSample]]:
    """Return (change, earlier row, later row) of each sample that both sides scored, largest loss first."""
    old = {sample.sample_id: sample for sample in before}
    found = []
    for sample in after:
        earlier = old.get(sample.sample_id)
        start, end = None if earlier is None else _score(earlier), _score(sample)
        if earlier is not None and start is not None and end is not None:
            found.append((end - start, earlier, sample))
    return sorted(found, key=lambda change: (change[0], change[1].sample_id))


def _shown(sample: EvaluatedSample, images: Sequence[ImageBytes], form: FormatConfig) -> dict[str, object]:
    """Return a sample with its greedy (or first) completion, and its images with boxes."""
    completion = sample.greedy or next(iter(sample.sampled), None)
    request = sample.request("" if completion is None else completion.text)
    boxes = drawable_boxes(request, form) if sample.function == "grounding" else {}
    pictures = images_svg([(data_uri(image), image.size) for image in images], **boxes)
    return {"sample": sample, "completion": completion, "pictures": pictures}


def _shown_pair(pair: Sequence[EvaluatedSample], image_of: ImagesOf, form: FormatConfig) -> list[dict[str, object]]:
    images = image_of(pair[0].sample_id)
    return [_shown(sample, images, form) for sample in pair]


def _cells(found: Mapping[str, Estimate], names: Sequence[str]) -> list[str]:
    return [_cell(name, found[name]) if name in found else "" for name in names]


def _cell(name: str, estimate: Estimate) -> str:
    value, low, high = estimate.value, estimate.low, estimate.high
    if name.endswith(UNBOUNDED):
        return Markup('{:.1f}<br><span class="small">{:.1f} to {:.1f}</span>').format(value, low, high)
    text = Markup('{:.3f}<br><span class="small">{:.3f} to {:.3f}</span><br>{}')
    return text.format(value, low, high, share_svg(value, low, high))


def _comparison(comparison: Comparison) -> dict[str, object]:
    tables = {"task": comparison.by_task, "source": comparison.by_source, "function": comparison.by_function}
    rows = {f"{kind} {name or NO_NAME}": row for kind, table in tables.items() for name, row in table.items()}
    rows = {"all rows": comparison.overall, **rows}
    limit = max(SMALLEST_AXIS, *(abs(b) for row in rows.values() for b in (row.difference.low, row.difference.high)))
    return {
        "metric": comparison.metric,
        "num_left_out": comparison.overall.num_only_before + comparison.overall.num_only_after,
        "rows": [_comparison_row(name, row, limit) for name, row in rows.items()],
    }


def _comparison_row(name: str, row: PairedComparison, limit: float) -> list[object]:
    change = row.difference
    direction = "up" if change.low > 0.0 else "down" if change.high < 0.0 else "small"
    text = Markup('<span class="{}">{:+.3f}</span><br><span class="small">{:+.3f} to {:+.3f}</span><br>{}')
    figure = change_svg(change.value, change.low, change.high, limit)
    return [
        name,
        row.num_pairs,
        f"{row.before:.3f}",
        f"{row.after:.3f}",
        text.format(direction, change.value, change.low, change.high, figure),
        p_value(row.p_value),
        "" if row.adjusted_p_value is None else p_value(row.adjusted_p_value),
    ]
