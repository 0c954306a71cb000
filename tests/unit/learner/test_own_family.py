"""A model family of the user's own: the example of the README with a tiny Qwen2-VL, and classes that are refused."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from learner_scenarios import start_trainer, weights_of
from plain_model import load_plain, padded_logprobs, whole_policy
from tiny_learner import mixed_groups

from learner.attention.sdpa import SdpaKernel
from learner.errors import LearnerError
from learner.families.registry import load_family
from learner.policy.images import ImageEncoder
from learner.policy.source import FolderSource
from tests.families.case import IMAGE_TOKEN, TEXT, TOKEN_PIXELS, VIDEO_TOKEN, VISION_END, VISION_START

README = Path(__file__).parents[3] / "learner" / "README.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny Qwen2-VL, which no family of ours knows."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

    path = tmp_path_factory.mktemp("qwen2_vl")
    torch.manual_seed(0)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}
    vision = {"depth": 2, "embed_dim": 64, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14}
    config = Qwen2VLConfig(
        text_config={**TEXT, "rope_parameters": rope},
        vision_config={**vision, "initializer_range": 0.1},
        image_token_id=IMAGE_TOKEN,
        video_token_id=VIDEO_TOKEN,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
        tie_word_embeddings=True,
    )
    Qwen2VLForConditionalGeneration(config).save_pretrained(path)
    Qwen2VLImageProcessor(min_pixels=TOKEN_PIXELS**2, max_pixels=(8 * TOKEN_PIXELS) ** 2).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """The class of the README, in a file."""
    [code] = re.findall(r"`my_family\.py`:\n\n```python\n(.*?)```", README.read_text(), re.DOTALL)
    path = tmp_path_factory.mktemp("own") / "my_family.py"
    path.write_text(code)
    return f"{path}:Qwen2VL"


def test_the_class_of_the_readme_computes_what_transformers_does(folder, family):
    policy = whole_policy(folder, own_family=family)
    groups = mixed_groups()
    images = ImageEncoder.from_pretrained(folder, policy.family).encode(groups)
    expected = padded_logprobs(
        load_plain(folder),
        [(group, image, i) for group, image in zip(groups, images, strict=True) for i in range(len(group.sequences))],
        temperature=1.0,
    )

    trainer = start_trainer(0, 1, 0, folder, family=family)
    found = [own for group in groups for own in trainer.sequence_logprobs(group)]
    trainer.close()

    for own, plain in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, plain.detach().numpy(), rtol=0, atol=1e-5)


def test_the_class_of_the_readme_trains_with_parts_frozen(folder, family):
    trainer = start_trainer(0, 1, 0, folder, family=family, freeze=("projector",))
    before = weights_of(trainer)

    report = trainer.train_step(mixed_groups(), step=0)
    after = weights_of(trainer)
    trainer.close()

    assert report.metrics["policy/grad_norm"] > 0
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert any(name.startswith("visual.blocks.") for name in moved)
    assert not any(".merger." in name for name in moved)


def test_without_the_class_the_architecture_is_refused_with_the_remedy(folder):
    with pytest.raises(LearnerError, match=r"model_type is 'qwen2_vl'; supported: .* model\.family=FILE\.py:NAME"):
        FolderSource(folder, SdpaKernel(), temperature=1.0).skeleton()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("class F: ...", r"is no class that derives from learner\.families\.base\.ModelFamily"),
        ("F = 3", r"is no class that derives"),
        ("class G: ...", r"has no F; did you mean G\?|has no F"),
        (
            "from learner.families.base import ModelFamily\nclass F(ModelFamily): ...",
            r"lacks dummy_image, encode, image_features, num_tokens, .*, vision_blocks, parts; define them",
        ),
        (
            "from learner.families.internvl import InternVL\nclass F(InternVL):\n    parts = {'tower': ('model.',)}",
            r"has the parts tower; name vision_tower, projector, language_model",
        ),
    ],
)
def test_what_is_no_family_is_refused_by_name(code, message, tmp_path):
    (tmp_path / "own.py").write_text(code)

    with pytest.raises(LearnerError, match=rf"model\.family=.*own\.py:F.*({message})"):
        load_family(f"{tmp_path}/own.py:F")


def test_a_class_that_does_not_fit_the_model_says_what_the_configuration_lacks(folder, tmp_path):
    (tmp_path / "own.py").write_text("from learner.families.internvl import InternVL\nclass F(InternVL): ...\n")
    source = FolderSource(folder, SdpaKernel(), temperature=1.0, own_family=f"{tmp_path}/own.py:F")

    with pytest.raises(LearnerError, match=r"F does not fit a qwen2_vl model, whose configuration has no image_size"):
        source.skeleton()
