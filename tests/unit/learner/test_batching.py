import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_learner import make_group

from learner.batching import TrainSequence, make_pieces, partition_groups, plan_micro_batches, split_minibatches


@given(st.lists(st.integers(1, 1000), max_size=40), st.integers(1, 8))
def test_partition_gives_every_group_to_one_rank_and_balances(token_counts, num_ranks):
    shares = partition_groups(token_counts, num_ranks)

    assert len(shares) == num_ranks
    assert sorted(index for share in shares for index in share) == list(range(len(token_counts)))
    loads = [sum(token_counts[i] for i in share) for share in shares]
    assert max(loads) - min(loads) <= max(token_counts, default=0)


def test_partition_takes_the_longest_first():
    assert partition_groups([5, 9, 4, 2], 2) == [[1, 3], [0, 2]]


def sequences_of(group):
    return [
        TrainSequence(index=i, advantages=np.ones(s.num_tokens, dtype=np.float32), token_weight=1.0)
        for i, s in enumerate(group.sequences)
    ]


@pytest.mark.parametrize("sharing", ["auto", "always", "never"])
@pytest.mark.parametrize("budget", [1, 40, 60, 10_000])
def test_every_sequence_stands_in_one_micro_batch_within_the_budget(budget, sharing):
    groups = [make_group(f"g{i}", lengths=(5, 9, 3 + i)) for i in range(5)]
    pieces = [
        piece
        for group in groups
        for piece in make_pieces(group, sequences_of(group), micro_batch_tokens=budget, prefix_sharing=sharing)
    ]

    batches = plan_micro_batches(pieces, budget)

    placed = sorted((p.group.group_id, s.index) for batch in batches for p in batch for s in p.sequences)
    assert placed == [(f"g{g}", i) for g in range(5) for i in range(3)]
    for batch in batches:
        is_single = len(batch) == 1 and len(batch[0].sequences) == 1
        assert is_single or sum(piece.num_tokens for piece in batch) <= budget


@pytest.mark.parametrize(
    ("sharing", "expected"), [("auto", [True, False]), ("always", [True] * 2), ("never", [False] * 2)]
)
def test_a_prompt_is_shared_where_that_saves_tokens(sharing, expected):
    groups = [make_group("several", lengths=(3, 4)), make_group("one", lengths=(3,))]

    found = [make_pieces(g, sequences_of(g), micro_batch_tokens=1000, prefix_sharing=sharing)[0] for g in groups]

    assert [piece.is_shared for piece in found] == expected
    prompts = [len(group.prompt_token_ids) for group in groups]
    assert found[0].num_tokens == 2 + 3 + prompts[0] * (1 if expected[0] else 2)
    assert found[1].num_tokens == 2 + prompts[1]


def test_minibatches_hold_every_group_once_and_do_not_depend_on_order():
    group_ids = [f"g{i}" for i in range(10)]

    parts = split_minibatches(group_ids, 3, seed=4)

    assert sorted(len(part) for part in parts) == [3, 3, 4]
    assert sorted(group_id for part in parts for group_id in part) == sorted(group_ids)
    assert split_minibatches(group_ids[::-1], 3, seed=4) == parts
    assert split_minibatches(group_ids, 3, seed=5) != parts
