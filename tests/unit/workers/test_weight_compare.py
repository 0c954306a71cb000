"""Comparison of fingerprints: what differs is named, merged tensors are joined, shards are left out."""

from orchestration.workers.weight_sync import compare_fingerprints, join_fingerprints, sample_evenly

SENT = {"q": (4, 10, 12), "k": (2, 7, 3), "norm": (3, 30, 33)}
MEMBERS = {"q": "qk_proj", "k": "qk_proj", "norm": "norm"}
QK = (6, 10 + 7, 12 + 3 + 4 * 7)
"""The elements of k stand behind the four of q."""


def test_equal_weights_agree_also_where_the_engine_merges_tensors() -> None:
    assert compare_fingerprints(SENT, {"qk_proj": QK, "norm": (3, 30, 33)}, MEMBERS) == ([], 2)


def test_stale_tensor_is_named() -> None:
    assert compare_fingerprints(SENT, {"qk_proj": QK, "norm": (3, 31, 33)}, MEMBERS) == (["norm"], 2)


def test_elements_that_changed_places_are_seen_although_their_sum_agrees() -> None:
    assert compare_fingerprints(SENT, {"qk_proj": QK, "norm": (3, 30, 34)}, MEMBERS)[0] == ["norm"]


def test_parts_merged_in_the_other_order_are_seen() -> None:
    swapped = {"k": "qk_proj", "q": "qk_proj", "norm": "norm"}
    assert compare_fingerprints(SENT, {"qk_proj": QK, "norm": (3, 30, 33)}, swapped)[0] == ["qk_proj"]


def test_sums_of_joined_tensors_wrap_around_as_those_of_one_tensor_do() -> None:
    assert join_fingerprints([(2, 2**63 - 1, 0), (1, 1, 0)]) == (3, -(2**63), 2)


def test_shard_cannot_be_compared_and_is_not_counted() -> None:
    assert compare_fingerprints(SENT, {"qk_proj": (3, 7, 1), "norm": (3, 30, 33)}, MEMBERS) == ([], 1)


def test_sample_spreads_over_the_names() -> None:
    names = [f"{i:03d}" for i in range(100)]
    assert sample_evenly(names, 3) == ["000", "050", "099"]
    assert sample_evenly(names[:2], 64) == ["000", "001"]
