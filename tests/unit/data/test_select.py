"""From rows that fit to rows that are written: bands, strata, quotas, and how evenly they are filled."""

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.data.select import (
    Selectable,
    answer_class,
    divide_quotas,
    ordered_strata,
    select_rows,
    share_out,
)
from orchestration.data.sources.rows import Refused, RejectReason
from orchestration.settings.errors import ConfigError, DataError
from orchestration.settings.recipe import BandConfig, SelectConfig
from rollout.records import Difficulty

QUARTERS = {"hard": (0.0, 0.25), "medium": (0.25, 0.75), "easy": (0.75, 1.0)}


def measured(*rewards: float, agreement: float = 0.5) -> Difficulty:
    mean = sum(rewards) / len(rewards)
    return Difficulty(
        num_completions=len(rewards),
        mean=mean,
        std=(sum((reward - mean) ** 2 for reward in rewards) / len(rewards)) ** 0.5,
        min=min(rewards),
        max=max(rewards),
        pass_rate=sum(reward == 1.0 for reward in rewards) / len(rewards),
        format_rate=1.0,
        agreement=agreement,
    )


def row(number: int, difficulty: Difficulty | None = None, **changes: str) -> Selectable:
    base = Selectable(sample_id=f"r{number}", source="s", function="chart", task="chart", answer="4")
    return replace(base, difficulty=difficulty, **changes)


def select(
    rows: list[Selectable], *, seed: int = 1, sources: dict[str, int] | None = None, **config: object
) -> list[str | Refused]:
    return select_rows(rows, config=SelectConfig(**config), source_quotas=sources or {}, seed=seed)  # type: ignore[arg-type]


def kept(rows: list[Selectable], selection: list[str | Refused]) -> list[Selectable]:
    return [row for row, verdict in zip(rows, selection, strict=True) if isinstance(verdict, str)]


def reason_of(difficulty: Difficulty, band: BandConfig, function: str = "chart") -> RejectReason | None:
    verdict = select([row(0, difficulty, function=function)], bands={function: band})[0]
    return verdict.reason if isinstance(verdict, Refused) else None


def test_all_right_and_all_wrong_rows_teach_nothing() -> None:
    assert reason_of(measured(1, 1, 1, 1), BandConfig()) is RejectReason.ALL_RIGHT
    assert reason_of(measured(0, 0, 0, 0), BandConfig()) is RejectReason.ALL_WRONG
    assert reason_of(measured(1, 0, 0, 0), BandConfig()) is None
    assert reason_of(measured(1, 1, 1, 0.999), BandConfig()) is None
    assert reason_of(measured(1, 1), BandConfig(drop_all_right=False)) is None
    assert reason_of(measured(0, 0), BandConfig(drop_all_wrong=False)) is None


def test_boxes_count_as_right_and_wrong_by_overlaps_of_their_own() -> None:
    assert reason_of(measured(0.95, 0.99), BandConfig(), "grounding") is RejectReason.ALL_RIGHT
    assert reason_of(measured(0.94, 0.99), BandConfig(), "grounding") is None
    assert reason_of(measured(0.0, 0.1), BandConfig(), "grounding") is RejectReason.ALL_WRONG
    assert reason_of(measured(0.0, 0.11), BandConfig(), "grounding") is None
    assert reason_of(measured(0.0, 0.1), BandConfig(), "chart") is None


def test_an_all_wrong_row_whose_completions_agree_has_a_doubted_reference() -> None:
    assert reason_of(measured(0, 0, 0, 0, agreement=0.75), BandConfig()) is RejectReason.REFERENCE_DOUBTED
    assert reason_of(measured(0, 0, 0, 0, agreement=0.74), BandConfig()) is RejectReason.ALL_WRONG
    assert reason_of(measured(1, 0, 0, 0, agreement=0.75), BandConfig()) is None


