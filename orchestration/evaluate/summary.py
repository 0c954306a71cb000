"""Scores of one evaluation with intervals, and the change between two: overall and by task, source and function."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestration.evaluate.statistics import (
    Estimate,
    PairedComparison,
    Ratio,
    Resampling,
    estimate_macro_mean,
    estimate_ratios,
    holm,
    paired_comparison,
)
from orchestration.settings.errors import DataError
from orchestration.workers.answers import EvaluatedSample, Part, row_metrics, split_rows
from orchestration.workers.judge_counts import sum_counts

DEFAULT_METRICS = ("greedy/task_reward", "sampled/task_reward")
MACRO_METRICS = ("greedy/task_reward", "greedy/reward", "sampled/task_reward", "sampled/reward")
PARTS: tuple[Part, ...] = ("task", "source", "function")
NUM_FAILURES_NAMED = 20
Columns = Mapping[str, float]
"""Values of a row by name, from which metrics are computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SummarySettings:
    """Settings of a summary."""

    pass_ks: tuple[int, ...] = (1,)
    """Each k of pass@k; rows with fewer graded completions than k are not counted in it."""
    cluster_key: str = ""
    """Metadata key of clusters, rows with equal values (such as questions about one image); empty for none."""
    resampling: Resampling = field(default_factory=Resampling)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Scores of one set of rows."""

    num_samples: int
    """Rows, including failed ones."""
    num_failed: int
    metrics: Mapping[str, Estimate]
    """By name; a metric that no row has is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Scores of one evaluation."""

    overall: Block
    macro: Mapping[str, Estimate]
    """Mean over tasks of the task's mean."""
    by_task: Mapping[str, Block]
    by_source: Mapping[str, Block]
    by_function: Mapping[str, Block]
    reasons: Mapping[str, int]
    """Counts of the reward's reasons, greedy and sampled together."""
    failures: Mapping[str, int]
    """Counts of the most frequent causes of failed rows."""
    counts: Mapping[str, float]
    """What judges were asked and what it cost, by name of a metric; empty without a judge."""


def summarise(samples: Sequence[EvaluatedSample], settings: SummarySettings | None = None) -> Summary:
    """Summarise the rows of one evaluation; failed rows are counted, but not part of any mean."""
    settings = settings or SummarySettings()
    parts = {name: split_rows(samples, name) for name in PARTS}
    blocks = {name: {group: _block(rows, settings) for group, rows in groups.items()} for name, groups in parts.items()}
    completions = [c for sample in samples for c in (*([sample.greedy] if sample.greedy else []), *sample.sampled)]
    failures = Counter(sample.failure for sample in samples if sample.failure is not None)
    return Summary(
        overall=_block(samples, settings),
        macro=_macro(parts["task"], settings),
        by_task=blocks["task"],
        by_source=blocks["source"],
        by_function=blocks["function"],
        reasons=dict(sorted(Counter(completion.reason for completion in completions).items())),
        failures=dict(failures.most_common(NUM_FAILURES_NAMED)),
        counts=sum_counts(sample.counts for sample in samples),
    )


def _block(samples: Sequence[EvaluatedSample], settings: SummarySettings) -> Block:
    rows = [(sample, metrics) for sample in samples if (metrics := row_metrics(sample, settings.pass_ks))]
    # A row counts in the denominators of the metrics that it has.
    columns = [(sample, {**metrics, **{f"has {name}": 1.0 for name in metrics}}) for sample, metrics in rows]
    ratios = {
        name: Ratio(numerator={name: 1.0}, denominator={f"has {name}": 1.0}, is_share=not name.endswith("num_tokens"))
        for name in dict.fromkeys(name for _, metrics in rows for name in metrics)
    }
    return Block(
        num_samples=len(samples),
        num_failed=len(samples) - len(rows),
        metrics=estimate_rows(ratios, columns, settings),
    )


def estimate_rows(
    metrics: Mapping[str, Ratio], rows: Sequence[tuple[EvaluatedSample, Columns]], settings: SummarySettings
) -> dict[str, Estimate]:
    """Return the metrics of rows from their columns; empty without rows."""
    if not rows:
        return {}
    clusters = clusters_of([sample for sample, _ in rows], settings.cluster_key)
    columns = [columns for _, columns in rows]
    return estimate_ratios(metrics, columns, clusters=clusters, resampling=settings.resampling)


def clusters_of(samples: Sequence[EvaluatedSample], key: str) -> list[str] | None:
    """Return the cluster of each row: its metadata under `key`, or the row itself; None without a key."""
    if not key:
        return None
    # The prefixes distinguish a row's own id from a cluster of the same name.
    return [
        f"shared {sample.metadata[key]}" if key in sample.metadata else f"row {sample.sample_id}" for sample in samples
    ]


