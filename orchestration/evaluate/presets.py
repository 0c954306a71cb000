"""Presets, the scoring rules of benchmarks: which rows one takes, how an answer is scored, what the metrics are."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestration.evaluate.statistics import Estimate, Ratio, Resampling, estimate_ratios
from orchestration.workers.answers import Completion, EvaluatedSample


@dataclass(frozen=True, slots=True, kw_only=True)
class RowScore:
    """Score of one answer under a preset."""

    official: float
    """By the rule of the benchmark's usual scorer, over the answer without tags; in [0, 1]."""
    strict: float
    """By the rule that this project trains with: format and hedges matter; in [0, 1]."""
    columns: Mapping[str, float] = field(default_factory=dict)
    """Summands of the preset's other metrics."""


ScoreRow = Callable[[EvaluatedSample, Completion], RowScore | None]
"""Scores one completion; None where the reference or the grader failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One way to score a benchmark."""

    name: str
    summary: str
    """One sentence for a user who chooses among presets."""
    tasks: frozenset[str]
    """Tasks whose rows it takes."""
    score: ScoreRow
    metrics: Mapping[str, Ratio]
    """By name, the main one first; `official` and `strict` are columns of every row."""
    accepts: Callable[[EvaluatedSample], bool] = lambda sample: True
    """Whether a row of its tasks can be scored by it."""
    groups: Callable[[EvaluatedSample], Sequence[str]] = lambda sample: ()
    """Names of the groups of the table in which a row also counts."""

    def takes(self, sample: EvaluatedSample) -> bool:
        """Whether the row is of this benchmark."""
        return sample.task in self.tasks and self.accepts(sample)


@dataclass(frozen=True, slots=True, kw_only=True)
class PresetResult:
    """A preset's table."""

    preset: str
    num_rows: int
    """Rows that were scored."""
    num_skipped: int
    """Rows that the preset does not take."""
    num_failed: int
    """Rows without a score: engine, grader or reference failed."""
    metrics: Mapping[str, Estimate]
    """Over all scored rows; empty where there is none."""
    groups: Mapping[str, Mapping[str, Estimate]]
    """The same by group."""


def apply_preset(
    preset: Preset,
    samples: Iterable[EvaluatedSample],
    *,
    cluster_key: str = "",
    resampling: Resampling | None = None,
) -> PresetResult:
    """Score all rows that the preset takes.

    The greedy completion is scored; a row without one counts with the mean of its sampled completions.

    Args:
        preset: How to score.
        samples: Rows of any task.
        cluster_key: Metadata key whose equal values tie rows together; see `clusters_of`.
        resampling: Seed, number of resamples, level.
    """
    scored: list[tuple[EvaluatedSample, Mapping[str, float]]] = []
    num_skipped = num_failed = 0
    for sample in samples:
        if not preset.takes(sample):
            num_skipped += 1
            continue
        columns = row_columns(preset, sample)
        if columns is None:
            num_failed += 1
        else:
            scored.append((sample, columns))
    parts: dict[str, list[tuple[EvaluatedSample, Mapping[str, float]]]] = defaultdict(list)
    for row in scored:
        for group in preset.groups(row[0]):
            parts[group].append(row)
    return PresetResult(
        preset=preset.name,
        num_rows=len(scored),
        num_skipped=num_skipped,
        num_failed=num_failed,
        metrics=_estimates(preset, scored, cluster_key, resampling),
        groups={group: _estimates(preset, parts[group], cluster_key, resampling) for group in sorted(parts)},
    )


def row_columns(preset: Preset, sample: EvaluatedSample) -> dict[str, float] | None:
    """Return the columns of a row, `official`, `strict` and `rows` among them; None where it cannot be scored."""
    if sample.failure is not None:
        return None
    completions = sample.sampled if sample.greedy is None else (sample.greedy,)
    scores = [score for score in (preset.score(sample, completion) for completion in completions) if score is not None]
    if not scores:
        return None
    sums: dict[str, float] = defaultdict(float)
    for score in scores:
        for name, value in {**score.columns, "official": score.official, "strict": score.strict}.items():
            sums[name] += value / len(scores)
    return {**sums, "rows": 1.0}


def clusters_of(samples: Sequence[EvaluatedSample], key: str) -> list[str] | None:
    """Return the cluster of each row: its metadata under `key`, or the row itself; None without a key."""
    if not key:
        return None
    # The prefixes keep a row's own id from being taken for a cluster of that name.
    return [
        f"shared {sample.metadata[key]}" if key in sample.metadata else f"row {sample.sample_id}" for sample in samples
    ]


def mean_of(column: str, *, is_share: bool = True) -> Ratio:
    """Return the metric that is the mean of a column over rows."""
    return Ratio(numerator={column: 1.0}, is_share=is_share)


def _estimates(
    preset: Preset,
    scored: Sequence[tuple[EvaluatedSample, Mapping[str, float]]],
    cluster_key: str,
    resampling: Resampling | None,
) -> dict[str, Estimate]:
    if not scored:
        return {}
    clusters = clusters_of([sample for sample, _ in scored], cluster_key)
    rows = [columns for _, columns in scored]
    present = {name for row in rows for name in row}
    metrics = {name: metric for name, metric in preset.metrics.items() if present & metric.numerator.keys()}
    return estimate_ratios(metrics, rows, clusters=clusters, resampling=resampling)