def test_mean_and_spread_bound_the_band() -> None:
    band = BandConfig(min_mean=0.25, max_mean=0.75, min_std=0.05)
    assert reason_of(measured(0.5, 0, 0, 0), band) is RejectReason.TOO_HARD
    assert reason_of(measured(1, 0, 0, 0), band) is None
    assert reason_of(measured(1, 1, 1, 0), band) is None
    assert reason_of(measured(1, 1, 1, 0.5), band) is RejectReason.TOO_EASY
    assert reason_of(measured(0.50, 0.52), band) is RejectReason.NO_SPREAD


def test_what_is_at_fault_is_said_with_its_values() -> None:
    verdict = select([row(0, measured(0, 0, 0, 0, agreement=0.75))], bands={"chart": BandConfig()})[0]
    assert str(verdict) == "reference_doubted: the best of 4 completions earns 0; 75% give one answer"


def test_rows_without_a_measurement_or_a_band_stay() -> None:
    rows = [row(0), row(1, measured(1, 1), function="math")]
    assert kept(rows, select(rows, bands={"chart": BandConfig()})) == rows


def test_a_share_of_the_all_right_rows_stays_and_a_larger_share_holds_the_smaller() -> None:
    rows = [row(i, measured(1, 1)) for i in range(2000)]
    kept_by_frac = []
    for frac in (0.0, 0.1, 0.3, 1.0):
        band = BandConfig(keep_all_right_frac=frac, max_mean=0.9, min_std=0.1)
        kept_by_frac.append({r.sample_id for r in kept(rows, select(rows, bands={"chart": band}))})
    assert [len(ids) for ids in kept_by_frac] == [0, pytest.approx(200, abs=40), pytest.approx(600, abs=60), 2000]
    assert kept_by_frac[1] < kept_by_frac[2]


def test_strata_include_their_low_end_and_the_last_one_includes_1() -> None:
    rows = [row(i, measured(mean)) for i, mean in enumerate((0.0, 0.24, 0.25, 0.74, 0.75, 1.0))]
    assert select([*rows, row(9)], strata=QUARTERS) == ["hard", "hard", "medium", "medium", "easy", "easy", ""]


@pytest.mark.parametrize(
    ("bounds", "name"),
    [
        ({"a": (0.1, 1.0)}, "a"),
        ({"a": (0.0, 0.5), "b": (0.6, 1.0)}, "b"),
        ({"a": (0.0, 0.5), "b": (0.4, 1.0)}, "b"),
        ({"a": (0.0, 0.5), "b": (0.5, 0.9)}, "b"),
        ({"a": (0.0, 1.0), "b": (1.0, 1.0)}, "b"),
    ],
)
def test_strata_with_gaps_or_overlaps_are_refused_by_name(bounds: dict[str, tuple[float, float]], name: str) -> None:
    with pytest.raises(ConfigError, match=rf"data\.recipe\.select\.strata\.{name} "):
        ordered_strata(bounds)


def test_a_quota_is_filled_evenly_from_the_strata_and_a_short_one_leaves_its_share() -> None:
    means = [0.1] * 3 + [0.5] * 20 + [0.9] * 100
    rows = [row(i, measured(mean)) for i, mean in enumerate(means)]
    # 43 of 123: hard has 3 for its 14; 40 are left for two strata: 20 each.
    selection = select(rows, strata=QUARTERS, quotas={"chart": 43})
    strata = Counter(v for v in selection if isinstance(v, str))
    assert strata == {"hard": 3, "medium": 20, "easy": 20}
    loose = select(rows, strata=QUARTERS, quotas={"chart": 43}, balance_strata=False)
    assert Counter(v for v in loose if isinstance(v, str))["easy"] > 28


