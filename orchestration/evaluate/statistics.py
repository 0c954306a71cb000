"""Estimates with intervals, and paired comparisons with p-values.

Equal numbers and an equal seed give equal intervals and p-values. Resampling is implemented here instead of by
scipy.stats: all metrics of a table share one set of resamples, which is ten times faster than a `bootstrap` for each
(2,000 rows, 14 metrics), and sign patterns are drawn eighty times faster than by `permutation_test`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from orchestration.settings.errors import DataError

EXACT_UNITS = 16
"""Up to this number of differing units all 2^n sign patterns are enumerated: 65,536 at most."""
# Elements of one block of resampling counts or sign patterns. Such a block stays in the cache, and its product is too
# small for the threads of a matrix library, which cost more than they save on shared cores (measured: up to 20 times).
_BLOCK_ELEMENTS = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Resampling:
    """Settings of the bootstrap and of the permutation test."""

    seed: int = 0
    num_resamples: int = 10_000
    level: float = 0.95
    """Confidence level of intervals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value with its interval.

    Example:
        >>> estimate_mean([1.0, 0.0, 1.0, 1.0])
        Estimate(value=0.75, low=0.25, high=1.0, num_samples=4)
    """

    value: float
    low: float
    high: float
    num_samples: int
    """Rows that enter it: those with a denominator above 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A metric that divides one weighted sum of columns by another; 0 if the denominator is 0.

    F1 is 2 tp / (2 tp + fp + fn); a mean is its column over `rows`.

    Example:
        >>> f1 = Ratio(numerator={"tp": 2.0}, denominator={"tp": 2.0, "fp": 1.0, "fn": 1.0})
        >>> estimate_ratios({"f1": f1}, [{"tp": 1.0}, {"fp": 1.0}, {"fn": 1.0}])["f1"].value  # 2 / (2 + 1 + 1)
        0.5
    """

    numerator: Mapping[str, float]
    denominator: Mapping[str, float] = field(default_factory=lambda: {"rows": 1.0})
    is_share: bool = True
    """Whether a row adds no more to the numerator than to the denominator, as for a share or a reward, not a length."""


def mean_of(column: str, *, is_share: bool = True) -> Ratio:
    """Return the metric that is the mean of a column over rows."""
    return Ratio(numerator={column: 1.0}, is_share=is_share)


def estimate_mean(
    values: Sequence[float],
    *,
    is_share: bool = True,
    clusters: Sequence[str] | None = None,
    resampling: Resampling | None = None,
) -> Estimate:
    """Return the mean of a value per row with its interval; see `Ratio` and `estimate_ratios`."""
    rows = [{"value": value, "rows": 1.0} for value in values]
    return estimate_ratios(
        {"mean": mean_of("value", is_share=is_share)}, rows, clusters=clusters, resampling=resampling
    )["mean"]


def estimate_ratios(
    metrics: Mapping[str, Ratio],
    rows: Sequence[Mapping[str, float]],
    *,
    clusters: Sequence[str] | None = None,
    resampling: Resampling | None = None,
) -> dict[str, Estimate]:
    """Return metrics of rows with their percentile bootstrap intervals, all from the same resamples.

    Rows are drawn with replacement; with `clusters`, all rows of one cluster (questions about one image, say) are
    drawn together, because they are right or wrong together and count for less than as many independent ones.

    A bootstrap of shares that are all 0, or all 1, has no width, as if 20 failures of 20 proved that none ever
    passes; Wilson's score interval over the number of clusters is used instead.

    Args:
        metrics: By name.
        rows: Columns of each row; at least one row.
        clusters: Cluster of each row; None makes each row its own.
        resampling: None takes the defaults.

    Source:
        Efron and Tibshirani, 1993, An Introduction to the Bootstrap, section 13.3; clusters: Davison and Hinkley,
        1997, Bootstrap Methods and Their Application, section 3.8.
    """
    resampling = resampling or Resampling()
    parts = [part for metric in metrics.values() for part in (metric.numerator, metric.denominator)]
    columns = np.array([[_weighted(row, part) for part in parts] for row in rows]).reshape(len(rows), len(parts))
    units = cluster_sums(columns, clusters)
    drawn = resampled_sums(units, resampling)
    estimates = {}
    for number, (name, metric) in enumerate(metrics.items()):
        here = slice(2 * number, 2 * number + 2)
        value = float(_ratio(columns[:, here].sum(axis=0)))
        counted = units[units[:, 2 * number + 1] > 0.0, here]
        if metric.is_share and len(counted) and value in (0.0, 1.0) and np.all(counted[:, 0] == value * counted[:, 1]):
            low, high = _wilson_interval(round(value) * len(counted), len(counted), resampling.level)
        else:
            low, high = _percentiles(_ratio(drawn[:, here]), resampling.level)
        num_samples = int(np.count_nonzero(columns[:, 2 * number + 1]))
        estimates[name] = Estimate(value=value, low=low, high=high, num_samples=num_samples)
    return estimates


def estimate_macro_mean(
    groups: Mapping[str, Sequence[float]],
    *,
    clusters: Mapping[str, Sequence[str]] | None = None,
    resampling: Resampling | None = None,
) -> Estimate:
    """Return the mean over groups of each group's mean, so that all groups have equal weight.

    The interval resamples within each group and averages. A cluster with rows in two groups is drawn independently in
    both, which makes the interval slightly too narrow if that is frequent. Groups whose values are all equal add no
    width. No group may be empty.
    """
    resampling = resampling or Resampling()
    means, drawn = [], np.zeros(resampling.num_resamples)
    for number, (name, values) in enumerate(sorted(groups.items())):
        columns = np.stack([np.asarray(values, dtype=np.float64), np.ones(len(values))], axis=1)
        units = cluster_sums(columns, None if clusters is None else clusters[name])
        means.append(float(columns[:, 0].mean()))
        drawn += _ratio(resampled_sums(units, resampling, stream=number)) / len(groups)
    low, high = _percentiles(drawn, resampling.level)
    return Estimate(
        value=float(np.mean(means)), low=low, high=high, num_samples=sum(len(values) for values in groups.values())
    )


def cluster_sums(columns: NDArray[np.float64], clusters: Sequence[str] | None) -> NDArray[np.float64]:
    """Return the sums [num_clusters, c] of columns [num_rows, c] over each cluster, clusters in order of name."""
    if clusters is None:
        return columns
    _, places = np.unique(np.array(clusters, dtype=object).astype(str), return_inverse=True)
    sums = np.zeros((int(places.max()) + 1, columns.shape[1]))
    np.add.at(sums, places, columns)
    return sums


def resampled_sums(units: NDArray[np.float64], resampling: Resampling, *, stream: int = 0) -> NDArray[np.float64]:
    """Return the column sums [R, c] of R resamples of the units [m, c]; each `stream` draws independently."""
    num_units = len(units)
    generator = np.random.default_rng((resampling.seed, stream))
    block = max(1, _BLOCK_ELEMENTS // num_units)
    found = []
    for done in range(0, resampling.num_resamples, block):
        size = min(block, resampling.num_resamples - done)
        places = generator.integers(0, num_units, size=(size, num_units), dtype=np.int32)
        # Counting how often each unit is drawn, and one product, is cheaper than gathering each column.
        places += np.arange(size, dtype=np.int32)[:, None] * num_units
        counts = np.bincount(places.ravel(), minlength=size * num_units).reshape(size, num_units)
        found.append(counts @ units)
    return np.concatenate(found)


def _wilson_interval(num_hits: int, num_rows: int, level: float) -> tuple[float, float]:
    interval = binomtest(num_hits, num_rows).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def _weighted(sums: Mapping[str, float], weights: Mapping[str, float]) -> float:
    return sum(weight * sums.get(name, 0.0) for name, weight in weights.items())


def _ratio(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    upper, lower = sums[..., 0], sums[..., 1]
    return np.where(lower == 0.0, 0.0, upper / np.where(lower == 0.0, 1.0, lower))


def _percentiles(values: NDArray[np.float64], level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [0.5 - level / 2.0, 0.5 + level / 2.0])
    return float(low), float(high)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedComparison:
    """Comparison of before and after on their common samples.

    Example:
        >>> change = paired_comparison({"a": 0.0, "b": 0.0}, {"a": 1.0, "b": 0.0})
        >>> change.difference.value, change.p_value
        (0.5, 1.0)
    """

    num_pairs: int
    num_only_before: int
    num_only_after: int
    before: float
    """Mean over the pairs."""
    after: float
    difference: Estimate
    """Mean of after - before."""
    p_value: float
    """Two-sided p-value of the sign-flip test, see `sign_flip_p_value`."""
    adjusted_p_value: float | None = None
    """After Holm's correction over the rows of its table."""


