"""What is read from the model folder of each family, and what is frozen by name."""

import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from learner.attention.sdpa import SdpaKernel
from learner.errors import LearnerError
from learner.families.base import PARTS
from learner.policy.conversion import buffer_names, checkpoint_names
from learner.policy.source import FolderSource, PretrainedWeights
from learner.policy.trainable import freeze_parameters


@pytest.fixture
def skeleton(folder, own_family):
    return FolderSource(folder, SdpaKernel(), temperature=1.0, own_family=own_family).skeleton()


def test_a_skeleton_has_no_storage_but_true_buffers(skeleton, folder, case):
    plain = case.model_class.from_pretrained(folder, dtype=torch.float32)

    assert all(parameter.is_meta for parameter in skeleton.parameters())
    buffers = dict(skeleton.hf_model.named_buffers())
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(buffers[name], buffer, rtol=0, atol=0)


def test_weights_read_by_rows_are_those_of_transformers(skeleton, folder, case):
    weights = PretrainedWeights(folder, skeleton.hf_model)
    plain = case.model_class.from_pretrained(folder, dtype=torch.float32)

    for name, parameter in plain.named_parameters():
        assert torch.equal(weights.rows(name), parameter), name
        assert torch.equal(weights.rows(name, 1, 3), parameter[1:3]), name


def test_checkpoint_names_are_those_in_the_models_own_file(skeleton, folder):
    with safe_open(folder / "model.safetensors", "pt") as file:
        names = checkpoint_names(skeleton.hf_model) | buffer_names(skeleton.hf_model)
        assert set(names.values()) == set(file.keys())


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_frozen_by_name(skeleton, case, part):
    if part not in case.parts:
        with pytest.raises(LearnerError, match=f"'{part}' matches no parameter"):
            freeze_parameters(skeleton, (part,))
        return
    if len(case.parts) > 1:
        freeze_parameters(skeleton, (part,))

        frozen = {name: not skeleton.hf_model.get_parameter(found).requires_grad for name, found in case.parts.items()}
        assert frozen == {name: name == part for name in case.parts}


def test_the_parts_are_the_whole_model(skeleton, case):
    with pytest.raises(LearnerError, match="freezes every parameter; leave something to train"):
        freeze_parameters(skeleton, tuple(case.parts))


@pytest.mark.parametrize("is_copy", [False, True])
def test_an_output_head_of_its_own_is_trained_as_one_whatever_the_configuration_says(
    folder, own_family, tmp_path, is_copy
):
    """transformers' InternVLConfig ties the two unless config.json says otherwise, and published ones do not say."""
    untied = tmp_path / "untied"
    shutil.copytree(folder, untied)
    tensors = load_file(untied / "model.safetensors")
    table = next(name for name in tensors if name.endswith("embed_tokens.weight"))
    head = tensors[table].clone() if is_copy else tensors[table] + 1.0
    name = table.replace("model.embed_tokens", "lm_head") if "language_model.model" in table else "lm_head.weight"
    save_file(tensors | {name: head}, untied / "model.safetensors", metadata={"format": "pt"})

    source = FolderSource(untied, SdpaKernel(), temperature=1.0, own_family=own_family)
    policy = source.skeleton()

    is_separate = "lm_head.weight" in dict(policy.hf_model.named_parameters())
    assert is_separate == (not is_copy)
    if is_separate:
        assert torch.equal(source.weights(policy).rows("lm_head.weight"), head)
        assert checkpoint_names(policy.hf_model)["lm_head.weight"] == name
