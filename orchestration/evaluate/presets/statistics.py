"""Estimates with intervals: pass@k, means and ratios with a bootstrap over samples.

Everything here is deterministic: the same numbers and the same seed give the same interval.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

# Elements of one block of resampling counts. Such a block stays in the cache, and its product is too small for the
# threads of a matrix library, which cost more than they give on shared cores (measured: up to twentyfold).
_BLOCK_ELEMENTS = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Resampling:
    """How intervals are made.

    Example:
        >>> Resampling(num_resamples=1000).level
        0.95
    """

    seed: int = 0
    num_resamples: int = 10_000
    level: float = 0.95
    """Share of repetitions of the whole experiment in which the interval holds the true value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value with its interval.

    Example:
        >>> estimate_mean([1.0, 0.0, 1.0, 1.0]).to_json()
        {'value': 0.75, 'interval': [0.25, 1.0], 'num_samples': 4}
    """

    value: float
    low: float
    high: float
    num_samples: int
    """Rows that enter it, those with a lower sum of 0 left out."""

    def to_json(self) -> dict[str, object]:
        """As plain values."""
        return {"value": self.value, "interval": [self.low, self.high], "num_samples": self.num_samples}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A metric that is one weighted sum of columns over another; 0 where the lower sum is 0.

    F1 is 2 tp / (2 tp + fp + fn); a mean is its column over `rows`.

    Example:
        >>> f1 = Ratio(numerator={"tp": 2.0}, denominator={"tp": 2.0, "fp": 1.0, "fn": 1.0})
        >>> estimate_ratios({"f1": f1}, [{"tp": 1.0}, {"fp": 1.0}, {"fn": 1.0}])["f1"].value  # 2 / (2 + 1 + 1)
        0.5
    """

    numerator: Mapping[str, float]
    denominator: Mapping[str, float] = field(default_factory=lambda: {"rows": 1.0})
    is_share: bool = True
    """Whether a row adds to the upper sum at most what it adds to the lower one: a share or a reward, no length."""


def wilson_interval(num_hits: int, num_rows: int, level: float = 0.95) -> tuple[float, float]:
    """Give Wilson's score interval of a share.

    Source:
        Wilson, 1927, Probable inference, the law of succession, and statistical inference.

    Example:
        >>> [round(bound, 4) for bound in wilson_interval(0, 20)]
        [0.0, 0.1611]
    """
    z = NormalDist().inv_cdf(0.5 + level / 2.0)
    share, spread = num_hits / num_rows, z * z / num_rows
    centre = share + spread / 2.0
    half = z * sqrt(share * (1.0 - share) / num_rows + spread / (4.0 * num_rows))
    return max(0.0, (centre - half) / (1.0 + spread)), min(1.0, (centre + half) / (1.0 + spread))


def estimate_mean(
    values: Sequence[float],
    *,
    is_share: bool = True,
    clusters: Sequence[str] | None = None,
    resampling: Resampling | None = None,
) -> Estimate:
    """Give the mean of a value per row with its interval; see `Ratio` and `estimate_ratios`."""
    rows = [{"value": value, "rows": 1.0} for value in values]
    metric = Ratio(numerator={"value": 1.0}, is_share=is_share)
    return estimate_ratios({"mean": metric}, rows, clusters=clusters, resampling=resampling)["mean"]


def estimate_ratios(
    metrics: Mapping[str, Ratio],
    rows: Sequence[Mapping[str, float]],
    *,
    clusters: Sequence[str] | None = None,
    resampling: Resampling | None = None,
) -> dict[str, Estimate]:
    """Give metrics of rows with their percentile bootstrap intervals, all from the same resamples.

    Rows are drawn with replacement; with `clusters`, all rows of one cluster (questions about one image, say) are
    drawn together, because they are right or wrong together and count for less than as many independent ones.

    A bootstrap of shares that are all 0, or all 1, has no width, as if 20 failures of 20 proved that none ever
    passes; Wilson's interval over the number of clusters stands in.

    Args:
        metrics: What to compute, by name.
        rows: Columns of each row; at least one row.
        clusters: Cluster of each row; None makes each row its own.
        resampling: Seed, number of resamples, level.

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
            low, high = wilson_interval(round(value) * len(counted), len(counted), resampling.level)
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
    """Give the mean over groups of each group's mean, so that a large group does not outvote a small one.

    The interval resamples within each group and averages; a cluster that reaches into two groups is drawn
    independently in both, which makes the interval a little too narrow where that happens often. Groups whose values
    are all equal add no width of their own.

    Args:
        groups: Values by group; none empty.
        clusters: Cluster of each value, by group.
        resampling: Seed, number of resamples, level.
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
    """Add up the rows of each cluster.

    Args:
        columns: [num_rows, c].
        clusters: Cluster of each row, or None.

    Returns:
        [num_clusters, c], clusters in order of name.
    """
    if clusters is None:
        return columns
    _, places = np.unique(np.array(clusters, dtype=object).astype(str), return_inverse=True)
    sums = np.zeros((int(places.max()) + 1, columns.shape[1]))
    np.add.at(sums, places, columns)
    return sums


def resampled_sums(units: NDArray[np.float64], resampling: Resampling, *, stream: int = 0) -> NDArray[np.float64]:
    """Give the column sums of resamples of the units.

    Args:
        units: [m, c].
        resampling: Seed and number of resamples R.
        stream: Tells independent draws of one seed apart.

    Returns:
        [R, c].
    """
    num_units = len(units)
    generator = np.random.default_rng((resampling.seed, stream))
    block = max(1, _BLOCK_ELEMENTS // num_units)
    found = []
    for done in range(0, resampling.num_resamples, block):
        size = min(block, resampling.num_resamples - done)
        places = generator.integers(0, num_units, size=(size, num_units), dtype=np.int32)
        # Counting how often each unit was drawn, and one product, costs less than gathering every column.
        places += np.arange(size, dtype=np.int32)[:, None] * num_units
        counts = np.bincount(places.ravel(), minlength=size * num_units).reshape(size, num_units)
        found.append(counts @ units)
    return np.concatenate(found)


def _weighted(sums: Mapping[str, float], weights: Mapping[str, float]) -> float:
    return sum(weight * sums.get(name, 0.0) for name, weight in weights.items())


def _ratio(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    upper, lower = sums[..., 0], sums[..., 1]
    return np.where(lower == 0.0, 0.0, upper / np.where(lower == 0.0, 1.0, lower))


def _percentiles(values: NDArray[np.float64], level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [0.5 - level / 2.0, 0.5 + level / 2.0])
    return float(low), float(high)
