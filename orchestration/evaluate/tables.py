"""Tables for a terminal of 120 columns: one evaluation, one preset, a comparison of two."""

from collections.abc import Mapping, Sequence

from orchestration.evaluate.benchmarks import PresetResult
from orchestration.evaluate.statistics import Estimate, PairedComparison
from orchestration.evaluate.summary import Block, Comparison, Summary
from orchestration.page.formatting import NO_NAME

WIDTH = 120
NAME_WIDTH = 34
ESTIMATE_WIDTH = 22
NUM_COLUMNS = 3
"""Estimates that fit beside name and counts."""


def summary_table(summary: Summary) -> str:
    """Return one line per task, source and function: task reward greedy and sampled, pass@k or format.

    Example:
        >>> from orchestration.evaluate.summary import summarise
        >>> print(summary_table(summarise([])).splitlines()[0])
        held-out samples                    rows failed
    """
    metrics = _shown_metrics(summary.overall)
    lines = [_row("held-out samples", ["rows", "failed"], metrics)]
    for title, blocks in (
        ("by task", summary.by_task),
        ("by source", summary.by_source),
        ("by reward function", summary.by_function),
    ):
        lines += ["", title]
        lines += [_block_row(f"  {name or NO_NAME}", block, metrics) for name, block in blocks.items()]
    lines += ["", _block_row("all rows", summary.overall, metrics)]
    if len(summary.by_task) > 1:
        lines.append(_row("mean over tasks", ["", ""], [_format(summary.macro.get(name)) for name in metrics]))
    lines += [f"failed {count}: {cause}"[:WIDTH] for cause, count in summary.failures.items()]
    return "\n".join(line.rstrip() for line in lines)


def preset_table(result: PresetResult) -> str:
    """Return one line per metric of a preset, and one block per group.

    Example:
        >>> print(preset_table(PresetResult(preset="pope", num_rows=1, num_skipped=2, num_failed=0, groups={},
        ...     metrics={"f1": Estimate(value=0.5, low=0.25, high=0.75, num_samples=1)})))
        pope: 1 rows scored, 2 of other tasks, 0 failed
          f1                                 0.500 [0.250, 0.750]
    """
    lines = [
        f"{result.preset}: {result.num_rows} rows scored, {result.num_skipped} of other tasks, "
        f"{result.num_failed} failed"
    ]
    lines += _metric_lines(result.metrics)
    for group, metrics in result.groups.items():
        lines += [f"{group} ({next(iter(metrics.values())).num_samples} rows)"[:WIDTH], *_metric_lines(metrics)]
    return "\n".join(lines)


def comparison_table(comparison: Comparison) -> str:
    """Return one line per task, source and function: before, after, change with interval, p-value.

    Example:
        >>> from orchestration.evaluate.statistics import paired_comparison
        >>> change = paired_comparison({"a": 0.0, "b": 0.5}, {"a": 1.0, "b": 0.5})
        >>> print(comparison_table(Comparison(metric="greedy/reward", overall=change, by_task={}, by_source={},
        ...                                   by_function={})))
        greedy/reward                       pairs  before   after   change           interval         p  adjusted
        <BLANKLINE>
        all rows                                2   0.250   0.750   +0.500   [+0.000, +1.000]     1.000
    """
    lines = [
        f"{comparison.metric:{NAME_WIDTH}}{'pairs':>7}{'before':>8}{'after':>8}{'change':>9}{'interval':>19}"
        f"{'p':>10}{'adjusted':>10}"
    ]
    for title, rows in (
        ("by task", comparison.by_task),
        ("by source", comparison.by_source),
        ("by reward function", comparison.by_function),
    ):
        if rows:
            lines += ["", title, *(_comparison_row(f"  {name or NO_NAME}", row) for name, row in rows.items())]
    lines += ["", _comparison_row("all rows", comparison.overall)]
    unmatched = comparison.overall.num_only_before + comparison.overall.num_only_after
    if unmatched:
        lines.append(
            f"left out: {comparison.overall.num_only_before} rows scored before only, "
            f"{comparison.overall.num_only_after} after only"
        )
    return "\n".join(line.rstrip() for line in lines)


def format_p_value(value: float) -> str:
    """Return a p-value with three decimals, or that it is smaller.

    Example:
        >>> format_p_value(0.0301), format_p_value(0.0001)
        ('0.030', '<0.001')
    """
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _shown_metrics(block: Block) -> list[str]:
    """Return the columns: task reward greedy and sampled, then the largest pass@k, else the format."""
    passes = [name for name in block.metrics if name.startswith("pass@")]
    wanted = ["greedy/task_reward", "sampled/task_reward", *passes[-1:], "greedy/format", "sampled/format"]
    return [name for name in wanted if name in block.metrics][:NUM_COLUMNS]


def _block_row(name: str, block: Block, metrics: Sequence[str]) -> str:
    counts = [str(block.num_samples), str(block.num_failed)]
    return _row(name, counts, [_format(block.metrics.get(metric)) for metric in metrics])


def _row(name: str, counts: Sequence[str], cells: Sequence[str]) -> str:
    return f"{_cut(name, NAME_WIDTH)}{counts[0]:>6}{counts[1]:>7}" + "".join(
        f"  {cell:>{ESTIMATE_WIDTH}}" for cell in cells
    )


def _comparison_row(name: str, row: PairedComparison) -> str:
    interval = f"[{row.difference.low:+.3f}, {row.difference.high:+.3f}]"
    adjusted = "" if row.adjusted_p_value is None else format_p_value(row.adjusted_p_value)
    return (
        f"{_cut(name, NAME_WIDTH)}{row.num_pairs:>7}{row.before:>8.3f}{row.after:>8.3f}{row.difference.value:>+9.3f}"
        f"{interval:>19}{format_p_value(row.p_value):>10}{adjusted:>10}"
    )


def _metric_lines(metrics: Mapping[str, Estimate]) -> list[str]:
    return [f"  {_cut(name, 35)}{_format(estimate)}" for name, estimate in metrics.items()]


def _format(estimate: Estimate | None) -> str:
    return "" if estimate is None else f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _cut(name: str, width: int) -> str:
    return f"{name if len(name) < width else name[: width - 4] + '...':{width}}"
