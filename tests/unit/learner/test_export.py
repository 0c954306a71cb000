"""Exported folders: what is written, with which modes and types, and that published folders come out as they were."""

import json
import os
import shutil

import pytest
import torch
from learner_scenarios import start_trainer
from plain_model import whole_policy
from safetensors.torch import load_file, save_file

from learner.attention.sdpa import SdpaKernel
from learner.errors import LearnerError
from learner.export import export_model
from learner.policy.conversion import checkpoint_names
from learner.policy.source import FolderSource
from tests.published_checkpoints import write_published

NAMES = ("qwen2_5_vl_3b", "qwen2_5_vl_7b", "internvl3_1b")


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


def tensors_in(folder):
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


@pytest.mark.parametrize("name", NAMES)
def test_an_export_has_the_published_names_types_and_files(name, tmp_path):
    from transformers import AutoModelForImageTextToText

    published = write_published(tmp_path / "model", name)
    trainer = start_trainer(0, 1, 0, tmp_path / "model")
    trainer.export(tmp_path / "untrained")
    with torch.no_grad():
        for parameter in trainer.backend.policy.parameters():
            parameter.mul_(2.0)
    trainer.export(tmp_path / "trained")
    trainer.close()

    began, untrained, trained = (tensors_in(tmp_path / folder) for folder in ("model", "untrained", "trained"))
    assert untrained.keys() == trained.keys() == began.keys() == published
    for key, tensor in began.items():
        # Through float32 and back nothing is rounded.
        torch.testing.assert_close(untrained[key], tensor, rtol=0, atol=0)
        torch.testing.assert_close(trained[key], 2 * tensor, rtol=0, atol=0)
    for path in (tmp_path / "model").iterdir():
        if "safetensors" not in path.name:
            assert (tmp_path / "trained" / path.name).read_bytes() == path.read_bytes(), path.name
    loaded, report = AutoModelForImageTextToText.from_pretrained(tmp_path / "trained", output_loading_info=True)
    assert not any(report.values()), report
    assert loaded.dtype == torch.bfloat16


def test_quantised_weights_are_refused_by_name_and_type(tmp_path):
    write_published(tmp_path / "model", "qwen2_5_vl_3b")
    index = json.loads((tmp_path / "model" / "model.safetensors.index.json").read_text())
    key = "model.layers.0.mlp.up_proj.weight"
    file = tmp_path / "model" / index["weight_map"][key]
    tensors = load_file(file)
    save_file({**tensors, key: tensors[key].to(torch.float8_e4m3fn)}, file, metadata={"format": "pt"})

    source = FolderSource(tmp_path / "model", SdpaKernel(), temperature=1.0)
    weights = source.weights(source.skeleton())

    with pytest.raises(LearnerError, match=rf"{file.name}: {key} is stored as F8_E4M3, .* is not quantised"):
        weights.dtype("model.language_model.layers.0.mlp.up_proj.weight")
