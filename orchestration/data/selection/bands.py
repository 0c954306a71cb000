"""Which rows are worth training on, by the rewards of completions sampled from them, and which stratum they are in."""

import bisect
import hashlib
from collections.abc import Mapping

from orchestration.data.rows.reasons import RejectReason
from orchestration.settings.errors import ConfigError
from orchestration.settings.recipe import BandConfig
from rollout.records import Difficulty

ALL_RIGHT_MIN = 1.0 - 1e-6
ALL_RIGHT_MIN_BY_FUNCTION = {"grounding": 0.95}
"""A row is all right where its worst completion earns this much; boxes are never right to the last pixel."""

ALL_WRONG_MAX = 1e-6
ALL_WRONG_MAX_BY_FUNCTION = {"grounding": 0.1}
"""A row is all wrong where its best completion earns no more; boxes overlap a little by chance."""


class Strata:
    """Difficulty classes by mean task reward.

    Example:
        >>> Strata({"hard": (0.0, 0.5), "easy": (0.5, 1.0)}).name_of(1.0)
        'easy'
    """

    def __init__(self, bounds: Mapping[str, tuple[float, float]]) -> None:
        """Check that the classes cover [0, 1] and do not overlap; none at all puts every row into ''.

        Raises:
            ConfigError: naming the class at fault.
        """
        ordered = sorted(bounds.items(), key=lambda item: item[1])
        end = 0.0
        for name, (low, high) in ordered:
            if low != end or high <= low:
                raise ConfigError(
                    f"data.recipe.select.strata.{name} is [{low}, {high}]; classes follow one another from 0 to 1 "
                    f"without gap or overlap: begin it at {end} and end it above"
                )
            end = high
        if ordered and end != 1.0:
            raise ConfigError(f"data.recipe.select.strata.{ordered[-1][0]} ends at {end}; end the last class at 1")
        self._names = [name for name, _ in ordered]
        self._lows = [low for _, (low, _) in ordered]

    def name_of(self, mean: float) -> str:
        """Give the class of a mean reward; each one includes its low end, the last one 1 as well."""
        return self._names[bisect.bisect_right(self._lows, mean) - 1] if self._names else ""


def judge(
    difficulty: Difficulty, band: BandConfig, *, function: str, sample_id: str, seed: int
) -> tuple[RejectReason, str] | None:
    """Give the reason to leave a measured row out, and the values at fault; None where it is worth training on.

    An all-right row that is drawn to stay meets none of the further limits.
    """
    if band.drop_all_right and difficulty.min >= ALL_RIGHT_MIN_BY_FUNCTION.get(function, ALL_RIGHT_MIN):
        drawn = int.from_bytes(digest_of("keep all right", seed, sample_id)[:6], "big") / 2**48
        if drawn < band.keep_all_right_frac:
            return None
        return RejectReason.ALL_RIGHT, f"the worst of {difficulty.num_completions} completions earns {difficulty.min:g}"
    if band.drop_all_wrong and difficulty.max <= ALL_WRONG_MAX_BY_FUNCTION.get(function, ALL_WRONG_MAX):
        best = f"the best of {difficulty.num_completions} completions earns {difficulty.max:g}"
        if difficulty.agreement >= band.doubt_agreement:
            return RejectReason.REFERENCE_DOUBTED, f"{best}; {difficulty.agreement:.0%} give one answer"
        return RejectReason.ALL_WRONG, best
    if difficulty.mean < band.min_mean:
        return RejectReason.TOO_HARD, f"mean reward {difficulty.mean:g} is below {band.min_mean:g}"
    if difficulty.mean > band.max_mean:
        return RejectReason.TOO_EASY, f"mean reward {difficulty.mean:g} is above {band.max_mean:g}"
    if difficulty.std < band.min_std:
        return RejectReason.NO_SPREAD, f"standard deviation {difficulty.std:g} is below {band.min_std:g}"
    return None


def digest_of(purpose: str, seed: int, sample_id: str) -> bytes:
    """Hash a row into 16 bytes that look drawn at random: the same for a row whatever other rows there are."""
    return hashlib.blake2b(f"{purpose}\x1f{seed}\x1f{sample_id}".encode(), digest_size=16).digest()
