import json
import random

import numpy as np
import pytest
import torch
from plain_model import whole_policy

from learner import checkpoint
from learner.errors import CheckpointError
from learner.export import export_model
from learner.random_state import load_random_state, save_random_state, seed_process


def write_checkpoint(directory, step, extra=None):
    written = checkpoint.begin(directory, step)
    (written / "data").write_text("x")
    return checkpoint.commit(written, {"step": step, "extra": extra or {}})


def test_a_partial_checkpoint_is_passed_over(tmp_path):
    whole = write_checkpoint(tmp_path, 3, extra={"cursor": 7})
    checkpoint.begin(tmp_path, 4)
    unmarked = checkpoint.step_folder(tmp_path, 5)
    unmarked.mkdir()

    assert checkpoint.latest_complete(tmp_path) == whole
    assert checkpoint.read_extra(whole) == {"cursor": 7}
    with pytest.raises(CheckpointError, match="step_00000005 is no complete checkpoint"):
        checkpoint.read_extra(unmarked)


def test_no_directory_means_no_checkpoint(tmp_path):
    assert checkpoint.latest_complete(tmp_path / "none") is None


def test_a_new_attempt_clears_what_a_dead_process_left(tmp_path):
    (checkpoint.begin(tmp_path, 1) / "stale").write_text("x")

    assert list(checkpoint.begin(tmp_path, 1).iterdir()) == []


def test_prune_keeps_the_newest_and_touches_no_partial_one(tmp_path):
    for step in (1, 2, 10):
        write_checkpoint(tmp_path, step)
    partial = checkpoint.begin(tmp_path, 11)

    checkpoint.prune(tmp_path, keep_last=2)

    assert [folder.name for folder in checkpoint.list_complete(tmp_path)] == ["step_00000002", "step_00000010"]
    assert partial.is_dir()
    with pytest.raises(CheckpointError, match="keep_last is 0"):
        checkpoint.prune(tmp_path, keep_last=0)


def test_a_step_saved_twice_holds_the_second(tmp_path):
    write_checkpoint(tmp_path, 1, extra={"try": 1})

    assert checkpoint.read_extra(write_checkpoint(tmp_path, 1, extra={"try": 2})) == {"try": 2}


def test_random_state_returns(tmp_path):
    seed_process(5)
    save_random_state(tmp_path / "random.pt")
    drawn = (torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random())

    load_random_state(tmp_path / "random.pt")

    assert (torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()) == drawn


@pytest.mark.parametrize("max_shard_bytes", [10**9, 100_000])
def test_an_exported_folder_loads_with_transformers(model_path, tmp_path, max_shard_bytes):
    from transformers import AutoImageProcessor, AutoModelForImageTextToText

    from learner.pretrained import checkpoint_names

    policy = whole_policy(model_path)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.5)
    names = checkpoint_names(policy.hf_model)
    tensors = ((names[name], parameter) for name, parameter in policy.hf_model.named_parameters())

    export_model(
        tensors, source=model_path, target=tmp_path / "out", dtype=torch.float32, max_shard_bytes=max_shard_bytes
    )

    loaded, report = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    for name, parameter in loaded.named_parameters():
        torch.testing.assert_close(parameter, policy.hf_model.get_parameter(name), rtol=0, atol=0)
    assert AutoImageProcessor.from_pretrained(tmp_path / "out").merge_size == 2
    assert not (tmp_path / "out.tmp").exists()
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "qwen2_5_vl"
