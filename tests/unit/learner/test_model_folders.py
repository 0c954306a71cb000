"""What is read from a model folder, what is frozen by name, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from plain_model import whole_policy
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_learner import FAMILIES

from learner.attention.sdpa import SdpaKernel
from learner.errors import LearnerError
from learner.policy.images import ImageEncoder
from learner.policy.source import FolderSource, PretrainedWeights, RandomWeights, checkpoint_names
from learner.policy.trainable import freeze_parameters

# By family: parameters of the tower, the projector, the language model (tied head), which together are all.
PARTS = {
    "qwen2_5_vl": (
        "model.visual.blocks.0.attn.qkv.weight",
        "model.visual.merger.mlp.0.weight",
        "model.language_model.norm.weight",
    ),
    "internvl": (
        "model.vision_tower.embeddings.cls_token",
        "model.multi_modal_projector.linear_1.weight",
        "model.language_model.norm.weight",
    ),
}


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def folder(model_paths, family):
    return model_paths[family]


@pytest.fixture
def skeleton(folder):
    return FolderSource(folder, SdpaKernel(), temperature=1.0).skeleton()


def test_a_skeleton_has_no_storage_but_true_buffers(skeleton, folder):
    from transformers import AutoModelForImageTextToText

    plain = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)

    assert all(parameter.is_meta for parameter in skeleton.parameters())
    buffers = dict(skeleton.hf_model.named_buffers())
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(buffers[name], buffer, rtol=0, atol=0)


def test_weights_read_by_rows_are_those_of_transformers(skeleton, folder):
    from transformers import AutoModelForImageTextToText

    weights = PretrainedWeights(folder, skeleton.hf_model)
    plain = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)

    for name, parameter in plain.named_parameters():
        assert torch.equal(weights.rows(name), parameter), name
        assert torch.equal(weights.rows(name, 1, 3), parameter[1:3]), name


def test_checkpoint_names_are_those_in_the_models_own_file(skeleton, folder):
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert set(checkpoint_names(skeleton.hf_model).values()) == set(file.keys())


def test_a_sharded_folder_reads_like_a_whole_one(folder, tmp_path):
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for path in folder.glob("*.json"):
        shutil.copy(path, tmp_path)
    for file, own in parts.items():
        save_file({name: tensors[name] for name in own}, tmp_path / file)
    weight_map = {name: file for file, own in parts.items() for name in own}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    whole, sharded = whole_policy(folder), whole_policy(tmp_path)

    for (name, one), (_, other) in zip(whole.named_parameters(), sharded.named_parameters(), strict=True):
        assert torch.equal(one, other), name
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(LearnerError, match=r"lacks b\.safetensors; download the whole checkpoint"):
        whole_policy(tmp_path)


def test_a_folder_that_lacks_a_tensor_is_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    del tensors[next(name for name in tensors if "norm" in name)]
    save_file(tensors, tmp_path / "model" / "model.safetensors")

    with pytest.raises(LearnerError, match="the weight files lack 1 parameters of this architecture, one is model"):
        whole_policy(tmp_path / "model")


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_part_is_frozen_by_name(skeleton, family, part):
    name = ("vision_tower", "projector", "language_model")[part]

    freeze_parameters(skeleton, (name,))

    expected = [index != part for index in range(3)]
    assert [skeleton.hf_model.get_parameter(p).requires_grad for p in PARTS[family]] == expected


def test_the_three_parts_are_the_whole_model(skeleton):
    with pytest.raises(LearnerError, match="freezes every parameter; leave something to train"):
        freeze_parameters(skeleton, ("vision_tower", "projector", "language_model"))


def test_a_freeze_pattern_that_matches_nothing_is_an_error(skeleton):
    with pytest.raises(LearnerError, match=r"pattern 'vision\.\*' matches no parameter; use vision_tower, projector"):
        freeze_parameters(skeleton, ("vision.*",))


def test_a_folder_without_a_known_model_is_refused(tmp_path):
    with pytest.raises(LearnerError, match=r"holds no config\.json"):
        FolderSource(tmp_path, SdpaKernel(), temperature=1.0).skeleton()
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(LearnerError, match=r"model_type is 'llama'; supported: internvl, qwen2_5_vl\. Another"):
        FolderSource(tmp_path, SdpaKernel(), temperature=1.0).skeleton()


def test_a_folder_without_a_processor_is_refused(skeleton, folder, tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(folder / name, tmp_path)

    with pytest.raises(LearnerError, match=r"holds no image processor \(preprocessor_config\.json"):
        ImageEncoder.from_pretrained(tmp_path, skeleton.family)


@pytest.mark.parametrize("is_copy", [False, True])
def test_an_output_head_of_its_own_is_trained_as_one_whatever_the_configuration_says(folder, tmp_path, is_copy):
    """transformers' InternVLConfig ties the two unless config.json says otherwise, and published ones do not say."""
    untied = tmp_path / "untied"
    shutil.copytree(folder, untied)
    tensors = load_file(untied / "model.safetensors")
    table = next(name for name in tensors if name.endswith("embed_tokens.weight"))
    head = tensors[table].clone() if is_copy else tensors[table] + 1.0
    name = table.replace("model.embed_tokens", "lm_head") if "language_model.model" in table else "lm_head.weight"
    save_file(tensors | {name: head}, untied / "model.safetensors", metadata={"format": "pt"})

    source = FolderSource(untied, SdpaKernel(), temperature=1.0)
    policy = source.skeleton()

    is_separate = "lm_head.weight" in dict(policy.hf_model.named_parameters())
    assert is_separate == (not is_copy)
    if is_separate:
        assert torch.equal(source.weights(policy).rows("lm_head.weight"), head)
        assert checkpoint_names(policy.hf_model)["lm_head.weight"] == name


def test_rows_are_those_of_the_whole_tensor_however_they_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RandomWeights, "BLOCK_ROWS", 4)
    weights = RandomWeights({"a.weight": (11, 3), "norm.weight": (5,), "scale": ()}, torch.float32)
    whole = weights.rows("a.weight")
    assert whole.shape == (11, 3)
    for start, stop in ((0, 4), (3, 9), (10, 11), (11, 11), (2, None)):
        torch.testing.assert_close(weights.rows("a.weight", start, stop), whole[start:stop], rtol=0, atol=0)
    assert weights.rows("norm.weight").shape == (5,)
    assert weights.rows("scale").shape == ()
    assert 0.5 < float(weights.rows("norm.weight").mean()) < 1.5


def test_a_folder_without_weights_makes_a_policy_of_its_shape(model_paths: dict[str, Path], tmp_path: Path) -> None:
    for family, path in model_paths.items():
        folder = tmp_path / family
        folder.mkdir()
        (folder / "config.json").write_text((path / "config.json").read_text())
        source = FolderSource(folder, SdpaKernel(), temperature=1.0, random_weights=True)
        policy = source.skeleton()
        weights = source.weights(policy)
        for name, parameter in policy.hf_model.named_parameters():
            assert weights.rows(name).shape == parameter.shape
