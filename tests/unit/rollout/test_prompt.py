"""Prompts of both families: the chat template, one placeholder an image, and what may be neither typed nor sampled."""

import io
import json
import shutil
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import AutoProcessor

from orchestration.models.chat_template import ChatTemplate
from rollout.conversation import PromptSpec
from rollout.errors import RolloutError
from rollout.placeholders import banned_token_ids
from rollout.prompt import PromptBuilder
from rollout.records import ImageBytes, Sample, Turn
from tests.integration.tiny import allow_tiles
from tests.tiny_models import make_tiny_model

PLACEHOLDERS = {
    "qwen2_5_vl": ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"],
    "internvl": ["<img>", "</img>", "<IMG_CONTEXT>", "<video>"],
}
IMAGE_MARKUP = {"qwen2_5_vl": "<|vision_start|><|image_pad|><|vision_end|>", "internvl": "<IMG_CONTEXT>\n"}
INPUT_SIZE = {"qwen2_5_vl": (196, 84), "internvl": (200, 90)}
"""Of a picture of 200 x 90: rounded to image tokens, or as it is, for a frame that knows no pixels."""


@pytest.fixture(scope="module", params=["qwen2_5_vl", "internvl"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, family: str) -> Path:
    folder = tmp_path_factory.mktemp(family)
    make_tiny_model(folder, family, corpus=["where is the red oval?"] * 3)
    return folder


def sample(num_images: int) -> Sample:
    file = io.BytesIO()
    Image.new("RGB", (200, 90)).save(file, "PNG")
    images = (ImageBytes(data=file.getvalue(), width=200, height=90),) * num_images
    return Sample(sample_id="a", source="unit", task="iou", question="where?", answer="[1, 2, 3, 4]", images=images)


def test_images_stand_in_their_places_in_the_question(folder: Path, family: str) -> None:
    builder = PromptBuilder(folder, max_images=3)
    placed = replace(sample(2), question="Is \ufffc larger than \ufffc?")
    text = AutoProcessor.from_pretrained(folder).tokenizer.decode(builder.build(placed).token_ids)
    markup = IMAGE_MARKUP[family]
    assert f"user\nIs {markup} larger than {markup}?<|im_end|>" in text
    with pytest.raises(RolloutError, match="2 places for images"):
        builder.build(replace(placed, images=placed.images[:1]))


HISTORY = (Turn(role="user", text="\ufffcWho are they?"), Turn(role="assistant", text="Two players."))


@pytest.mark.parametrize(
    ("system_prompt", "system", "expected"),
    [
        ("", "", ""),
        ("Think.", "", "<|im_start|>system\nThink.<|im_end|>\n"),
        ("", "Be kind.", "<|im_start|>system\nBe kind.<|im_end|>\n"),
        ("Think.", "Be kind.", "<|im_start|>system\nThink.\n\nBe kind.<|im_end|>\n"),
    ],
)
def test_system_turn_and_history_come_before_the_question(
    system_prompt: str, system: str, expected: str, folder: Path, family: str
) -> None:
    builder = PromptBuilder(folder, spec=PromptSpec(system_prompt=system_prompt), max_images=3)
    asked = replace(sample(3), question="\ufffc or \ufffc?", system=system, history=HISTORY)
    processor = AutoProcessor.from_pretrained(folder)
    markup = IMAGE_MARKUP[family]
    text = (
        f"{expected}<|im_start|>user\n{markup}Who are they?<|im_end|>\n<|im_start|>assistant\nTwo players.<|im_end|>\n"
        f"<|im_start|>user\n{markup} or {markup}?<|im_end|>\n<|im_start|>assistant\n"
    )
    parts = [{"type": "text", "text": text} for text in ("Think.", "Be kind.") if text in expected]
    by_hand = [
        *([{"role": "system", "content": "\n\n".join(part["text"] for part in parts)}] if parts else []),
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Who are they?"}]},
        {"role": "assistant", "content": "Two players."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " or "}, {"type": "image"},
                                     {"type": "text", "text": "?"}]},
    ]  # fmt: skip

    assert processor.tokenizer.decode(builder.build(asked).token_ids) == text
    assert processor.apply_chat_template(by_hand, add_generation_prompt=True) == text
    assert ChatTemplate(folder).prompt(
        asked.question, num_images=3, spec=PromptSpec(system_prompt=system_prompt), system=system, history=HISTORY
    ) == text  # fmt: skip
    length = builder.measure(asked.question, [(200, 90)] * 3, "a", system=system, history=HISTORY)
    assert length.num_tokens == len(builder.expanded_ids(asked))


