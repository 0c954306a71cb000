"""The model folder: its tokenizer, its processor, its weights, and that shared rows equal single ones."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from orchestration.demo.drawn.questions import END_OF_TURN, DemoSample, tags_of
from orchestration.demo.tiny_model import CHAT_TOKENS, TinyFamily, make_tiny_model
from orchestration.demo.warm_start import TreeCollator, pictures_of, prompt_text
from orchestration.settings.demo import FamilyName
from rewards.core.config import DEFAULT_FORMAT

IMAGE_MARKUP = {"qwen2_5_vl": "<|vision_start|><|image_pad|><|vision_end|>", "internvl": "<IMG_CONTEXT>\n"}


@pytest.fixture(scope="module")
def processor(model_folder: Path) -> Any:
    return AutoProcessor.from_pretrained(model_folder)


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Any:
    return AutoModelForImageTextToText.from_pretrained(model_folder).eval()


def picture(sample: DemoSample) -> Image.Image:
    return Image.open(io.BytesIO(sample.image_png))


@pytest.mark.parametrize("text", ["Ünïcode, 3.14\n\ttabs  and 漢字 🙂", "[28, 0, 112, 56]", "<think>a</think> B"])
def test_any_text_survives_the_tokenizer(processor: Any, text: str) -> None:
    ids = processor.tokenizer(text, add_special_tokens=False).input_ids

    assert processor.tokenizer.decode(ids) == text


def test_texts_of_the_demo_survive_and_stay_short(processor: Any, family_samples: list[DemoSample]) -> None:
    for sample in family_samples:
        ids = processor.tokenizer(sample.solution.written(DEFAULT_FORMAT), add_special_tokens=False).input_ids
        assert processor.tokenizer.decode(ids, skip_special_tokens=True) == sample.solution.written(DEFAULT_FORMAT)
        assert len(ids) + 1 <= 48


def test_tags_and_control_tokens_are_single_tokens(processor: Any, family: TinyFamily) -> None:
    for token in (*tags_of(DEFAULT_FORMAT), *CHAT_TOKENS, *family.special_tokens):
        assert len(processor.tokenizer(f"a{token}b", add_special_tokens=False).input_ids) == 3, token


def test_skipping_special_tokens_keeps_the_tags(processor: Any) -> None:
    ids = processor.tokenizer(f"<think>a</think><answer>b</answer>{END_OF_TURN}", add_special_tokens=False).input_ids

    assert processor.tokenizer.decode(ids, skip_special_tokens=True) == "<think>a</think><answer>b</answer>"


def test_digits_are_tokens_of_their_own(processor: Any) -> None:
    assert len(processor.tokenizer("112", add_special_tokens=False).input_ids) == 3


def test_the_prompt_is_one_user_turn_with_the_image_first(processor: Any, family_name: FamilyName) -> None:
    assert prompt_text(processor, "Find it.") == (
        f"<|im_start|>user\n{IMAGE_MARKUP[family_name]}Find it.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_drawings_become_what_the_processor_makes_of_them(
    processor: Any, family: TinyFamily, samples: list[DemoSample]
) -> None:
    drawings = [samples[0], samples[3]]
    text = "".join(family.image_markup for _ in drawings)
    expected = processor(text=[text], images=[picture(sample) for sample in drawings], return_tensors="pt")

    made = family.vision_inputs([sample.image_png for sample in drawings])
    for name, values in made.items():
        torch.testing.assert_close(values, expected[name])
    ids = processor.tokenizer(family.drawing_markup * 2, add_special_tokens=False).input_ids
    assert ids == expected["input_ids"][0].tolist()
    assert ids.count(processor.image_token_id) == 2 * 16


def test_the_model_is_small_float32_and_ends_with_the_turn(model: Any, processor: Any) -> None:
    parameters = list(model.parameters())

    assert 0.5e6 < sum(parameter.numel() for parameter in parameters) < 1.5e6
    assert {parameter.dtype for parameter in parameters} == {torch.float32}
    assert model.generation_config.eos_token_id == processor.tokenizer.convert_tokens_to_ids(END_OF_TURN)
    assert len(processor.tokenizer) <= model.config.text_config.vocab_size


def test_equal_seeds_give_equal_weights(tmp_path: Path, family: TinyFamily) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make_tiny_model(tmp_path / name, family, corpus=["red oval, blue cross"] * 4, seed=seed)
    first, second, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")

    assert first == second
    assert first != other


def test_every_block_starts_as_the_identity(model: Any, family: TinyFamily) -> None:
    silent = [name for name, parameter in model.named_parameters() if name.endswith(family.silent_weights)]

    assert len(silent) in (9, 12)  # two a block of text, one or two a block of vision, three blocks each
    assert not any(model.get_parameter(name).any() for name in silent)


def test_questions_that_share_a_row_see_what_each_would_see_alone(
    model: Any, processor: Any, family: TinyFamily, samples: list[DemoSample]
) -> None:
    rows = [
        [(sample, sample.solution.written(DEFAULT_FORMAT) + END_OF_TURN) for sample in group]
        for group in pictures_of(samples)[:3]
    ]
    batch = TreeCollator(processor, family).collate(rows)
    # Blocks start silent, so that a wrong mask would go unseen: give every block a voice first.
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(0.0, 0.1)
        hidden = model.model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            attention_mask={"full_attention": batch.mask},
            **batch.vision,
            use_cache=False,
        ).last_hidden_state
        shared = model.lm_head(hidden.flatten(0, 1)[batch.target_positions])
        alone = torch.cat([logits_alone(model, processor, *pair) for row in rows for pair in row])

    torch.testing.assert_close(shared, alone, rtol=1e-4, atol=1e-4)


def logits_alone(model: Any, processor: Any, sample: DemoSample, completion: str) -> torch.Tensor:
    inputs = processor(
        text=[prompt_text(processor, sample.question) + completion],
        images=[picture(sample)],
        return_tensors="pt",
        return_mm_token_type_ids=model.config.model_type == "qwen2_5_vl",
    )
    num_tokens = len(processor.tokenizer(completion, add_special_tokens=False).input_ids)
    logits: torch.Tensor = model(**inputs).logits[0, -num_tokens - 1 : -1]
    return logits
