"""Prompts of both families: the chat template, one placeholder an image, and what may be neither typed nor sampled."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from transformers import AutoProcessor

from orchestration.demo.families.registry import FAMILIES
from orchestration.demo.tiny_model import make_tiny_model
from rollout.errors import RolloutError
from rollout.prompt import PromptBuilder
from rollout.records import ImageBytes, Sample

PLACEHOLDERS = {
    "qwen2_5_vl": ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"],
    "internvl": ["<img>", "</img>", "<IMG_CONTEXT>", "<video>"],
}
IMAGE_MARKUP = {"qwen2_5_vl": "<|vision_start|><|image_pad|><|vision_end|>", "internvl": "<IMG_CONTEXT>\n"}
INPUT_SIZE = {"qwen2_5_vl": (196, 84), "internvl": (200, 90)}
"""Of a picture of 200 x 90: rounded to image tokens, or as it is, for a frame that knows no pixels."""


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, family: str) -> Path:
    folder = tmp_path_factory.mktemp(family)
    make_tiny_model(folder, FAMILIES[family], corpus=["where is the red oval?"] * 3, seed=0)
    return folder


def sample(num_images: int) -> Sample:
    file = io.BytesIO()
    Image.new("RGB", (200, 90)).save(file, "PNG")
    images = (ImageBytes(data=file.getvalue(), width=200, height=90),) * num_images
    return Sample(sample_id="a", source="unit", task="iou", question="where?", answer="[1, 2, 3, 4]", images=images)


@pytest.mark.parametrize("num_images", [0, 1, 2])
def test_a_prompt_holds_one_placeholder_an_image_before_the_question(
    folder: Path, family: str, num_images: int
) -> None:
    prompt = PromptBuilder(folder, system_prompt="", max_images=2).build(sample(num_images))
    processor = AutoProcessor.from_pretrained(folder)

    assert processor.tokenizer.decode(prompt.token_ids) == (
        f"<|im_start|>user\n{IMAGE_MARKUP[family] * num_images}where?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert prompt.token_ids.count(processor.image_token_id) == num_images == len(prompt.images)
    assert prompt.input_sizes == (INPUT_SIZE[family],) * num_images


def test_placeholders_of_the_family_are_banned_and_no_other_token(folder: Path, family: str) -> None:
    banned = PromptBuilder(folder, system_prompt="", max_images=1).banned_token_ids()
    tokenizer = AutoProcessor.from_pretrained(folder).tokenizer

    assert {tokenizer.decode([token]) for token in banned} == set(PLACEHOLDERS[family])


def test_a_placeholder_in_a_question_is_refused(folder: Path, family: str) -> None:
    prompts = PromptBuilder(folder, system_prompt="", max_images=1)
    for token in PLACEHOLDERS[family]:
        with pytest.raises(RolloutError, match="sample a: the question holds the vision placeholder"):
            prompts.build(replace(sample(1), question=f"where {token} is it?"))
