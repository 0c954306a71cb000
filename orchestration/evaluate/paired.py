"""Two evaluations of the same samples: mean difference, its interval, and how likely chance alone would give it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestration.evaluate.presets.statistics import Estimate, Resampling, cluster_sums, estimate_mean
from orchestration.settings.errors import DataError

EXACT_UNITS = 16
"""Up to so many differing units all 2^n sign patterns are enumerated: 65,536 at most."""
_BLOCK_ELEMENTS = 16_384
"""Sign patterns that are tried at once; see statistics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedComparison:
    """Before against after on the samples that both have.

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
    """Two-sided, of a difference at least as large if the names before and after were exchanged at random."""
    adjusted_p_value: float | None = None
    """After Holm's correction over the rows of its table."""

    def to_json(self) -> dict[str, object]:
        """As plain values."""
        return {
            "num_pairs": self.num_pairs,
            "num_only_before": self.num_only_before,
            "num_only_after": self.num_only_after,
            "before": self.before,
            "after": self.after,
            "difference": self.difference.to_json(),
            "p_value": self.p_value,
            "adjusted_p_value": self.adjusted_p_value,
        }


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
        after: Value by sample id.
        clusters: Cluster by sample id; rows of one cluster are drawn, and change sign, together.
        allow_unmatched: Compare the common samples although the sets differ.
        resampling: Seed, number of resamples, level.

    Raises:
        DataError: The sets differ and that is not allowed, or nothing is common.
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
    """Give the two-sided p-value of the paired permutation test.

    If before and after do not differ, each difference is as likely with the other sign; the p-value is the share of
    sign patterns whose sum is at least as far from 0 as the one found. Differences of 0 change nothing and are left
    out. Up to 16 others every pattern is tried; above, `num_resamples` random ones, and the found pattern is counted
    among them so that the p-value is never 0.

    Args:
        differences: [m], one per sample, or the sum of one cluster.
        resampling: Seed and number of random patterns.

    Source:
        Fisher, 1935, The Design of Experiments, section 21; the count of one: Phipson and Smyth, 2010, Permutation
        P-values Should Never Be Zero.
    """
    found = differences[differences != 0.0]
    if not len(found):
        return 1.0
    # Sums of floats in another order differ in the last bits; a pattern that equals the found one must count.
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
    """Correct the p-values of one table, so that the chance of any false alarm in it stays at the level asked for.

    Returns:
        Adjusted values in the given order: the i-th smallest (from 0) of m times m - i, never below a smaller one's.

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
