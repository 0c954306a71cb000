"""Prompts of families that nothing here names: placeholders, lengths and pixels come from the checkpoint's files."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    Gemma3ImageProcessor,
    Gemma3Processor,
    Idefics2ImageProcessor,
    Idefics2Processor,
    PreTrainedTokenizerFast,
)

from rollout.errors import RolloutError
from rollout.fingerprint import fingerprint
from rollout.placeholders import SPELLINGS, banned_token_ids, placeholder_ids, placeholder_tokens
from rollout.prompt import PromptBuilder
from rollout.records import ImageBytes, Sample

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (56, 56, 3), dtype=np.uint8))


def tokenizer(*added: str, **named: str) -> PreTrainedTokenizerFast:
    words = {word: index for index, word in enumerate(["<pad>", "<unk>", "user", "where", ":", "?", "is"])}
    whole = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    whole.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    found = PreTrainedTokenizerFast(
        tokenizer_object=whole, unk_token="<unk>", pad_token="<pad>", extra_special_tokens=named
    )
    found.add_tokens(list(added), special_tokens=True)
    return found


def template(image: str) -> str:
    return (
        "{% for message in messages %}{{ message.role }} : {% for part in message.content %}"
        f"{{% if part.type == 'image' %}}{image}{{% else %}}{{{{ part.text }}}}{{% endif %}}"
        "{% endfor %}{% endfor %}"
    )


def saved(folder: Path, processor: Any, **config: Any) -> Path:
    processor.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({**config, "text_config": {"vocab_size": 100}}))
    return folder


def gemma(folder: Path, *added: str, **image_processor: Any) -> Path:
    words = tokenizer(
        *added, image_token="<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>"
    )
    values = {"size": {"height": 56, "width": 56}, **image_processor}
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessor(**values),
        tokenizer=words,
        chat_template=template("<start_of_image>"),
        image_seq_length=16,
    )
    index = words.convert_tokens_to_ids
    return saved(
        folder,
        processor,
        model_type="gemma3",
        image_token_index=index("<image_soft_token>"),
        boi_token_index=index("<start_of_image>"),
    )


def idefics(folder: Path) -> Path:
    processor = Idefics2Processor(
        image_processor=Idefics2ImageProcessor(size={"shortest_edge": 28, "longest_edge": 56}),
        tokenizer=tokenizer(),
        chat_template=template("<image>"),
        image_seq_len=4,
    )
    return saved(folder, processor, model_type="idefics2")


def picture(image: Image.Image) -> ImageBytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return ImageBytes(data=file.getvalue(), width=image.width, height=image.height)


def test_placeholders_are_those_that_config_tokenizer_and_added_tokens_name(tmp_path: Path) -> None:
    added = ("<|audio|>", "<|box_start|>", "<think>", "<|object_ref_start|>")
    folder = gemma(tmp_path, *added)
    names = {"<image_soft_token>", "<start_of_image>", "<end_of_image>", "<|audio|>"}

    assert placeholder_tokens(folder) == (*SPELLINGS, *sorted(names))
    words = PromptBuilder(folder, max_images=1)._tokenizer
    assert banned_token_ids(folder) == sorted(words.convert_tokens_to_ids(name) for name in names)
    for name in names:
        with pytest.raises(RolloutError, match="the question holds the vision placeholder"):
            PromptBuilder(folder, max_images=1).measure(f"where is {name} ?", [], "a")


def test_ids_that_config_names_are_banned_even_without_a_name(tmp_path: Path) -> None:
    folder = gemma(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    parts = {"vision_config": {"video_token_id": 42}, "audio_token_ids": [43, 44], "eos_token_id": 3, "pad_token_id": 0}
    (folder / "config.json").write_text(
        json.dumps({**config, **parts, "image_token_index": 99, "boa_token_index": 400})
    )

    assert placeholder_ids(folder) == {42, 43, 44, 99, 400, config["boi_token_index"]}
    found = banned_token_ids(folder)
    assert {42, 43, 44, 99} <= set(found)
    assert not {0, 3, 400} & set(found)  # ends of texts, and what the model has no logit for


@pytest.mark.parametrize(("make", "tokens"), [(gemma, 18), (idefics, 6)])
@pytest.mark.parametrize("size", [(100, 80), (30, 90)])
def test_marks_around_an_image_count_and_a_processor_without_a_formula_is_run(
    make: Any, tokens: int, size: tuple[int, int], tmp_path: Path
) -> None:
    builder = PromptBuilder(make(tmp_path), max_images=1)
    images = (picture(Image.new("RGB", size)),)
    asked = Sample(sample_id="a", source="unit", task="iou", question="where is?", answer="", images=images)

    found = builder.measure("where is?", [size], "a")

    assert (found.num_tokens, found.num_image_tokens) == (len(builder.expanded_ids(asked)), tokens)


@pytest.mark.parametrize("values", [{}, {"do_normalize": False}, {"image_mean": [0.1, 0.2, 0.3]}])
def test_pixels_are_those_before_normalisation_whatever_the_processor_does(
    values: dict[str, Any], tmp_path: Path
) -> None:
    builder = PromptBuilder(gemma(tmp_path, **values), max_images=1)
    pixels = builder._processor.image_processor(images=[NOISE], return_tensors="pt")["pixel_values"]

    found = builder.encoded_picture(pixels, [1])

    original = torch.from_numpy(np.array(NOISE)).permute(2, 0, 1).reshape(1, -1)
    assert found.pixels == fingerprint(original)
