"""Classes of the user's own that are refused; that of the README's example is proved in tests/families."""

import pytest
from tiny_learner import write_tiny_model

from learner.attention.sdpa import SdpaKernel
from learner.errors import LearnerError
from learner.families.generic import Generic
from learner.families.registry import load_family
from learner.policy.source import FolderSource


def test_without_the_class_the_architecture_runs_on_the_generic_path(tmp_path):
    """GLM-4.1V is the README's example, and no family here."""
    write_tiny_model(tmp_path, "glm4v")

    assert isinstance(FolderSource(tmp_path, SdpaKernel(), temperature=1.0).skeleton().family, Generic)


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


def test_a_class_that_does_not_fit_the_model_says_what_the_configuration_lacks(model_paths, tmp_path):
    (tmp_path / "own.py").write_text("from learner.families.qwen2_5_vl import Qwen25VL\nclass F(Qwen25VL): ...\n")
    source = FolderSource(model_paths["internvl"], SdpaKernel(), temperature=1.0, own_family=f"{tmp_path}/own.py:F")

    with pytest.raises(LearnerError, match=r"not fit a internvl model, whose configuration has no spatial_merge_size"):
        source.skeleton()