def paired_comparison(
    before: Mapping[str, float],
    after: Mapping[str, float],
    *,
    clusters: Mapping[str, str] | None = None,
    allow_unmatched: bool = False,
    resampling: Resampling | None = None,
) -> PairedComparison:
    """Compare a value per sample, matched by sample id.

    Args:
        before: Value by sample id.
        after: The same.
        clusters: Cluster by sample id; rows of one cluster are drawn, and change sign, together.
        allow_unmatched: Compare the common samples although the sets differ.
        resampling: None takes the defaults.

    Raises:
        DataError: The sets differ and `allow_unmatched` is false, or they have no sample in common.
    """
    resampling = resampling or Resampling()
    common = sorted(before.keys() & after.keys())
    only_before, only_after = sorted(before.keys() - after.keys()), sorted(after.keys() - before.keys())
    if not common:
        raise DataError("the two evaluations have no sample with a score in common; compare runs over the same data")
    if (only_before or only_after) and not allow_unmatched:
        raise DataError(
            f"{len(only_before)} samples are scored before only (first: {', '.join(only_before[:3]) or 'none'}) and "
            f"{len(only_after)} after only (first: {', '.join(only_after[:3]) or 'none'}); evaluate the same rows, or "
            "allow unmatched samples to compare the common ones"
        )
    labels = None if clusters is None else [clusters[name] for name in common]
    differences = np.array([after[name] - before[name] for name in common])
    return PairedComparison(
        num_pairs=len(common),
        num_only_before=len(only_before),
        num_only_after=len(only_after),
        before=float(np.mean([before[name] for name in common])),
        after=float(np.mean([after[name] for name in common])),
        difference=estimate_mean(list(differences), is_share=False, clusters=labels, resampling=resampling),
        p_value=sign_flip_p_value(cluster_sums(differences[:, None], labels)[:, 0], resampling),
    )


