"""Random weights stand for a checkpoint's: the same for every rank and whoever asks, whole or a few rows at a time."""

from pathlib import Path

import pytest
import torch

from learner.attention.sdpa import SdpaKernel
from learner.policy.source import RandomSource, RandomWeights


def test_rows_are_those_of_the_whole_tensor_however_they_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RandomWeights, "BLOCK_ROWS", 4)
    weights = RandomWeights({"a.weight": (11, 3), "norm.weight": (5,), "scale": ()}, torch.float32)
    whole = weights.full("a.weight")
    assert whole.shape == (11, 3)
    for start, stop in ((0, 4), (3, 9), (10, 11), (11, 11), (2, None)):
        torch.testing.assert_close(weights.rows("a.weight", start, stop), whole[start:stop], rtol=0, atol=0)
    assert weights.full("norm.weight").shape == (5,)
    assert weights.full("scale").shape == ()
    assert 0.5 < float(weights.full("norm.weight").mean()) < 1.5


def test_a_folder_without_weights_makes_a_policy_of_its_shape(model_paths: dict[str, Path], tmp_path: Path) -> None:
    for family, path in model_paths.items():
        folder = tmp_path / family
        folder.mkdir()
        (folder / "config.json").write_text((path / "config.json").read_text())
        source = RandomSource(folder, SdpaKernel(), temperature=1.0)
        policy = source.skeleton()
        weights = source.weights(policy)
        for name, parameter in policy.hf_model.named_parameters():
            assert weights.full(name).shape == parameter.shape
