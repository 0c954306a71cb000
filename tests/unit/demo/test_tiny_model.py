"""The model folder: its tokenizer, its processor, its weights, and that shared rows equal single ones."""

import io
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from learner.config import SUPPORTED_FAMILIES
from learner.families.base import ModelFamily
from learner.families.registry import get_family
from orchestration.demo.drawn.questions import END_OF_TURN, DemoSample, tags_of
from orchestration.demo.drawn.tasks import generate_samples
from orchestration.demo.tiny_model import CHAT_TOKENS, SILENT_WEIGHTS
from orchestration.demo.warm_start import load, pictures_of, prompt_text
from orchestration.settings.demo import CELL, SIDE
from orchestration.settings.model import TinyModel
from rewards.core.config import DEFAULT_FORMAT
from tests.tiny_models import TINY_MODELS, make_tiny_model, tiny


@pytest.fixture(scope="module")
def processor(model_folder: Path) -> Any:
    return AutoProcessor.from_pretrained(model_folder)


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Any:
    return AutoModelForImageTextToText.from_pretrained(model_folder).eval()


def picture(sample: DemoSample) -> Image.Image:
    return Image.open(io.BytesIO(sample.image_png))


def test_every_family_of_the_learner_has_a_tiny_model() -> None:
    assert set(SUPPORTED_FAMILIES) <= {tiny(name).hf_config["model_type"] for name in TINY_MODELS}


@pytest.mark.parametrize("text", ["Ünïcode, 3.14\n\ttabs  and 漢字 🙂", "[28, 0, 112, 56]", "<think>a</think> B"])
def test_any_text_survives_the_tokenizer(processor: Any, text: str) -> None:
    ids = processor.tokenizer(text, add_special_tokens=False).input_ids

    assert processor.tokenizer.decode(ids) == text


def test_texts_of_the_demo_survive_and_stay_short(name: str, processor: Any, model_samples: list[DemoSample]) -> None:
    # transformers splits the text of every Qwen3.5 by that model's pattern, whatever the folder's tokenizer says.
    longest = 50 if name == "qwen3_5" else 48
    for sample in model_samples:
        ids = processor.tokenizer(sample.solution.written(DEFAULT_FORMAT), add_special_tokens=False).input_ids
        assert processor.tokenizer.decode(ids, skip_special_tokens=True) == sample.solution.written(DEFAULT_FORMAT)
        assert len(ids) + 1 <= longest


def test_tags_and_control_tokens_are_single_tokens(processor: Any, tiny_model: TinyModel) -> None:
    for token in (*tags_of(DEFAULT_FORMAT), *CHAT_TOKENS, *tiny_model.control_tokens):
        assert len(processor.tokenizer(f"a{token}b", add_special_tokens=False).input_ids) == 3, token


def test_skipping_special_tokens_keeps_the_tags(processor: Any) -> None:
    ids = processor.tokenizer(f"<think>a</think><answer>b</answer>{END_OF_TURN}", add_special_tokens=False).input_ids

    assert processor.tokenizer.decode(ids, skip_special_tokens=True) == "<think>a</think><answer>b</answer>"


def test_digits_are_tokens_of_their_own(processor: Any) -> None:
    assert len(processor.tokenizer("112", add_special_tokens=False).input_ids) == 3