def test_images_that_the_history_does_not_show_come_first_in_the_question(folder: Path, family: str) -> None:
    builder = PromptBuilder(folder, max_images=2)
    asked = replace(sample(2), history=HISTORY)
    text = AutoProcessor.from_pretrained(folder).tokenizer.decode(builder.build(asked).token_ids)
    assert text.endswith(f"<|im_start|>user\n{IMAGE_MARKUP[family]}where?<|im_end|>\n<|im_start|>assistant\n")
    assert text.startswith(f"<|im_start|>user\n{IMAGE_MARKUP[family]}Who are they?<|im_end|>")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"system": "See <image>."}, "the system turn holds the vision placeholder '<image>'"),
        ({"history": (Turn(role="user", text="<|image_pad|>"),)}, "turn 1 of the history holds the vision placeholder"),
        ({"system": "See \ufffc."}, "the system turn holds a place for an image"),
        ({"history": (*HISTORY, *HISTORY)}, "2 places for images .* the sample 1 images"),
        ({"history": HISTORY, "question": "See \ufffc."}, "2 places for images .* the sample 1 images"),
    ],
)
def test_placeholders_and_places_are_checked_in_all_turns(changes: dict[str, Any], words: str, folder: Path) -> None:
    with pytest.raises(RolloutError, match=words):
        PromptBuilder(folder, max_images=3).build(replace(sample(1), **changes))


def test_a_template_that_knows_no_history_costs_the_row(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "chat_template.jinja").write_text(
        "{% if messages|length > 1 %}{{ raise_exception('one turn') }}{% endif %}"
    )
    with pytest.raises(RolloutError, match="sample a: the model's chat template refuses its turns: one turn"):
        PromptBuilder(tmp_path, max_images=3).build(replace(sample(1), history=HISTORY))