def sign_flip_p_value(differences: NDArray[np.float64], resampling: Resampling) -> float:
    """Return the two-sided p-value of the paired permutation test.

    Under the null hypothesis each difference is equally likely with the other sign; the p-value is the share of sign
    patterns whose sum is at least as far from 0 as the observed one. Differences of 0 are ignored. Up to 16 others all
    patterns are tried; above, `num_resamples` random ones, and the observed pattern is counted among them so that the
    p-value is never 0. A difference is that of a sample, or the sum of a cluster.

    Source:
        Fisher, 1935, The Design of Experiments, section 21; the count of one: Phipson and Smyth, 2010, Permutation
        P-values Should Never Be Zero.
    """
    found = differences[differences != 0.0]
    if not len(found):
        return 1.0
    # Sums of floats in another order differ in the last bits; a pattern equal to the observed one must count.
    limit = abs(float(found.sum())) - 1e-9 * float(np.abs(found).sum())
    if len(found) <= EXACT_UNITS:
        patterns = (np.arange(2 ** len(found))[:, None] >> np.arange(len(found))) & 1
        return float(np.mean(np.abs((1.0 - 2.0 * patterns) @ found) >= limit))
    generator = np.random.default_rng((resampling.seed, len(found)))
    block = max(1, _BLOCK_ELEMENTS // len(found))
    extreme = 0
    for done in range(0, resampling.num_resamples, block):
        size = (min(block, resampling.num_resamples - done), len(found))
        signs = 1.0 - 2.0 * generator.integers(0, 2, size=size, dtype=np.int8)
        extreme += int(np.count_nonzero(np.abs(signs @ found) >= limit))
    return (extreme + 1) / (resampling.num_resamples + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct the p-values of one table by Holm's method, which controls the family-wise error rate.

    Returns:
        Adjusted values in the given order: the i-th smallest (from 0) of m is multiplied by m - i, and at least the
        adjusted value of the next smaller one.

    Source:
        Holm, 1979, A Simple Sequentially Rejective Multiple Test Procedure.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted
