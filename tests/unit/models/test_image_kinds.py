"""Tokens of images of families beside Qwen2.5-VL and InternVL3, against their own processors."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestration.models.image_tokens import fitted, image_tokens, largest_image_tokens, vision_rows, with_pixel_limits
from orchestration.models.shapes import ModelShape
from orchestration.settings.errors import ConfigError
from tests.unit.models.test_facts import shape

SIDES = st.integers(1, 3000)
PUBLISHED_QWEN3 = {"patch_size": 16, "merge_size": 2, "size": {"shortest_edge": 65536, "longest_edge": 16777216}}


@pytest.fixture(scope="module")
def qwen3_vl() -> ModelShape:
    return shape("qwen3_vl")


@given(width=SIDES, height=SIDES)
@example(width=16, height=3000)
@settings(max_examples=100, deadline=None)
def test_patches_of_sixteen_pixels_are_counted_as_qwen3_vls_processor_does(
    qwen3_vl: ModelShape, width: int, height: int
) -> None:
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor

    processor = object.__new__(Qwen3VLProcessor)
    processor.image_processor = Qwen2VLImageProcessor(**PUBLISHED_QWEN3)
    try:
        [expected] = processor._get_num_multimodal_tokens([(height, width)])["num_image_tokens"]
    except ValueError:
        with pytest.raises(ConfigError, match="more than 200 times"):
            image_tokens(qwen3_vl, PUBLISHED_QWEN3, width, height)
        return

    assert image_tokens(qwen3_vl, PUBLISHED_QWEN3, width, height) == expected
    assert expected <= largest_image_tokens(qwen3_vl, PUBLISHED_QWEN3)
    assert vision_rows(qwen3_vl, expected) == 4 * expected


@given(width=SIDES, height=SIDES, most=st.sampled_from([70, 280, 1120]))
@example(width=1, height=3000, most=280)
@example(width=3000, height=1, most=280)
@settings(max_examples=150, deadline=None)
def test_pictures_fitted_into_a_number_of_tokens_are_those_of_gemma_4(width: int, height: int, most: int) -> None:
    from transformers.models.gemma4.image_processing_gemma4 import get_aspect_ratio_preserving_size

    rows, columns = get_aspect_ratio_preserving_size(height, width, 16, 9 * most, 3)

    assert fitted(most, 48, width, height) == (rows // 48, columns // 48)


def test_a_tower_of_one_picture_size_takes_its_own_number_of_tokens() -> None:
    gemma = shape("gemma3")  # 56 pixels, patches of 14, 4 tokens

    assert {image_tokens(gemma, {}, *size) for size in [(10, 900), (56, 56), (3000, 2000)]} == {4}
    assert vision_rows(gemma, 8) == 2 * 16
    with pytest.raises(ConfigError, match=r"has no limits of an image's area; set both to null"):
        with_pixel_limits({}, gemma, min_pixels=None, max_pixels=1000)


def test_a_model_that_takes_no_images_says_so() -> None:
    text = shape("qwen3")

    assert (largest_image_tokens(text, {}), vision_rows(text, 0)) == (0, 0)
    with pytest.raises(ConfigError, match="a qwen3 model takes no images"):
        image_tokens(text, {}, 100, 100)
