"""Tokens of images of any size, and the limits of their sizes."""

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoConfig, AutoProcessor

from learner.families.registry import get_family
from learner.policy.images import ImageEncoder
from learner.records import ScoredGroup, ScoredSequence
from orchestration.cli import compose
from orchestration.inputs.prepare import model_folder
from orchestration.models.image_tokens import (
    check_stated_processor,
    image_tokens,
    largest_image_tokens,
    processor_of,
    vision_rows,
)
from orchestration.models.shapes import read_shape, shape_of
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig, build_settings
from rollout.prompt import PromptBuilder
from rollout.records import ImageBytes, Sample
from tests.tiny_models import make_tiny_model, tiny, tiny_config
from tests.unit.plan.published import PUBLISHED

SIDES = st.integers(1, 3000)
PUBLISHED_QWEN = {"min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "merge_size": 2}
PROCESSORS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "demo qwen": ("qwen2_5_vl", tiny("qwen2_5_vl").image_processor),
    "published qwen": ("qwen2_5_vl_3b", PUBLISHED_QWEN),
    "qwen without a file": ("qwen2_5_vl_3b", {}),
    "small qwen": ("qwen2_5_vl_3b", {"size": {"shortest_edge": 200704, "longest_edge": 401408}}),
    "demo internvl": ("internvl", tiny("internvl").image_processor),
    "published internvl": ("internvl3_1b", {"size": {"height": 448, "width": 448}, "crop_to_patches": False}),
    "few tiles": ("internvl3_1b", {"size": {"height": 448, "width": 448}, "min_patches": 2, "max_patches": 6}),
}


def shape_for(name: str) -> Any:
    return read_shape(PUBLISHED[name] if name in PUBLISHED else tiny(name).hf_config)


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
        with pytest.raises(ConfigError, match="more than 200 times"):
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
    stated = {"size": {"height": 448, "width": 448}}
    demo = tiny_config(family)
    folder = replace(demo, path=str(tmp_path), hf_processor=stated)

    assert processor_of(demo) == tiny(family).image_processor
    assert processor_of(replace(demo, hf_processor=stated)) == stated
    assert processor_of(folder) == stated
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "without an image processor"}))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"max_pixels": 784}))
    assert processor_of(folder) == {"max_pixels": 784}
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": {"max_patches": 3}}))
    assert processor_of(folder) == {"max_patches": 3}


SIZES = [(28, 28), (112, 112), (300, 100), (90, 400)]
LIMITS: dict[str, list[tuple[int | None, int | None]]] = {
    "qwen2_5_vl": [(None, 6272), (20_000, None), (8_000, 20_000)],
    "internvl": [(None, 80_000), (25_000, 60_000), (3 * 112 * 112, 112 * 112 * 3)],
}


@pytest.fixture(scope="module", params=["qwen2_5_vl", "internvl"])
def family(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, family: Any) -> Path:
    folder = tmp_path_factory.mktemp(family) / "tiny"
    make_tiny_model(folder, family, corpus=["where is the red oval?"] * 3)
    return folder


def config_of(folder: Path, family: Any, tmp_path: Path, **model: Any) -> ExperimentConfig:
    config = build_settings(compose([f"model=tiny_{family}", f"run_dir={tmp_path / 'run'}", f"cache_dir={tmp_path}"]))
    return replace(config, model=replace(config.model, path=str(folder), family=None, **model))


def sample(size: tuple[int, int]) -> Sample:
    file = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(file, "PNG")
    image = ImageBytes(data=file.getvalue(), width=size[0], height=size[1])
    return Sample(sample_id="a", source="unit", task="iou", question="where?", answer="[1, 2, 3, 4]", images=(image,))


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("size", SIZES)
def test_engine_learner_prompts_and_plan_see_one_picture(
    folder: Path, family: Any, which: int, size: tuple[int, int], tmp_path: Path
) -> None:
    fewest, most = LIMITS[family][which]
    config = config_of(folder, family, tmp_path, min_pixels=fewest, max_pixels=most)
    limited = model_folder(config)
    shown = sample(size)
    prompt = PromptBuilder(limited, max_images=1).build(shown)
    # The engine expands prompts with this processor of this folder (test_engine holds that).
    processor = AutoProcessor.from_pretrained(limited)
    text = processor.tokenizer.decode(prompt.token_ids)
    engine = processor(text=[text], images=prompt.images, return_tensors="pt")
    group = ScoredGroup(
        group_id="g", task="iou",
        prompt_token_ids=engine["input_ids"][0].numpy(),
        images=(shown.images[0].data,),
        sequences=(ScoredSequence(
            completion_token_ids=[7], behaviour_logprobs=[0.0], reward=0.0, truncated=False,
        ),),
    )  # fmt: skip
    family_of_learner = get_family(AutoConfig.from_pretrained(limited))

    [learner] = ImageEncoder.from_pretrained(limited, family_of_learner).encode([group])

    assert learner is not None
    assert (learner.pixel_values == engine["pixel_values"]).all()
    length = PromptBuilder(limited, max_images=1).measure("where?", [size], "a")
    assert length.num_tokens == len(group.prompt_token_ids)
    assert image_tokens(shape_of(config.model), processor_of(config.model), *size) == length.num_image_tokens
    width, height = prompt.input_sizes[0]
    if family == "qwen2_5_vl":
        assert (fewest or 0) <= width * height <= (most or 10**9)
        assert width * height == 28 * 28 * length.num_image_tokens
    else:
        num_tiles = len(learner.pixel_values) - (len(learner.pixel_values) > 1)
        assert (fewest or 0) <= num_tiles * 112 * 112 <= (most or 10**9)


def test_a_limited_folder_is_made_once_holds_all_files_and_needs_no_other_one(
    folder: Path, family: Any, tmp_path: Path
) -> None:
    limits = dict(zip(("min_pixels", "max_pixels"), LIMITS[family][1], strict=True))
    limited = model_folder(config_of(folder, family, tmp_path, **limits))

    assert model_folder(config_of(folder, family, tmp_path, **limits)) == limited
    assert [path.name for path in limited.parent.iterdir()] == [limited.name]
    assert {path.name for path in limited.iterdir()} == {path.name for path in folder.iterdir()}
    # An export of a run holds the limits, so evaluating it needs no copy.
    assert model_folder(config_of(limited, family, tmp_path, **limits)) == limited
    assert model_folder(config_of(folder, family, tmp_path)) == folder


def test_limits_that_leave_no_picture_are_refused(folder: Path, family: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.max_pixels is 700, less than one (image token|tile)"):
        model_folder(config_of(folder, family, tmp_path, max_pixels=700))
    with pytest.raises(ConfigError, match=r"model\.min_pixels=30000 and model\.max_pixels=26000 allow no image"):
        model_folder(config_of(folder, family, tmp_path, min_pixels=30_000, max_pixels=26_000))


def test_a_stated_processor_that_the_folder_contradicts_is_refused(folder: Path, family: Any, tmp_path: Path) -> None:
    stated = {"qwen2_5_vl": {"max_pixels": 1024}, "internvl": {"max_patches": 6}}[family]

    with pytest.raises(ConfigError, match=r"model\.hf_processor states .* limit images with model\.max_pixels"):
        check_stated_processor(config_of(folder, family, tmp_path, hf_processor=stated).model)
    own = json.loads((folder / "processor_config.json").read_text())["image_processor"]
    check_stated_processor(config_of(folder, family, tmp_path, hf_processor=own).model)
