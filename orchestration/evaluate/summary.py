"""Summary of one evaluation: greedy and sampled scores with intervals, overall and by task, source and function."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestration.evaluate.presets.base import clusters_of
from orchestration.evaluate.presets.statistics import Estimate, Ratio, Resampling, estimate_macro_mean, estimate_ratios
from orchestration.workers.answers import EvaluatedSample, row_metrics, split_rows

MACRO_METRICS = ("greedy/task_reward", "greedy/reward", "sampled/task_reward", "sampled/reward")
PARTS: dict[str, Callable[[EvaluatedSample], str]] = {
    "task": lambda sample: sample.task,
    "source": lambda sample: sample.source,
    "function": lambda sample: sample.function,
}
"""How the rows are split into the tables of a summary or a comparison."""
NUM_FAILURES_NAMED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SummarySettings:
    """What is computed, and how its intervals are made.

    Example:
        >>> SummarySettings(pass_ks=(1, 4)).resampling.num_resamples
        10000
    """

    pass_ks: tuple[int, ...] = (1,)
    """Each k of pass@k; rows with fewer graded completions than k do not enter it."""
    cluster_key: str = ""
    """Metadata key whose equal values tie rows together (questions about one image); empty ties none."""
    resampling: Resampling = field(default_factory=Resampling)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Scores of one set of rows."""

    num_samples: int
    """Rows, failed ones included."""
    num_failed: int
    metrics: Mapping[str, Estimate]
    """By name; a metric that no row has is left out."""

    def to_json(self) -> dict[str, object]:
        """As plain values."""
        return {
            "num_samples": self.num_samples,
            "num_failed": self.num_failed,
            "metrics": {name: estimate.to_json() for name, estimate in self.metrics.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One evaluation in numbers."""

    overall: Block
    macro: Mapping[str, Estimate]
    """Mean over tasks of the task's mean."""
    by_task: Mapping[str, Block]
    by_source: Mapping[str, Block]
    by_function: Mapping[str, Block]
    reasons: Mapping[str, int]
    """How the answers were read, greedy and sampled together."""
    failures: Mapping[str, int]
    """Why rows have no scores, the most frequent causes."""

    def to_json(self) -> dict[str, object]:
        """As plain values, ready for summary.json."""
        return {
            "overall": self.overall.to_json(),
            "macro": {name: estimate.to_json() for name, estimate in self.macro.items()},
            "by_task": {name: block.to_json() for name, block in self.by_task.items()},
            "by_source": {name: block.to_json() for name, block in self.by_source.items()},
            "by_function": {name: block.to_json() for name, block in self.by_function.items()},
            "reasons": dict(self.reasons),
            "failures": dict(self.failures),
        }


def summarise(samples: Sequence[EvaluatedSample], settings: SummarySettings | None = None) -> Summary:
    """Sum up the rows of one evaluation; failed rows are counted and enter no mean."""
    settings = settings or SummarySettings()
    parts = {name: split_rows(samples, key) for name, key in PARTS.items()}
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
    )


def _block(samples: Sequence[EvaluatedSample], settings: SummarySettings) -> Block:
    rows = [(sample, metrics) for sample in samples if (metrics := row_metrics(sample, settings.pass_ks))]
    names = dict.fromkeys(name for _, metrics in rows for name in metrics)
    # A row counts below the line of the metrics that it has.
    columns = [{**metrics, **{f"has {name}": 1.0 for name in metrics}} for _, metrics in rows]
    ratios = {
        name: Ratio(numerator={name: 1.0}, denominator={f"has {name}": 1.0}, is_share=not name.endswith("num_tokens"))
        for name in names
    }
    clusters = clusters_of([sample for sample, _ in rows], settings.cluster_key)
    return Block(
        num_samples=len(samples),
        num_failed=len(samples) - len(rows),
        metrics=estimate_ratios(ratios, columns, clusters=clusters, resampling=settings.resampling) if rows else {},
    )


def _macro(tasks: Mapping[str, Sequence[EvaluatedSample]], settings: SummarySettings) -> dict[str, Estimate]:
    found = {}
    for name in MACRO_METRICS:
        having = {
            task: [(sample, metrics[name]) for sample in samples if name in (metrics := row_metrics(sample))]
            for task, samples in tasks.items()
        }
        having = {task: rows for task, rows in having.items() if rows}
        clusters = {
            task: clusters_of([sample for sample, _ in rows], settings.cluster_key) for task, rows in having.items()
        }
        if having:
            found[name] = estimate_macro_mean(
                {task: [value for _, value in rows] for task, rows in having.items()},
                clusters={task: labels for task, labels in clusters.items() if labels is not None} or None,
                resampling=settings.resampling,
            )
    return found