@pytest.mark.parametrize("num_images", [0, 1, 2])
def test_a_prompt_holds_one_placeholder_an_image_before_the_question(
    folder: Path, family: str, num_images: int
) -> None:
    prompt = PromptBuilder(folder, max_images=2).build(sample(num_images))
    processor = AutoProcessor.from_pretrained(folder)

    assert processor.tokenizer.decode(prompt.token_ids) == (
        f"<|im_start|>user\n{IMAGE_MARKUP[family] * num_images}where?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert prompt.token_ids.count(processor.image_token_id) == num_images == len(prompt.images)
    assert prompt.input_sizes == (INPUT_SIZE[family],) * num_images


def test_placeholders_of_the_family_are_banned_and_no_other_token(folder: Path, family: str) -> None:
    tokenizer = AutoProcessor.from_pretrained(folder).tokenizer

    assert {tokenizer.decode([token]) for token in banned_token_ids(folder)} == set(PLACEHOLDERS[family])


def test_an_id_that_the_model_has_no_logit_for_is_not_banned(folder: Path, tmp_path: Path) -> None:
    """As in InternVL3, whose `<video>` is the first id behind the vocabulary of the model."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    last = banned_token_ids(folder)[-1]
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["vocab_size"] = last
    (tmp_path / "config.json").write_text(json.dumps(config))

    assert banned_token_ids(tmp_path) == banned_token_ids(folder)[:-1]


def test_a_placeholder_in_a_question_is_refused(folder: Path, family: str) -> None:
    prompts = PromptBuilder(folder, max_images=1)
    for token in PLACEHOLDERS[family]:
        with pytest.raises(RolloutError, match="sample a: the question holds the vision placeholder"):
            prompts.build(replace(sample(1), question=f"where {token} is it?"))


def encoded(image: Image.Image, kind: str = "PNG") -> ImageBytes:
    file = io.BytesIO()
    image.save(file, kind)
    return ImageBytes(data=file.getvalue(), width=image.width, height=image.height)


def claiming(width: int, height: int) -> ImageBytes:
    """A PNG whose header says so; its checksum is right."""
    whole = encoded(Image.new("RGB", (8, 8))).data
    header = b"IHDR" + struct.pack(">II", width, height) + whole[24:29]
    data = whole[:12] + header + struct.pack(">I", zlib.crc32(header)) + whole[33:]
    return ImageBytes(data=data, width=max(1, width), height=max(1, height))


NARROW = encoded(Image.new("RGB", (3000, 14)))
BROKEN = {
    "bomb": claiming(60_000, 60_000),
    "zero": claiming(0, 5),
    "truncated": ImageBytes(data=encoded(Image.effect_noise((90, 90), 50)).data[:200], width=90, height=90),
    "deep": encoded(Image.new("I;16", (40, 40), 700)),
    "no header": ImageBytes(data=b"\x89PNG\r\n\x1a\n" + b"\0" * 60, width=9, height=9),
}
ODD = {
    "print colours": encoded(Image.new("CMYK", (60, 40)), "JPEG"),
    "palette": encoded(Image.new("P", (60, 40))),
    "grey": encoded(Image.new("L", (60, 40))),
    "bits": encoded(Image.new("1", (60, 40))),
    "one pixel": encoded(Image.new("RGB", (1, 1))),
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_a_picture_that_nothing_can_be_made_of_costs_its_row_and_not_the_run(folder: Path, name: str) -> None:
    prompts = PromptBuilder(folder, max_images=1)

    with pytest.raises(RolloutError, match=r"sample a: an image (does not decode|has deeper channels)"):
        prompts.build(replace(sample(0), images=(BROKEN[name],)))


@pytest.mark.parametrize("name", list(ODD))
def test_an_odd_picture_becomes_rgb_of_its_own_size(folder: Path, name: str) -> None:
    [image] = PromptBuilder(folder, max_images=1).build(replace(sample(0), images=(ODD[name],))).images

    assert (image.mode, image.size) == ("RGB", ODD[name].size)


def test_what_is_too_narrow_to_measure_is_too_narrow_to_build(folder: Path, family: str) -> None:
    prompts = PromptBuilder(folder, max_images=1)
    if family == "internvl":
        assert prompts.build(replace(sample(0), images=(NARROW,))).input_sizes == ((3000, 14),)
        return
    with pytest.raises(RolloutError, match="sample a: the processor refuses an image: absolute aspect ratio"):
        prompts.build(replace(sample(0), images=(NARROW,)))
    with pytest.raises(RolloutError, match="sample a: the processor refuses an image: absolute aspect ratio"):
        prompts.measure("where?", [(3000, 14)], "a")


@pytest.mark.parametrize("sizes", [[], [(200, 90)], [(112, 112), (640, 300)], [(28, 28)]])
@pytest.mark.parametrize("max_tiles", [1, 4])
def test_a_measured_prompt_is_as_long_as_the_processor_makes_it(
    folder: Path, family: str, sizes: list[tuple[int, int]], max_tiles: int, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    if family == "internvl" and max_tiles > 1:
        allow_tiles(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    builder = PromptBuilder(tmp_path, spec=PromptSpec(system_prompt="think first"), max_images=2)
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "think first"}]},
        {"role": "user", "content": [*({"type": "image"} for _ in sizes), {"type": "text", "text": "where is it?"}]},
    ]
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    images = [Image.new("RGB", size) for size in sizes]
    ids = processor(text=[text], images=images or None, add_special_tokens=False).input_ids[0]

    length = builder.measure("where is it?", sizes, "a")

    assert length.num_tokens == len(ids)
    markup = set(processor.image_token_ids) if family == "internvl" else {processor.image_token_id}
    assert length.num_image_tokens == sum(token in markup for token in ids)
