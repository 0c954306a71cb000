"""What is read from a model folder, what is frozen by name, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from plain_model import whole_policy
from safetensors.torch import load_file, save_file

from learner.attention.sdpa import SdpaKernel
from learner.errors import LearnerError
from learner.policy.images import ImageEncoder
from learner.policy.source import FolderSource, RandomWeights
from learner.policy.trainable import freeze_parameters


@pytest.fixture
def folder(model_path):
    return model_path


@pytest.fixture
def skeleton(folder):
    return FolderSource(folder, SdpaKernel(), temperature=1.0).skeleton()


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


def test_a_freeze_pattern_that_matches_nothing_is_an_error(skeleton):
    with pytest.raises(LearnerError, match=r"pattern 'vision\.\*' matches no parameter; use vision_tower, projector"):
        freeze_parameters(skeleton, ("vision.*",))


def test_a_folder_without_a_known_model_is_refused(tmp_path):
    with pytest.raises(LearnerError, match=r"holds no config\.json"):
        FolderSource(tmp_path, SdpaKernel(), temperature=1.0).skeleton()
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(LearnerError, match=r"model_type is 't5', which does not train: .* take a"):
        FolderSource(tmp_path, SdpaKernel(), temperature=1.0).skeleton()


def test_a_folder_without_a_processor_is_refused(skeleton, folder, tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(folder / name, tmp_path)

    with pytest.raises(LearnerError, match=r"holds no image processor \(preprocessor_config\.json"):
        ImageEncoder.from_pretrained(tmp_path, skeleton.family)


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
