"""Stage 7, select: keeps rows by difficulty band and by quota.

The result depends on the rows and the seed, not on the order of the rows.
"""

import bisect
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from orchestration.data.sources.rows import Refused, RejectReason
from orchestration.settings.errors import ConfigError, DataError
from orchestration.settings.recipe import BandConfig, SelectConfig
from rollout.records import Difficulty

ALL_RIGHT_MIN = 1.0 - 1e-6
ALL_RIGHT_MIN_BY_FUNCTION = {"grounding": 0.95}
"""A row is all right if its worst completion earns this much; boxes never match to the last pixel."""

ALL_WRONG_MAX = 1e-6
ALL_WRONG_MAX_BY_FUNCTION = {"grounding": 0.1}
"""A row is all wrong if its best completion earns no more; boxes overlap a little by chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selectable:
    """The values of one row that selection uses."""

    sample_id: str
    """Unique among all rows."""
    source: str
    """Name of the source in the recipe, without a part, as quotas name it."""
    function: str
    """Reward function that scores the row."""
    task: str
    answer: str
    """The canonical reference; used if the task has a closed set of answers."""
    difficulty: Difficulty | None = None


def ordered_strata(bounds: Mapping[str, tuple[float, float]]) -> list[tuple[float, str]]:
    """Return (low end, name) of the difficulty classes in order; each includes its low end, the last one 1 as well.

    Raises:
        ConfigError: They do not cover [0, 1], or overlap; names the class at fault.
    """
    ordered = sorted(bounds.items(), key=lambda item: item[1])
    end = 0.0
    for name, (low, high) in ordered:
        if low != end or high <= low:
            raise ConfigError(
                f"data.recipe.select.strata.{name} is [{low}, {high}]; classes must cover 0 to 1 "
                f"without gap or overlap: start it at {end} and end it above"
            )
        end = high
    if ordered and end != 1.0:
        raise ConfigError(f"data.recipe.select.strata.{ordered[-1][0]} ends at {end}; end the last class at 1")
    return [(low, name) for name, (low, _) in ordered]


def select_rows(
    rows: Sequence[Selectable], *, config: SelectConfig, source_quotas: Mapping[str, int], seed: int
) -> list[str | Refused]:
    """Keep the rows whose difficulty is in the band of their reward function, up to the quotas.

    Args:
        rows: All rows of role train that passed the earlier stages.
        config: Bands, quotas by function, strata.
        source_quotas: Quotas by source; other sources have no limit.
        seed: Decides which rows are kept if more fit than the quotas allow.

    Returns:
        For each row, in their order: the stratum of one that is kept, empty if difficulty was not measured or the
        recipe has no strata; else why it is rejected.

    Raises:
        ConfigError: The strata do not cover [0, 1], or overlap.
        DataError: Two rows have the same id; or `strict` is set and a quota cannot be filled.
    """
    strata = ordered_strata(config.strata)
    if len({row.sample_id for row in rows}) < len(rows):
        ((twice, _),) = Counter(row.sample_id for row in rows).most_common(1)
        raise DataError(f"sample_id {twice} is the id of two rows; ids must be unique")
    verdicts = _within_bands(rows, config, strata, seed)
    fitting = {number: stratum for number, stratum in enumerate(verdicts) if isinstance(stratum, str)}
    available = Counter((rows[number].source, rows[number].function) for number in fitting)
    targets = divide_quotas(available, source_quotas, config.quotas)
    members_of = defaultdict(list)
    for number in fitting:
        members_of[rows[number].function].append(number)
    for function, members in members_of.items():
        allowed = {source: count for (source, name), count in targets.items() if name == function}
        if len(members) > sum(allowed.values()):
            over_quota = _over_quota(members, allowed, rows=rows, strata=fitting, config=config, seed=seed)
            for number, refusal in over_quota.items():
                verdicts[number] = refusal
    if config.strict:
        _refuse_open_quotas(available, targets, source_quotas, config)
    return verdicts


def answer_class(task: str, answer: str) -> str:
    """Return the class by which answers are balanced: yes or no, the letter of an option; empty for open answers.

    Example:
        >>> answer_class("match_mcq", "B"), answer_class("match_mcq", "A, C"), answer_class("chart", "12")
        ('B', 'several', '')
    """
    if task == "match_yesno":
        return answer.lower()
    if task == "match_mcq":
        return answer if len(answer) == 1 else "several"
    return ""


def _within_bands(
    rows: Sequence[Selectable], config: SelectConfig, strata: Sequence[tuple[float, str]], seed: int
) -> list[str | Refused]:
    verdicts: list[str | Refused] = []
    for row in rows:
        stratum, refusal = "", None
        if row.difficulty is not None and strata:
            stratum = strata[bisect.bisect_right(strata, row.difficulty.mean, key=lambda one: one[0]) - 1][1]
        if row.difficulty is not None and row.function in config.bands:
            band = config.bands[row.function]
            refusal = judge(row.difficulty, band, function=row.function, sample_id=row.sample_id, seed=seed)
        verdicts.append(stratum if refusal is None else refusal)
    return verdicts


def _over_quota(
    members: Sequence[int],
    allowed: Mapping[str, int],
    *,
    rows: Sequence[Selectable],
    strata: Mapping[int, str],
    config: SelectConfig,
    seed: int,
) -> dict[int, Refused]:
    """Return the rows of one function that the quotas reject."""
    classes = {
        number: (
            strata[number] if config.balance_strata else "",
            rows[number].task,
            answer_class(rows[number].task, rows[number].answer) if config.balance_answers else "",
        )
        for number in members
    }
    preferred = sorted(members, key=lambda number: row_hash("quota", seed, rows[number].sample_id))
    chosen = choose(preferred, classes, [row.source for row in rows], allowed)
    fitting = Counter(rows[number].source for number in members)
    function = rows[members[0]].function
    refusals = {  # shared, because there may be millions of rows
        source: Refused(
            RejectReason.OVER_QUOTA, f"{allowed[source]} of {count} rows of {source} are kept for {function}"
        )
        for source, count in fitting.items()
    }
    return {number: refusals[rows[number].source] for number in members if number not in chosen}


def _refuse_open_quotas(
    available: Mapping[tuple[str, str], int],
    targets: Mapping[tuple[str, str], int],
    source_quotas: Mapping[str, int],
    config: SelectConfig,
) -> None:
    offered: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    for (source, function), count in available.items():
        offered[source] += count
        kept[function] += targets[source, function]
    quotas = [(f"source {name}", offered[name], quota) for name, quota in sorted(source_quotas.items())]
    quotas += [(f"function {name}", kept[name], quota) for name, quota in sorted(config.quotas.items())]
    open_quotas = "; ".join(f"{name}: {found} of {requested}" for name, found, requested in quotas if found < requested)
    if open_quotas:
        raise DataError(
            f"quotas cannot be filled ({open_quotas}); add rows, widen data.recipe.select.bands, lower the quotas, or "
            "set data.recipe.select.strict=false to build with the available rows"
        )


def judge(difficulty: Difficulty, band: BandConfig, *, function: str, sample_id: str, seed: int) -> Refused | None:
    """Return why a row is rejected by its difficulty, with the values at fault; None if it is kept.

    An all-right row that is drawn to be kept skips the further limits.
    """
    if band.drop_all_right and difficulty.min >= ALL_RIGHT_MIN_BY_FUNCTION.get(function, ALL_RIGHT_MIN):
        drawn = int.from_bytes(row_hash("keep all right", seed, sample_id)[:6], "big") / 2**48
        if drawn < band.keep_all_right_frac:
            return None
        return Refused(
            RejectReason.ALL_RIGHT, f"the worst of {difficulty.num_completions} completions earns {difficulty.min:g}"
        )
    if band.drop_all_wrong and difficulty.max <= ALL_WRONG_MAX_BY_FUNCTION.get(function, ALL_WRONG_MAX):
        best = f"the best of {difficulty.num_completions} completions earns {difficulty.max:g}"
        if difficulty.agreement >= band.doubt_agreement:
            return Refused(RejectReason.REFERENCE_DOUBTED, f"{best}; {difficulty.agreement:.0%} give one answer")
        return Refused(RejectReason.ALL_WRONG, best)
    if difficulty.mean < band.min_mean:
        return Refused(RejectReason.TOO_HARD, f"mean reward {difficulty.mean:g} is below {band.min_mean:g}")
    if difficulty.mean > band.max_mean:
        return Refused(RejectReason.TOO_EASY, f"mean reward {difficulty.mean:g} is above {band.max_mean:g}")
    if difficulty.std < band.min_std:
        return Refused(RejectReason.NO_SPREAD, f"standard deviation {difficulty.std:g} is below {band.min_std:g}")
    return None


def row_hash(purpose: str, seed: int, sample_id: str) -> bytes:
    """Return 16 pseudo-random bytes for a row, independent of other rows."""
    return hashlib.blake2b(f"{purpose}\x1f{seed}\x1f{sample_id}".encode(), digest_size=16).digest()


Cell = tuple[str, str]
"""(source, reward function)."""


def divide_quotas(
    available: Mapping[Cell, int], sources: Mapping[str, int], functions: Mapping[str, int]
) -> dict[Cell, int]:
    """Return how many rows each source contributes to each function.

    A source divides its quota among its functions in proportion to their rows, a function its quota among its sources
    in proportion to what these offer. Unused shares are divided again until no row fits any more.

    Args:
        available: Rows within the difficulty bands.
        sources: Quotas by source; other sources have no limit.
        functions: Quotas by reward function, likewise.

    Returns:
        Rows to take of each cell of `available`, at most as many as it has.

    Example:
        >>> divide_quotas({("a", "chart"): 30, ("b", "chart"): 90}, {"b": 60}, {"chart": 30})
        {('a', 'chart'): 10, ('b', 'chart'): 20}
    """
    taken = dict.fromkeys(sorted(available), 0)
    while True:
        source_allowed = _allowed(sources, 0, taken)
        function_allowed = _allowed(functions, 1, taken)
        open_cells = (cell for cell in taken if function_allowed.get(cell[1], 1) > 0)
        left = {cell: available[cell] - taken[cell] for cell in open_cells}
        offers = _share_by(0, left, source_allowed)
        gained = _share_by(1, offers, function_allowed)
        if not any(gained.values()):
            return taken
        taken = {cell: count + gained.get(cell, 0) for cell, count in taken.items()}


def _allowed(quotas: Mapping[str, int], axis: int, taken: Mapping[Cell, int]) -> dict[str, int]:
    """Return the remainder of each quota."""
    return {name: quota - sum(n for cell, n in taken.items() if cell[axis] == name) for name, quota in quotas.items()}


def _share_by(axis: int, limits: Mapping[Cell, int], allowed: Mapping[str, int]) -> dict[Cell, int]:
    """Reduce the limits proportionally to what is allowed on one axis (0 source, 1 function)."""
    shares: dict[Cell, int] = {}
    for name in sorted({cell[axis] for cell in limits}):
        cells = {cell: limit for cell, limit in limits.items() if cell[axis] == name}
        total = sum(cells.values())
        counts = share_out(list(cells.values()), min(allowed.get(name, total), total))
        shares.update(zip(cells, counts, strict=True))
    return {cell: shares[cell] for cell in limits}


def share_out(limits: list[int], total: int) -> list[int]:
    """Divide `total` in proportion to `limits`, each at most its limit; an excess of `total` is unused.

    Example:
        >>> share_out([10, 30, 0], 8)
        [2, 6, 0]

    Source:
        Webster's apportionment: unit k of a limit n has rank (k + 1/2) / n; the `total` lowest ranks are taken.
    """
    owners = np.repeat(np.arange(len(limits)), limits)
    ranks = np.concatenate([(np.arange(limit) + 0.5) / max(limit, 1) for limit in limits] or [np.empty(0)])
    first = np.lexsort((owners, ranks))[:total]
    return [int(count) for count in np.bincount(owners[first], minlength=len(limits))]


@dataclass(slots=True)
class Branch:
    """A tree of rows, from whose branches rows are taken evenly."""

    weight: float = 1.0
    """Branches of equal weight are filled evenly, others in proportion to it."""
    branches: dict[str, Self] = field(default_factory=dict)
    rows: list[int] = field(default_factory=list)
    """Rows of a leaf; the last one is taken first."""
    taken: int = 0

    def take(self, sources: Sequence[str], allowed: dict[str, int]) -> int | None:
        """Take a row whose source is not full from the branch with the fewest rows taken; None if none is left.

        The share of an empty branch goes to the others.
        """
        while self.rows:
            row = self.rows.pop()
            if allowed[sources[row]] > 0:
                self.taken += 1
                return row
        while self.branches:
            name = min(self.branches, key=self._rank)
            found = self.branches[name].take(sources, allowed)
            if found is not None:
                self.taken += 1
                return found
            del self.branches[name]
        return None

    def _rank(self, name: str) -> float:
        branch = self.branches[name]
        return (branch.taken + 0.5) / branch.weight


def choose(
    rows: Iterable[int], classes: Mapping[int, tuple[str, str, str]], sources: Sequence[str], allowed: Mapping[str, int]
) -> set[int]:
    """Choose rows of one reward function, balanced over strata and answers where possible.

    Strata are filled evenly, the tasks of a stratum in proportion to their rows, the answers of a task evenly.

    Args:
        rows: Rows in order of preference.
        classes: (stratum, task, answer class) of each row.
        sources: Source of each row, by row number.
        allowed: Rows to take of each source.

    Returns:
        sum(allowed) rows, or fewer if the sources have fewer.
    """
    tree = _tree(rows, classes)
    left = dict(allowed)
    wanted = sum(allowed.values())
    chosen: set[int] = set()
    while len(chosen) < wanted and (row := tree.take(sources, left)) is not None:
        left[sources[row]] -= 1
        chosen.add(row)
    return chosen


def _tree(rows: Iterable[int], classes: Mapping[int, tuple[str, str, str]]) -> Branch:
    leaves: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for row in rows:
        leaves[classes[row]].append(row)
    root = Branch()
    # Branches of equal rank are ordered by their most preferred row, so that no answer is always favoured.
    for (stratum, task, answer), members in leaves.items():
        of_task = root.branches.setdefault(stratum, Branch()).branches.setdefault(task, Branch(weight=0.0))
        of_task.weight += len(members)
        of_task.branches[answer] = Branch(rows=members[::-1])
    return root
