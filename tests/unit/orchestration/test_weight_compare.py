"""Fingerprints: what differs is named, merged tensors add up, shards are left out."""

from orchestration.weight_sync import compare_fingerprints, sample_evenly

SENT = {"q": (4, 1.0, 2.0), "k": (2, 0.5, 1.0), "norm": (3, 3.0, 3.0)}
MEMBERS = {"q": "qk_proj", "k": "qk_proj", "norm": "norm"}


def test_equal_weights_agree_also_where_the_engine_merges_tensors() -> None:
    assert compare_fingerprints(SENT, {"qk_proj": (6, 1.5, 3.0), "norm": (3, 3.0, 3.0)}, MEMBERS) == ([], 2)


def test_stale_tensor_is_named() -> None:
    assert compare_fingerprints(SENT, {"qk_proj": (6, 1.5, 3.0), "norm": (3, 3.001, 3.0)}, MEMBERS) == (["norm"], 2)


def test_permuted_sign_is_seen_although_the_squares_agree() -> None:
    assert compare_fingerprints(SENT, {"qk_proj": (6, 1.5, 3.0), "norm": (3, -3.0, 3.0)}, MEMBERS)[0] == ["norm"]


def test_shard_cannot_be_compared_and_is_not_counted() -> None:
    assert compare_fingerprints(SENT, {"qk_proj": (3, 0.7, 1.4), "norm": (3, 3.0, 3.0)}, MEMBERS) == ([], 1)


def test_sample_spreads_over_the_names() -> None:
    names = [f"{i:03d}" for i in range(100)]
    assert sample_evenly(names, 3) == ["000", "050", "099"]
    assert sample_evenly(names[:2], 64) == ["000", "001"]
