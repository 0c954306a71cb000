"""Before and after, row by row: the change of one metric overall and by task, source and function."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from orchestration.evaluate.paired import PairedComparison, holm, paired_comparison
from orchestration.evaluate.presets.base import clusters_of
from orchestration.evaluate.summary import PARTS, SummarySettings
from orchestration.settings.errors import DataError
from orchestration.workers.answers import EvaluatedSample, row_metrics

DEFAULT_METRICS = ("greedy/task_reward", "sampled/task_reward")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The change of one metric.

    p-values of each table (by task, by source, by function) carry Holm's correction over the rows of that table; the
    overall one stands alone.
    """

    metric: str
    """Name as in a summary."""
    overall: PairedComparison
    by_task: Mapping[str, PairedComparison]
    by_source: Mapping[str, PairedComparison]
    by_function: Mapping[str, PairedComparison]

    def to_json(self) -> dict[str, object]:
        """As plain values."""
        return {
            "metric": self.metric,
            "overall": self.overall.to_json(),
            "by_task": {name: row.to_json() for name, row in self.by_task.items()},
            "by_source": {name: row.to_json() for name, row in self.by_source.items()},
            "by_function": {name: row.to_json() for name, row in self.by_function.items()},
        }


def compare(
    before: Sequence[EvaluatedSample],
    after: Sequence[EvaluatedSample],
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    settings: SummarySettings | None = None,
    allow_unmatched: bool = False,
) -> list[Comparison]:
    """Compare two evaluations of the same rows; a metric that either side lacks altogether is left out.

    Args:
        before: Rows of one evaluation.
        after: Rows of the other, matched by sample id.
        metrics: Names as in a summary.
        settings: pass@k, clusters, resampling.
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

    def table(key: Callable[[EvaluatedSample], str]) -> dict[str, PairedComparison]:
        groups = {group: [name for name, row in rows.items() if key(row) == group] for group in map(key, rows.values())}
        pairs = {
            group: pair(groups[group])
            for group in sorted(groups)
            if any(name in old and name in new for name in groups[group])
        }
        adjusted = holm([row.p_value for row in pairs.values()])
        return {
            group: replace(row, adjusted_p_value=value)
            for (group, row), value in zip(pairs.items(), adjusted, strict=True)
        }

    return Comparison(
        metric=metric,
        overall=pair(list(rows)),
        by_task=table(PARTS["task"]),
        by_source=table(PARTS["source"]),
        by_function=table(PARTS["function"]),
    )


def _matched_rows(before: Sequence[EvaluatedSample], after: Sequence[EvaluatedSample]) -> dict[str, EvaluatedSample]:
    """Give all rows by id, those of both sides once.

    Raises:
        DataError: An id occurs twice on one side, or names different questions.
    """
    found: dict[str, EvaluatedSample] = {}
    for side, rows in (("before", before), ("after", after)):
        if len({row.sample_id for row in rows}) < len(rows):
            raise DataError(f"the evaluation {side} holds a sample id twice; each row must have its own")
        for row in rows:
            other = found.setdefault(row.sample_id, row)
            if (row.question, row.answer, row.options, row.task) != (
                other.question,
                other.answer,
                other.options,
                other.task,
            ):
                raise DataError(
                    f"sample {row.sample_id} asks or expects something else after than before; compare evaluations "
                    "of the same data"
                )
    return found


def _values(rows: Sequence[EvaluatedSample], metric: str, settings: SummarySettings) -> dict[str, float]:
    metrics = {row.sample_id: row_metrics(row, settings.pass_ks) for row in rows}
    return {name: values[metric] for name, values in metrics.items() if metric in values}
