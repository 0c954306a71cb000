"""Folders as their makers publish them go through the learner and come out as they were."""

import json

import pytest
import torch
from learner_scenarios import start_trainer
from safetensors.torch import load_file, save_file

from learner.attention.sdpa import SdpaKernel
from learner.errors import LearnerError
from learner.policy.source import FolderSource
from tests.published_checkpoints import write_published

NAMES = ("qwen2_5_vl_3b", "qwen2_5_vl_7b", "internvl3_1b")


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
