"""Two ranks over gloo against one."""

import numpy as np
import pytest
from learner_scenarios import (
    NUM_STEPS,
    fail_together,
    one_rank_has_nothing,
    resume,
    save_and_go_on,
    train_steps,
)
from tiny_learner import run_ranks

from learner import checkpoint
from learner.errors import LearnerError, NonFiniteLossError


def assert_same_weights(found, expected, atol):
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize(
    "changes", [{}, {"activation_checkpointing": True, "algorithm": {"kl_coef": 0.05}}], ids=["plain", "recompute-kl"]
)
def test_two_ranks_update_as_one_does(model_path, tmp_path, changes):
    one = train_steps(0, 1, 0, model_path, changes)
    first, second = run_ranks(2, train_steps, tmp_path / "two", model_path, changes)

    # Adam divides by the gradient's own size, which blows rounding up where a gradient is nearly 0.
    assert_same_weights(first["weights"], one["weights"], atol=1e-4)
    assert_same_weights(second["weights"], first["weights"], atol=0)
    assert len(first["metrics"]) == NUM_STEPS
    assert second["metrics"] == first["metrics"]
    for ours, alone in zip(first["metrics"], one["metrics"], strict=True):
        for name in alone.keys() - {"learner/num_forward_tokens"}:
            assert ours[name] == pytest.approx(alone[name], rel=1e-3, abs=1e-4), name
    for ours, alone in zip(first["logprobs"], one["logprobs"], strict=True):
        np.testing.assert_allclose(ours, alone, atol=1e-3)


def test_ranks_with_text_with_nothing_and_without_signal_keep_in_step(model_path, tmp_path):
    first, second = run_ranks(2, one_rank_has_nothing, tmp_path, model_path)

    assert first["metrics"] == second["metrics"]
    assert first["metrics"][2]["learner/zero_signal_frac"] == 1.0
    assert first["metrics"][2]["policy/grad_norm"] == 0.0


def test_a_bad_group_or_a_nan_on_one_rank_raises_on_all_and_moves_nothing(model_path, tmp_path):
    for result in run_ranks(2, fail_together, tmp_path, model_path):
        unusable, non_finite = result["raised"]
        assert isinstance(unusable, LearnerError)
        assert "rank 1: group wrong_image" in str(unusable)
        assert isinstance(non_finite, NonFiniteLossError)
        assert non_finite.group_ids == ("poisoned",)
        assert result["is_unchanged"]
        assert result["weight_version"] == 1


def test_a_checkpoint_goes_on_on_two_ranks_and_on_one(model_path, tmp_path):
    written = run_ranks(2, save_and_go_on, tmp_path / "write", model_path, tmp_path / "checkpoints")
    folder = checkpoint.latest_complete(tmp_path / "checkpoints")
    assert checkpoint.read_extra(folder) == {"cursor": 5}

    two = run_ranks(2, resume, tmp_path / "two", model_path, folder)
    one = resume(0, 1, 0, model_path, folder)

    assert [rank["drawn"] for rank in two] == [rank["drawn"] for rank in written]
    assert written[0]["drawn"] != written[1]["drawn"]
    assert one["version"] == two[0]["version"] == 2
    assert_same_weights(two[0]["weights"], written[0]["weights"], atol=0)
    assert_same_weights(one["weights"], written[0]["weights"], atol=1e-4)
