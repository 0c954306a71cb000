import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_learner import make_group

from learner.batching import make_pieces, partition_groups, plan_micro_batches


@given(st.lists(st.integers(1, 1000), max_size=40), st.integers(1, 8))
def test_partition_gives_every_group_to_one_rank_and_balances(token_counts, num_ranks):
    shares = partition_groups(token_counts, num_ranks)

    assert len(shares) == num_ranks
    assert sorted(index for share in shares for index in share) == list(range(len(token_counts)))
    loads = [sum(token_counts[i] for i in share) for share in shares]
    assert max(loads) - min(loads) <= max(token_counts, default=0)


def test_partition_takes_the_longest_first():
    assert partition_groups([5, 9, 4, 2], 2) == [[1, 3], [0, 2]]


def test_masked_and_zero_advantage_sequences_are_left_out():
    group = make_group("g", lengths=(2, 2, 2, 2), masked=(False, True, False, False))

    [piece] = make_pieces(
        [group], [np.array([1.0, 0.0, 0.0, -1.0])], micro_batch_tokens=1000, keep_zero_advantages=False
    )

    assert piece.sequence_indices == (0, 3)
    assert piece.advantages == (1.0, -1.0)


def test_zero_advantages_stay_when_they_have_a_gradient_of_their_own():
    group = make_group("g", lengths=(2, 2, 2), masked=(False, True, False))

    [piece] = make_pieces([group], [np.zeros(3)], micro_batch_tokens=1000, keep_zero_advantages=True)

    assert piece.sequence_indices == (0, 2)


@pytest.mark.parametrize("budget", [1, 40, 60, 10_000])
def test_every_sequence_stands_in_one_micro_batch_within_the_budget(budget):
    groups = [make_group(f"g{i}", lengths=(5, 9, 3 + i)) for i in range(5)]
    pieces = make_pieces(groups, [np.ones(3)] * 5, micro_batch_tokens=budget, keep_zero_advantages=False)

    batches = plan_micro_batches(pieces, budget)

    placed = sorted((p.group.group_id, i) for batch in batches for p in batch for i in p.sequence_indices)
    assert placed == [(f"g{g}", i) for g in range(5) for i in range(3)]
    for batch in batches:
        is_single = len(batch) == 1 and len(batch[0].sequence_indices) == 1
        assert is_single or sum(piece.num_tokens for piece in batch) <= budget