def _macro(tasks: Mapping[str, Sequence[EvaluatedSample]], settings: SummarySettings) -> dict[str, Estimate]:
    found = {}
    for name in MACRO_METRICS:
        values: dict[str, list[float]] = {}
        clusters: dict[str, list[str]] = {}
        for task, samples in tasks.items():
            rows = [(sample, metrics[name]) for sample in samples if name in (metrics := row_metrics(sample))]
            if rows:
                values[task] = [value for _, value in rows]
            if labels := clusters_of([sample for sample, _ in rows], settings.cluster_key):
                clusters[task] = labels
        if values:
            found[name] = estimate_macro_mean(values, clusters=clusters or None, resampling=settings.resampling)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The change of one metric.

    p-values of each table (by task, by source, by function) carry Holm's correction over the rows of that table; the
    overall one has none.
    """

    metric: str
    """Name as in a summary."""
    overall: PairedComparison
    by_task: Mapping[str, PairedComparison]
    by_source: Mapping[str, PairedComparison]
    by_function: Mapping[str, PairedComparison]


def compare(
    before: Sequence[EvaluatedSample],
    after: Sequence[EvaluatedSample],
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    settings: SummarySettings | None = None,
    allow_unmatched: bool = False,
) -> list[Comparison]:
    """Compare two evaluations of the same rows; a metric that one side lacks is omitted.

    Args:
        before: Rows of one evaluation.
        after: Rows of the other, matched by sample id.
        metrics: Names as in a summary.
        settings: None takes the defaults.
        allow_unmatched: Compare the rows that both have a score for, instead of refusing.

    Raises:
        DataError: The rows differ in id, question or reference, or in which of them have a score.
    """
    settings = settings or SummarySettings()
    rows = _matched_rows(before, after)
    found = []
    for metric in metrics:
        old, new = (_values(side, metric, settings) for side in (before, after))
        if old and new:
            found.append(_comparison(metric, rows, old, new, settings, allow_unmatched))
    return found


def _comparison(
    metric: str,
    rows: Mapping[str, EvaluatedSample],
    old: Mapping[str, float],
    new: Mapping[str, float],
    settings: SummarySettings,
    allow_unmatched: bool,
) -> Comparison:
    labels = clusters_of(list(rows.values()), settings.cluster_key)
    clusters = None if labels is None else dict(zip(rows, labels, strict=True))

    def pair(names: Sequence[str]) -> PairedComparison:
        return paired_comparison(
            {name: old[name] for name in names if name in old},
            {name: new[name] for name in names if name in new},
            clusters=clusters,
            allow_unmatched=allow_unmatched,
            resampling=settings.resampling,
        )

    def table(part: Part) -> dict[str, PairedComparison]:
        groups = {group: [row.sample_id for row in split] for group, split in split_rows(rows.values(), part).items()}
        pairs = {
            group: pair(names) for group, names in groups.items() if any(name in old and name in new for name in names)
        }
        adjusted = holm([row.p_value for row in pairs.values()])
        return {
            group: replace(row, adjusted_p_value=value)
            for (group, row), value in zip(pairs.items(), adjusted, strict=True)
        }

    return Comparison(
        metric=metric,
        overall=pair(list(rows)),
        by_task=table("task"),
        by_source=table("source"),
        by_function=table("function"),
    )


def _matched_rows(before: Sequence[EvaluatedSample], after: Sequence[EvaluatedSample]) -> dict[str, EvaluatedSample]:
    """Return the rows of both sides by id; raise DataError if an id is used for different questions."""
    found: dict[str, EvaluatedSample] = {}
    for side, rows in (("before", before), ("after", after)):
        if len({row.sample_id for row in rows}) < len(rows):
            raise DataError(f"the evaluation {side} has a sample id twice; ids must be unique")
        for row in rows:
            other = found.setdefault(row.sample_id, row)
            if any(getattr(row, name) != getattr(other, name) for name in ("question", "answer", "options", "task")):
                raise DataError(
                    f"sample {row.sample_id} has another question or reference after than before; compare evaluations "
                    "of the same data"
                )
    return found


def _values(rows: Sequence[EvaluatedSample], metric: str, settings: SummarySettings) -> dict[str, float]:
    metrics = {row.sample_id: row_metrics(row, settings.pass_ks) for row in rows}
    return {name: values[metric] for name, values in metrics.items() if metric in values}
