import pytest
import torch

from learner.algorithms.objectives import sequence_sums, token_weights


def weights(aggregation, lengths, num_tokens=8, num_sequences=4, max_completion_tokens=10):
    found = token_weights(
        aggregation,
        lengths,
        num_tokens=num_tokens,
        num_sequences=num_sequences,
        max_completion_tokens=max_completion_tokens,
    )
    assert found.dtype == torch.float32
    return found.tolist()


def test_token_weights_are_one_over_the_steps_tokens():
    assert weights("token", [1, 3]) == [0.125] * 4


def test_sequence_weights_are_one_over_sequences_and_their_length():
    # 1 / (4 * 1), 1 / (4 * 4)
    assert weights("sequence", [1, 4]) == [0.25] + [0.0625] * 4


def test_constant_weights_do_not_see_lengths():
    # 1 / (4 * 10)
    assert weights("constant", [1, 2]) == pytest.approx([0.025] * 3)


@pytest.mark.parametrize("aggregation", ["token", "sequence"])
def test_weights_of_the_whole_step_add_up_to_one(aggregation):
    assert sum(weights(aggregation, [1, 3, 2, 2])) == pytest.approx(1.0)


def test_no_sequence_makes_no_weight():
    assert weights("token", [], num_tokens=0, num_sequences=0) == []


def test_constant_without_a_limit_is_refused():
    with pytest.raises(ValueError, match="max_completion_tokens is 0; aggregation=constant divides by it"):
        weights("constant", [1], max_completion_tokens=0)


def test_sequence_sums_stand_at_each_token_and_carry_gradients():
    values = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)

    found = sequence_sums(values, [1, 2])
    found[1].backward()

    assert found.tolist() == [1.0, 6.0, 6.0]
    assert values.grad.tolist() == [0.0, 1.0, 1.0]
