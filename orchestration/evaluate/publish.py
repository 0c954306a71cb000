"""Results of an evaluation: tables for a terminal, summary, pages, and files for other toolkits."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from orchestration.evaluate.benchmarks import Preset, PresetResult, apply_preset
from orchestration.evaluate.page import comparison_page, evaluation_page
from orchestration.evaluate.predictions import write_lmms_eval, write_vlmevalkit
from orchestration.evaluate.statistics import Estimate, PairedComparison, Resampling
from orchestration.evaluate.store import Manifest, write_json, write_whole
from orchestration.evaluate.summary import Block, Comparison, Summary, SummarySettings, compare, summarise
from orchestration.page.formatting import NO_NAME, p_value
from orchestration.settings.errors import DataError
from orchestration.settings.experiment import ExperimentConfig
from orchestration.workers.answers import EvaluatedSample
from orchestration.workers.collect import EvaluationRows
from orchestration.workers.judge_counts import judge_lines

WIDTH = 120
NAME_WIDTH = 34
ESTIMATE_WIDTH = 22
NUM_COLUMNS = 3
"""Columns of estimates that fit in WIDTH."""


def publish(
    config: ExperimentConfig,
    folder: Path,
    manifest: Manifest,
    dataset: EvaluationRows,
    samples: Sequence[EvaluatedSample],
    preset: Preset | None,
) -> None:
    """Write summary, page and the files for other toolkits into `folder`, and print the tables.

    Raises:
        DataError: The preset scored no row.
    """
    settings = summary_settings(config)
    summary = summarise(samples, settings)
    result = None if preset is None else apply_preset(preset, samples, settings, config.reward.format)
    values = {item.name: getattr(summary, item.name) for item in fields(summary)}
    write_json(folder / "summary.json", {**values, "preset": result})
    title = f"{Path(manifest.model).name} on {Path(manifest.data).name}"
    write_whole(
        folder / "page.html",
        evaluation_page(
            title=title,
            summary=summary,
            preset=result,
            samples=samples,
            image_of=dataset.images_of,
            num_worst=config.evaluate.num_worst,
            form=config.reward.format,
        ),
    )
    if config.evaluate.greedy:
        _write_for_toolkits(config, folder, samples)
    say(summary_table(summary))
    if result is not None:
        say("")
        say(preset_table(result))
        check_preset_scored(result)


def check_preset_scored(result: PresetResult) -> None:
    """Raise DataError where a preset scored no row."""
    if result.num_rows == 0:
        raise DataError(
            f"preset={result.preset} scored no row: {result.num_skipped} are of other tasks and {result.num_failed} "
            "failed; choose the preset of this data, or leave it out"
        )


def _write_for_toolkits(config: ExperimentConfig, folder: Path, samples: Sequence[EvaluatedSample]) -> None:
    boxes, form = config.evaluate.boxes, config.reward.format
    for source in sorted({sample.source for sample in samples}):
        rows = [sample for sample in samples if sample.source == source]
        name = source.replace("/", "-")
        write_vlmevalkit(folder / "vlmevalkit", rows, model="mixed-r1", dataset=name, boxes=boxes, form=form)
        if all(row.source_id.isdigit() for row in rows):  # lmms-eval finds rows only by their place in a split
            write_lmms_eval(folder / "lmms_eval", rows, model="mixed-r1", task=name, boxes=boxes, form=form)


def publish_comparison(
    config: ExperimentConfig,
    folder: Path,
    dataset: EvaluationRows,
    earlier: tuple[Manifest, list[EvaluatedSample]],
    later: tuple[Manifest, list[EvaluatedSample]],
) -> None:
    """Compare with an earlier evaluation of the same rows; write the comparison and print its tables."""
    comparisons = compare(earlier[1], later[1], settings=summary_settings(config), allow_unmatched=True)
    write_json(
        folder / "comparison.json",
        {"before": earlier[0].model, "after": later[0].model, "metrics": comparisons},
    )
    write_whole(
        folder / "comparison.html",
        comparison_page(
            title=f"{Path(earlier[0].model).name} and {Path(later[0].model).name} on {Path(later[0].data).name}",
            comparisons=comparisons,
            before=earlier[1],
            after=later[1],
            image_of=dataset.images_of,
            form=config.reward.format,
        ),
    )
    for comparison in comparisons:
        say("")
        say(comparison_table(comparison))


def summary_settings(config: ExperimentConfig) -> SummarySettings:
    """Return the settings of summaries, from those of the evaluation."""
    settings = config.evaluate
    return SummarySettings(
        pass_ks=settings.pass_ks if settings.num_completions else (),
        cluster_key=settings.cluster_key,
        resampling=Resampling(seed=config.seed, num_resamples=settings.num_resamples, level=settings.level),
    )


def list_files(folder: Path) -> None:
    """Print the paths of all files."""
    say("")
    for path in sorted(folder.glob("[!.]*")):
        say(f"{path}")


def say(line: str) -> None:
    """Print one line and flush."""
    print(line, flush=True)


def summary_table(summary: Summary) -> str:
    """Return one line per task, source and function: task reward greedy and sampled, pass@k or format; and costs.

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
    lines += judge_lines(summary.counts)
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
    adjusted = "" if row.adjusted_p_value is None else p_value(row.adjusted_p_value)
    return (
        f"{_cut(name, NAME_WIDTH)}{row.num_pairs:>7}{row.before:>8.3f}{row.after:>8.3f}{row.difference.value:>+9.3f}"
        f"{interval:>19}{p_value(row.p_value):>10}{adjusted:>10}"
    )


def _metric_lines(metrics: Mapping[str, Estimate]) -> list[str]:
    return [f"  {_cut(name, 35)}{_format(estimate)}" for name, estimate in metrics.items()]


def _format(estimate: Estimate | None) -> str:
    return "" if estimate is None else f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _cut(name: str, width: int) -> str:
    return f"{name if len(name) < width else name[: width - 4] + '...':{width}}"
