"""Special tokens inside answers: they reach the reward, and only grounding reads a meaning into them."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from rewards.core.base import RewardRequest
from rewards.core.config import GroundingConfig, RewardConfig
from rewards.functions.tokenizer import CompletionDecoder, load_tokenizer
from rewards.mixed import MixedReward

SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|image_pad|>", "<ref>", "</ref>", "<box>", "</box>", "<think>",
    "</think>", "<answer>", "</answer>", "</s>", "<pad>",
)  # fmt: skip
WEIGHTS = "model.safetensors"
DOG = [{"bbox_2d": [100, 200, 600, 700], "label": "dog"}]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Bytes, as those of both families, with all marks special."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: number for number, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


@pytest.fixture
def folder(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    told = {"eos_token": {"content": "<|im_end|>", "special": True}, "pad_token": "<|endoftext|>", "bos_token": None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(told))
    ends = {"eos_token_id": [tokenizer.token_to_id("</s>")], "pad_token_id": tokenizer.token_to_id("<pad>")}
    (tmp_path / "generation_config.json").write_text(json.dumps(ends))
    return tmp_path


@pytest.mark.parametrize(
    "text",
    [
        "<think>x é</think><answer><ref>dog</ref><box>[[1, 2, 3, 4]]</box></answer>",
        "<|object_ref_start|>the dog<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>",
        "<|quad_start|>(1,2)<|quad_end|> 你好",
    ],
)
def test_a_completion_is_read_with_its_marks_and_without_what_ends_or_pads_it(
    text: str, tokenizer: Tokenizer, folder: Path
) -> None:
    decoder = CompletionDecoder(folder, hidden=("<|image_pad|>", "<of another family>"))
    around = "<|im_start|>{}<|image_pad|><|im_end|></s><|endoftext|><pad>"

    assert decoder.decode([tokenizer.encode(around.format(text)).ids, []]) == [text, ""]


def test_padding_and_truncation_stored_with_a_tokenizer_change_no_text_and_no_reward(
    tokenizer: Tokenizer, folder: Path
) -> None:
    save_file({"model.embed_tokens.weight": np.eye(tokenizer.get_vocab_size(), dtype=np.float32)}, folder / WEIGHTS)
    texts = ["a dog", "a dog rests on the lawn, and a cat is beside it"]
    requests = [
        RewardRequest(task="open", question="", response=f"<answer>{text}</answer>", answer=texts[1]) for text in texts
    ]

    def scored() -> list[float | None]:
        with MixedReward.from_checkpoint(RewardConfig(), folder) as rewards:
            return [result.task_reward for result in rewards.score(requests)]

    as_made = scored()
    saved_after_a_padded_call = Tokenizer.from_str(tokenizer.to_str())
    saved_after_a_padded_call.enable_padding(length=16, pad_id=tokenizer.token_to_id("<pad>"), pad_token="<pad>")
    saved_after_a_padded_call.enable_truncation(max_length=16)
    saved_after_a_padded_call.save(str(folder / "tokenizer.json"))

    assert [len(load_tokenizer(folder).encode(text).ids) for text in texts] == [len(text) for text in texts]
    assert scored() == as_made


@pytest.mark.parametrize(
    "answer",
    [
        "<ref>dog</ref><box>[[100, 200, 600, 700]]</box>",
        "<|object_ref_start|>the dog<|object_ref_end|><|box_start|>(100,200),(600,700)<|box_end|>",
        '<|box_start|>[{"bbox_2d": [100, 200, 600, 700], "label": "dog"}]<|box_end|>',
    ],
)
@pytest.mark.parametrize(("label", "value"), [("dog", 1.0), ("cat", 0.0)])
def test_the_label_of_a_box_is_read_in_every_spelling(answer: str, label: str, value: float) -> None:
    request = RewardRequest(
        task="iou", question="the dog", response=f"<think>x</think><answer>{answer.replace('the dog', 'dog')}</answer>",
        answer=json.dumps([{**DOG[0], "label": label}]), image_sizes=((1000, 1000),),
    )  # fmt: skip
    with MixedReward(RewardConfig(grounding=GroundingConfig(label_aware=True))) as rewards:
        assert rewards.score([request])[0].task_reward == value


def test_other_rewards_read_the_words_between_the_marks() -> None:
    request = RewardRequest(
        task="match_text", question="what is it?", answer="dog",
        response="<think>x</think><answer><|object_ref_start|>dog<|object_ref_end|></answer>",
    )  # fmt: skip
    with MixedReward(RewardConfig()) as rewards:
        assert rewards.score([request])[0].task_reward == 1.0