def test_the_prompt_is_one_user_turn_with_the_image_first(
    processor: Any, tiny_model: TinyModel, samples: list[DemoSample]
) -> None:
    assert prompt_text(processor, replace(samples[0], question="Find it.")) == (
        f"<|im_start|>user\n{tiny_model.image_markup}Find it.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_drawing_takes_as_many_tokens_as_the_family_says(
    processor: Any, model: Any, samples: list[DemoSample]
) -> None:
    family = get_family(model.config)
    prompt = prompt_text(processor, replace(samples[0], question="Find it."))
    ids = processor(text=[prompt * 2], images=[picture(samples[0]), picture(samples[3])]).input_ids[0]
    if not isinstance(family, ModelFamily):  # of Gemma 4, whose processor makes at least 64 of any picture
        assert ids.count(family.image_token_id) == 2 * 64
        return
    encoded = family.encode(processor.image_processor, [picture(samples[0]), picture(samples[3])])

    counts = [family.num_tokens(image.grids[0].tolist()) for image in encoded]
    assert counts == [(SIDE // CELL) ** 2] * 2  # one a cell
    assert ids.count(family.image_token_id) == sum(counts)


def test_the_model_is_small_float32_and_ends_with_the_turn(model: Any, processor: Any) -> None:
    parameters = list(model.parameters())

    assert 0.5e6 < sum(parameter.numel() for parameter in parameters) < 2e6
    assert {parameter.dtype for parameter in parameters} == {torch.float32}
    assert model.generation_config.eos_token_id == processor.tokenizer.convert_tokens_to_ids(END_OF_TURN)
    assert len(processor.tokenizer) <= model.config.text_config.vocab_size


def test_equal_seeds_give_equal_weights(tmp_path: Path, name: str) -> None:
    for place, seed in (("a", 1), ("b", 1), ("c", 2)):
        make_tiny_model(tmp_path / place, name, corpus=["red oval, blue cross"] * 4, seed=seed)
    first, second, other = ((tmp_path / place / "model.safetensors").read_bytes() for place in "abc")

    assert first == second
    assert first != other


def test_every_block_starts_as_the_identity(model: Any) -> None:
    silent = [name for name, parameter in model.named_parameters() if name.endswith(SILENT_WEIGHTS)]

    family = get_family(model.config)
    family.prepare(model)
    num_blocks = len(family.language_blocks(model)) + len(family.vision_blocks(model))
    assert len(silent) == 2 * num_blocks  # attention and MLP
    assert not any(model.get_parameter(name).any() for name in silent)


def test_questions_that_share_a_picture_see_what_each_would_see_alone(
    model_folder: Path, tiny_model: TinyModel, processor: Any, samples: list[DemoSample]
) -> None:
    rows = [
        [(sample, sample.solution.written(DEFAULT_FORMAT) + END_OF_TURN) for sample in group]
        for group in pictures_of(samples)[:3]
    ]
    policy, collator = load(model_folder, tiny_model)
    model = AutoModelForImageTextToText.from_pretrained(model_folder)
    # Blocks start silent, so that a wrong mask would go unseen: give every block a voice first.
    torch.manual_seed(0)
    with torch.no_grad():
        for ours, plain in zip(policy.hf_model.parameters(), model.parameters(), strict=True):
            if not ours.any():
                plain.copy_(ours.normal_(0.0, 0.1))
        shared, _ = policy(collator.collate(rows))
        alone = torch.cat([logprobs_alone(model, processor, *pair) for row in rows for pair in row])

    torch.testing.assert_close(shared, alone, rtol=1e-5, atol=1e-5)


def test_questions_in_words_that_share_a_beginning_read_what_each_would_read_alone(tmp_path: Path) -> None:
    told = list(generate_samples(seed=3, split="train", num_samples=9, questions_per_picture=3, in_words=True))
    corpus = [text for sample in told for text in (sample.question, sample.demonstration(random.Random(0)))]
    make_tiny_model(tmp_path, "qwen3", corpus=corpus)
    policy, collator = load(tmp_path, tiny("qwen3"))
    tokenizer, model = AutoTokenizer.from_pretrained(tmp_path), AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.manual_seed(0)
    expected = []
    with torch.no_grad():
        for ours, plain in zip(policy.hf_model.parameters(), model.parameters(), strict=True):
            plain.copy_(ours.normal_(0.0, 0.1))
        rows = [[(s, s.solution.written(DEFAULT_FORMAT) + END_OF_TURN) for s in group] for group in pictures_of(told)]
        shared, _ = policy(collator.collate(rows))
        for sample, completion in [pair for row in rows for pair in row]:
            prompt = tokenizer(prompt_text(tokenizer, sample), add_special_tokens=False, return_tensors="pt").input_ids
            ids = tokenizer(completion, add_special_tokens=False, return_tensors="pt").input_ids
            logits = model(torch.cat([prompt, ids], dim=1)).logits[0, prompt.shape[1] - 1 : -1]
            expected.append(logits.log_softmax(-1).gather(1, ids[0, :, None])[:, 0])

    torch.testing.assert_close(shared, torch.cat(expected), rtol=1e-5, atol=1e-5)


def logprobs_alone(model: Any, processor: Any, sample: DemoSample, completion: str) -> torch.Tensor:
    inputs = processor(
        text=[prompt_text(processor, sample) + completion],
        images=[picture(sample)],
        return_tensors="pt",
        return_mm_token_type_ids=hasattr(model.model, "get_rope_index"),
    )
    num_tokens = len(processor.tokenizer(completion, add_special_tokens=False).input_ids)
    logprobs = model(**inputs).logits[0, -num_tokens - 1 : -1].log_softmax(-1)
    return logprobs.gather(1, inputs["input_ids"][0, -num_tokens:, None]).squeeze(1)
