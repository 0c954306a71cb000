"""Image tokens against the processors that engine and learner run, over many sizes of picture."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from orchestration.models.image_tokens import image_tokens, largest_image_tokens, vision_rows
from orchestration.models.processor_settings import processor_of
from orchestration.models.shapes import read_shape
from orchestration.models.tiny import tiny_config, tiny_processor
from orchestration.settings.errors import ConfigError
from orchestration.settings.model import ModelConfig
from tests.unit.plan.published import PUBLISHED

SIDES = st.integers(1, 3000)
PUBLISHED_QWEN = {"min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "merge_size": 2}
PROCESSORS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "demo qwen": ("qwen2_5_vl", tiny_processor("qwen2_5_vl")),
    "published qwen": ("qwen2_5_vl_3b", PUBLISHED_QWEN),
    "qwen without a file": ("qwen2_5_vl_3b", {}),
    "small qwen": ("qwen2_5_vl_3b", {"size": {"shortest_edge": 200704, "longest_edge": 401408}}),
    "demo internvl": ("internvl", tiny_processor("internvl")),
    "published internvl": ("internvl3_1b", {"size": {"height": 448, "width": 448}, "crop_to_patches": False}),
    "few tiles": ("internvl3_1b", {"size": {"height": 448, "width": 448}, "min_patches": 2, "max_patches": 6}),
}


def shape_for(name: str) -> Any:
    return read_shape(PUBLISHED[name] if name in PUBLISHED else tiny_config(name))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def counters() -> dict[str, Any]:
    """By the name of PROCESSORS: (width, height) -> tokens as the engine's processor counts them."""
    from transformers import GotOcr2ImageProcessor, InternVLProcessor, Qwen2_5_VLProcessor, Qwen2VLImageProcessor

    def counter(shape: str, values: Mapping[str, Any]) -> Any:
        is_qwen = shape.startswith("qwen")
        processor = object.__new__(Qwen2_5_VLProcessor if is_qwen else InternVLProcessor)
        processor.image_processor = (Qwen2VLImageProcessor if is_qwen else GotOcr2ImageProcessor)(**values)
        processor.image_seq_length = 0 if is_qwen else shape_for(shape).tower.tokens_per_tile
        return lambda width, height: processor._get_num_multimodal_tokens([(height, width)])["num_image_tokens"][0]

    return {name: counter(*given) for name, given in PROCESSORS.items()}


@pytest.mark.parametrize("name", PROCESSORS)
@given(width=SIDES, height=SIDES)
@example(width=1, height=200)
@example(width=112, height=112)
@example(width=896, height=448)
@settings(max_examples=150, deadline=None)
def test_every_size_takes_the_tokens_that_the_processor_counts(
    name: str, counters: dict[str, Any], width: int, height: int
) -> None:
    shape, processor = PROCESSORS[name]
    try:
        expected = counters[name](width, height)
    except ValueError:
        with pytest.raises(ConfigError, match="longer than 200 times"):
            image_tokens(shape_for(shape), processor, width, height)
        return
    assert image_tokens(shape_for(shape), processor, width, height) == expected
    assert expected <= largest_image_tokens(shape_for(shape), processor)


@pytest.mark.parametrize("size", [(112, 112), (300, 200), (640, 96), (70, 900)])
def test_real_pictures_make_the_rows_that_are_counted(size: tuple[int, int]) -> None:
    import torch
    from transformers import GotOcr2ImageProcessor, Qwen2VLImageProcessor

    picture = Image.new("RGB", size)
    qwen, internvl = shape_for("qwen2_5_vl_3b"), shape_for("internvl3_1b")
    patches = Qwen2VLImageProcessor(**PUBLISHED_QWEN)(images=[picture], return_tensors="pt")["pixel_values"]
    tiles = GotOcr2ImageProcessor(size={"height": 448, "width": 448})(
        images=[picture], crop_to_patches=True, return_tensors="pt"
    )["pixel_values"]

    assert vision_rows(qwen, image_tokens(qwen, PUBLISHED_QWEN, *size)) == len(patches)
    tokens = image_tokens(internvl, {}, *size) - 2
    assert torch.Size([tokens // 256]) == tiles.shape[:1]
    assert vision_rows(internvl, tokens) == len(tiles) * (32 * 32 + 1)


def test_a_processor_of_another_model_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"hf_processor.merge_size is 4, but the vision tower takes 2"):
        image_tokens(shape_for("qwen2_5_vl_3b"), {"merge_size": 4}, 100, 100)
    with pytest.raises(ConfigError, match="takes tiles of 448 x 448"):
        image_tokens(shape_for("internvl3_1b"), {"size": {"height": 224, "width": 224}}, 100, 100)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl"])
def test_settings_come_from_the_folder_then_from_what_is_stated_then_from_the_demo(family: Any, tmp_path: Path) -> None:
    frame: Any = {"qwen2_5_vl": "pixel_resized", "internvl": "norm1000"}[family]
    stated = {"size": {"height": 448, "width": 448}}
    demo = ModelConfig(path=None, family=family, coord_mode=frame)
    folder = ModelConfig(path=str(tmp_path), family=None, coord_mode=frame, hf_processor=stated)

    assert processor_of(demo) == tiny_processor(family)
    assert processor_of(replace(demo, hf_processor=stated)) == stated
    assert processor_of(folder) == stated
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "without an image processor"}))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"max_pixels": 784}))
    assert processor_of(folder) == {"max_pixels": 784}
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": {"max_patches": 3}}))
    assert processor_of(folder) == {"max_patches": 3}
