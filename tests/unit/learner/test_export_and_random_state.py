import json
import os
import random
import shutil

import numpy as np
import pytest
import torch
from plain_model import whole_policy

from learner.export import export_model
from learner.ranks import load_random_state, save_random_state, seed_process


def test_random_state_returns(tmp_path):
    seed_process(5)
    save_random_state(tmp_path / "random.pt")
    drawn = (torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random())

    load_random_state(tmp_path / "random.pt")

    assert (torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()) == drawn


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_exported_files_have_the_mode_that_the_umask_says(umask, model_path, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(model_path, source)
    (source / "config.json").chmod(0o400)
    before = os.umask(umask)
    try:
        export_model(
            [("a", torch.zeros(2)), ("b", torch.zeros(2))],
            source=source,
            target=tmp_path / "out",
            dtypes={"a": torch.float32, "b": torch.float32},
            max_shard_bytes=8,
        )
    finally:
        os.umask(before)

    files = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()}
    assert {"config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json"} <= files.keys()
    assert set(files.values()) == {0o666 & ~umask}
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o777 & ~umask


@pytest.mark.parametrize("max_shard_bytes", [10**9, 100_000])
def test_an_exported_folder_loads_with_transformers(model_path, tmp_path, max_shard_bytes):
    from transformers import AutoImageProcessor, AutoModelForImageTextToText

    from learner.policy.source import checkpoint_names

    policy = whole_policy(model_path)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.5)
    names = checkpoint_names(policy.hf_model)
    tensors = ((names[name], parameter) for name, parameter in policy.hf_model.named_parameters())

    export_model(
        tensors,
        source=model_path,
        target=tmp_path / "out",
        dtypes=dict.fromkeys(names.values(), torch.float32),
        max_shard_bytes=max_shard_bytes,
    )

    loaded, report = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    for name, parameter in loaded.named_parameters():
        torch.testing.assert_close(parameter, policy.hf_model.get_parameter(name), rtol=0, atol=0)
    assert AutoImageProcessor.from_pretrained(tmp_path / "out").merge_size == 2
    assert not (tmp_path / "out.tmp").exists()
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "qwen2_5_vl"