def test_answers_are_even_within_their_task_and_tasks_keep_their_proportions() -> None:
    rows = [row(i, function="matching", task="match_yesno", answer="yes") for i in range(60)]
    rows += [row(100 + i, function="matching", task="match_yesno", answer="no") for i in range(20)]
    rows += [row(200 + i, function="matching", task="match_mcq", answer="ABCD"[i % 4]) for i in range(40)]
    rows += [row(300 + i, function="matching", task="match_text", answer=f"word {i}") for i in range(40)]
    chosen = kept(rows, select(rows, quotas={"matching": 80}))
    # Half of 160: half of each task; of 40 yes/no rows, 20 each.
    assert Counter(r.task for r in chosen) == {"match_yesno": 40, "match_mcq": 20, "match_text": 20}
    assert Counter(r.answer for r in chosen if r.task == "match_yesno") == {"yes": 20, "no": 20}
    assert Counter(r.answer for r in chosen if r.task == "match_mcq") == dict.fromkeys("ABCD", 5)
    loose = kept(rows, select(rows, quotas={"matching": 80}, balance_answers=False))
    assert Counter(r.answer for r in loose)["yes"] > 24


def test_one_sources_answers_make_up_for_anothers() -> None:
    rows = [row(i, task="match_yesno", answer="no", source="negative") for i in range(1000)]
    rows += [row(2000 + i, task="match_yesno", answer="yes" if i % 2 else "no", source="both") for i in range(180)]
    chosen = kept(rows, select(rows, sources={"negative": 10, "both": 50}, quotas={"chart": 60}))
    assert Counter(r.source for r in chosen) == {"negative": 10, "both": 50}
    assert Counter(r.answer for r in chosen) == {"yes": 30, "no": 30}


def test_several_letters_are_one_class_and_open_answers_are_none() -> None:
    assert answer_class("match_yesno", "Yes") == "yes"
    assert [answer_class("match_mcq", answer) for answer in ("B", "A, C", "B, D")] == ["B", "several", "several"]
    assert answer_class("chart", "B") == ""


def test_sources_share_a_function_in_proportion_to_what_their_quotas_allow() -> None:
    available = {("a", "chart"): 1000, ("b", "chart"): 40, ("c", "chart"): 240, ("c", "math"): 100}
    # Offers: a 120 by quota, b all 40, c 240 with no quota in the way. Together 400, of which 100 are wanted.
    found = divide_quotas(available, {"a": 120}, {"chart": 100})
    assert found == {("a", "chart"): 30, ("b", "chart"): 10, ("c", "chart"): 60, ("c", "math"): 100}


def test_what_one_function_cannot_use_of_a_source_goes_to_another() -> None:
    available = {("a", "chart"): 900, ("a", "math"): 100, ("b", "chart"): 900}
    # a offers 90 : 10. Chart takes 3 and 30 of 90 and 900; a has 87 left, and 90 more rows of math.
    assert divide_quotas(available, {"a": 100}, {"chart": 33}) == {
        ("a", "chart"): 3,
        ("a", "math"): 97,
        ("b", "chart"): 30,
    }


def test_shares_are_webster_seats() -> None:
    # Reservations at 1/6, 3/6, 5/6 of three claims and at 1/2 of one: the middle one of the large claim is named first.
    assert share_out([3, 1], 2) == [2, 0]
    assert share_out([3, 1], 3) == [2, 1]
    assert share_out([], 0) == []


def test_open_quotas_are_refused_where_the_recipe_is_strict() -> None:
    rows = [row(i, source="a" if i < 6 else "b") for i in range(10)]
    wanted: dict[str, object] = {"sources": {"a": 8, "b": 3}, "quotas": {"chart": 12, "math": 1}}
    assert len(kept(rows, select(rows, **wanted))) == 9  # type: ignore[arg-type]
    with pytest.raises(DataError, match="source a: 6 of 8; function chart: 9 of 12; function math: 0 of 1"):
        select(rows, **wanted, strict=True)  # type: ignore[arg-type]
    assert len(kept(rows, select(rows, sources={"a": 6}, quotas={"chart": 4}, strict=True))) == 4


def test_a_row_over_quota_says_which_one() -> None:
    rows = [row(i) for i in range(5)]
    details = {str(v) for v in select(rows, quotas={"chart": 2}) if isinstance(v, Refused)}
    assert details == {"over_quota: 2 of 5 rows of s are kept for chart"}


