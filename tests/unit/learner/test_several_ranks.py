"""Two ranks over gloo against one."""

import numpy as np
import pytest
from learner_scenarios import (
    CASES,
    assert_same_weights,
    check_two_ranks,
    fail_together,
    fetch,
    live_case,
    one_rank_has_nothing,
    own_code_fails,
    resume,
    run_in_turn,
    save_and_go_on,
    train_and_save_on_the_way,
    train_on,
)
from pyarrow import fs
from tiny_learner import run_ranks

from learner import checkpoint
from learner.errors import LearnerError, NonFiniteLossError
from learner.store import FileStore, open_store


@pytest.fixture(scope="module")
def two_ranks(model_paths, tmp_path_factory):
    calls = [(live_case, model_paths, name, {}) for name in CASES]
    return dict(zip(CASES, run_in_turn(2, tmp_path_factory.mktemp("two"), calls), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_update_as_one_does(name, one_rank, two_ranks, differences):
    check_two_ranks(differences, "2 ranks = 1 rank, FSDP2", name, one_rank(name), two_ranks[name])


@pytest.fixture(scope="module")
def uneven_and_failing(model_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uneven")
    (folder / "by_process.py").write_text(
        "import os\n\ndef f(groups):\n    return [g.rewards * os.getpid() for g in groups]\n"
    )
    (folder / "on_one.py").write_text(
        "def f(tokens):\n    assert tokens.lengths[0] != 5, 'five'\n    return tokens.logprobs * tokens.advantages\n"
    )
    own = [{"advantage": f"{folder}/by_process.py:f"}, {"objective": f"{folder}/on_one.py:f"}]
    calls = [(one_rank_has_nothing, model_path), (fail_together, model_path), (own_code_fails, model_path, own)]
    return run_in_turn(2, folder, calls)


def test_ranks_with_text_with_nothing_and_without_signal_keep_in_step(uneven_and_failing):
    first, second = uneven_and_failing[0]

    assert first["metrics"] == second["metrics"]
    assert first["metrics"][2]["learner/zero_signal_frac"] == 1.0
    assert first["metrics"][2]["policy/grad_norm"] == 0.0


def test_a_bad_group_or_a_nan_on_one_rank_raises_on_all_and_moves_nothing(uneven_and_failing):
    for result in uneven_and_failing[1]:
        unusable, non_finite = result["raised"]
        assert isinstance(unusable, LearnerError)
        assert "rank 1: group wrong_image" in str(unusable)
        assert isinstance(non_finite, NonFiniteLossError)
        assert non_finite.group_ids == ("poisoned",)
        assert result["is_unchanged"]
        assert result["weight_version"] == 1


def test_own_code_that_differs_by_rank_or_fails_on_one_raises_on_all(uneven_and_failing):
    first, second = uneven_and_failing[2]

    assert first == second
    assert "returned other numbers on some learner ranks than on others" in first[0]
    assert "on_one.py:f raised AssertionError at" in first[1]
    assert "on_one.py:2: five" in first[1]


def test_a_checkpoint_holds_the_state_of_its_staging_and_goes_on_on_two_ranks_and_on_one(model_path, tmp_path):
    written = run_ranks(2, save_and_go_on, tmp_path / "write", model_path, tmp_path / "checkpoints")
    store = open_store(tmp_path / "checkpoints")
    whole = checkpoint.newest_whole(store, pass_over=pytest.fail)
    assert (whole.step, whole.num_ranks, whole.weight_version, whole.extra) == (2, 2, 2, {"cursor": 5})
    folder = tmp_path / "checkpoints" / whole.name

    remote = FileStore(fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), "checkpoints")
    calls = [(resume, model_path, folder), (fetch, model_path, remote, 2, tmp_path / "staging")]
    two, fetched = run_in_turn(2, tmp_path / "two", calls)
    one = resume(0, 1, 0, model_path, folder)

    assert [rank["drawn"] for rank in two] == [rank["drawn"] for rank in written]
    assert written[0]["drawn"] != written[1]["drawn"]
    assert one["version"] == two[0]["version"] == 2
    assert any(not np.array_equal(written[0]["staged"][name], after) for name, after in written[0]["weights"].items())
    assert_same_weights(two[0]["loaded"], written[0]["staged"], atol=0)
    assert_same_weights(one["loaded"], written[0]["staged"], atol=0)
    assert_same_weights(fetched[0]["loaded"], written[0]["staged"], atol=0)
    assert [rank["is_writer"] for rank in fetched] == [True, False]
    assert fetched[0]["folder"] == fetched[1]["folder"]
    assert fetched[0]["folder"].is_relative_to(tmp_path / "staging")
    assert fetched[1]["files"] == {entry.name for entry in whole.files}
    assert list((tmp_path / "staging").iterdir()) == []
    assert_same_weights(two[0]["weights"], written[0]["weights"], atol=0)
    assert_same_weights(one["weights"], written[0]["weights"], atol=1e-4)


@pytest.mark.parametrize("num_ranks", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(num_ranks, model_path, tmp_path):
    directory = tmp_path / "checkpoints"
    whole = run_ranks(num_ranks, train_and_save_on_the_way, tmp_path / "whole", model_path, directory)
    resumed = run_ranks(num_ranks, train_on, tmp_path / "resumed", model_path, directory)

    for unbroken, after in zip(whole, resumed, strict=True):
        assert after["metrics"] == unbroken["metrics"]
        assert_same_bits(after["weights"], unbroken["weights"])
        assert any(not np.array_equal(unbroken["saved"][name], value) for name, value in after["weights"].items())


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name].dtype == expected[name].dtype, name
        assert found[name].tobytes() == expected[name].tobytes(), name