def test_two_rows_of_one_id_are_refused() -> None:
    with pytest.raises(DataError, match="sample_id r3 is the id of two rows"):
        select([row(1), row(3), row(3)])


FUNCTIONS = {"match_yesno": "matching", "match_mcq": "matching", "chart": "chart"}
any_row = st.tuples(
    st.sampled_from("abc"),
    st.sampled_from(sorted(FUNCTIONS)),
    st.sampled_from(["yes", "no", "A", "B", "A, C"]),
    st.one_of(st.none(), st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=2, max_size=3)),
)
any_rows = st.lists(any_row, max_size=40).map(
    lambda entries: [
        row(i, measured(*r) if r else None, source=source, task=task, function=FUNCTIONS[task], answer=answer)
        for i, (source, task, answer, r) in enumerate(entries)
    ]
)
quotas = st.dictionaries(st.sampled_from(["matching", "chart"]), st.integers(1, 12))
source_quotas = st.dictionaries(st.sampled_from("abc"), st.integers(1, 12))
BANDS = {"chart": BandConfig(keep_all_right_frac=0.5), "matching": BandConfig(min_mean=0.3)}


@settings(max_examples=150, deadline=None)
@given(rows=any_rows, quotas=quotas, sources=source_quotas, seed=st.integers(0, 3))
def test_quotas_hold_no_row_is_left_over_and_nothing_that_fits_is_left_out(
    rows: list[Selectable], quotas: dict[str, int], sources: dict[str, int], seed: int
) -> None:
    selection = select(rows, seed=seed, sources=sources, quotas=quotas, bands=BANDS, strata=QUARTERS)
    chosen = kept(rows, selection)
    by_source, by_function = Counter(r.source for r in chosen), Counter(r.function for r in chosen)
    assert len(selection) == len(rows)
    assert all(by_source[name] <= quota for name, quota in sources.items())
    assert all(by_function[name] <= quota for name, quota in quotas.items())
    for r, verdict in zip(rows, selection, strict=True):
        if isinstance(verdict, Refused) and verdict.reason is RejectReason.OVER_QUOTA:
            source_full = by_source[r.source] == sources.get(r.source)
            assert source_full or by_function[r.function] == quotas.get(r.function)


@settings(max_examples=100, deadline=None)
@given(rows=any_rows, quotas=quotas, sources=source_quotas, shuffle=st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_nothing(
    rows: list[Selectable], quotas: dict[str, int], sources: dict[str, int], shuffle: random.Random
) -> None:
    def verdicts(some: list[Selectable]) -> dict[str, str]:
        selection = select(some, sources=sources, quotas=quotas, bands=BANDS, strata=QUARTERS)
        return {r.sample_id: str(verdict) for r, verdict in zip(some, selection, strict=True)}

    expected = verdicts(rows)
    shuffled = list(rows)
    shuffle.shuffle(shuffled)
    assert verdicts(shuffled) == expected


@settings(max_examples=100, deadline=None)
@given(rows=any_rows, quota=st.integers(1, 20))
def test_a_larger_quota_keeps_all_that_a_smaller_one_keeps(rows: list[Selectable], quota: int) -> None:
    one_source = [replace(r, source="a") for r in rows]
    smaller, larger = (
        {r.sample_id for r in kept(one_source, select(one_source, quotas={"matching": n}, strata=QUARTERS))}
        for n in (quota, quota + 1)
    )
    assert smaller <= larger
    assert len(larger) - len(smaller) in (0, 1)


def test_another_seed_takes_other_rows_of_the_same_kinds() -> None:
    rows = [row(i, measured(i % 4 / 4), task="match_yesno", answer="yes" if i % 3 else "no") for i in range(300)]
    first, second = (kept(rows, select(rows, seed=s, quotas={"chart": 60}, strata=QUARTERS)) for s in (1, 2))
    assert first != second
    assert Counter(r.answer for r in first) == Counter(r.answer for r in second)
