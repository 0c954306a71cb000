"""The envelope: format reward, answer block, and what a completion earns that was cut or hedged."""

import random

import pytest

from rewards.core.base import Reason
from rewards.core.config import FormatConfig
from rewards.core.envelope import extract_answer, format_reward, read_envelope

STRICT = FormatConfig()


@pytest.mark.parametrize(
    "response",
    [
        "<think>a</think><answer>B</answer>",
        "\n<think>\na\n</think>\n<answer>\nB\n</answer>\n<|im_end|>\n<|endoftext|>",
        "<think>1 < 2</think><answer>a <b> c</answer></s>",
    ],
)
def test_well_formed_response_earns_the_format_reward(response: str) -> None:
    assert format_reward(response, STRICT) == 1.0


@pytest.mark.parametrize(
    "response",
    [
        "<think><think><think>a</think><answer>B</answer>",
        "<think>a</think></think><answer>B</answer>",
        "<Think>a</Think><Answer>B</Answer>",
        "<think>a</think><answer>B</answer>.",
        "<think>a</think><answer> \n\t</answer>",
        "<think>a</think><answer>B</answer></answer>",
        "<answer><think>a</think>B</answer>",
        "\uff1cthink\uff1ea\uff1c/think\uff1e<answer>B</answer>",
        "<|im_end|>",
    ],
)
def test_malformed_response_earns_no_format_reward(response: str) -> None:
    assert format_reward(response, STRICT) == 0.0


def test_graded_format_pays_a_quarter_per_tag_that_occurs_once() -> None:
    graded = FormatConfig(graded=True)
    assert format_reward("<think>a</think><answer>B</answer>", graded) == 1.0
    assert format_reward("<think>a<answer>B</answer>", graded) == 0.75
    assert format_reward("<think><think>a</think>", graded) == 0.25


def test_empty_think_can_be_allowed_and_prefilled() -> None:
    assert format_reward("<think></think><answer>B</answer>", FormatConfig(allow_empty_think=True)) == 1.0
    prefilled = FormatConfig(think_prefilled=True)
    assert format_reward("a</think><answer>B</answer>", prefilled) == 1.0
    assert format_reward("<think>a</think><answer>B</answer>", prefilled) == 0.0
    assert extract_answer("a</think><answer>B</answer>", prefilled).text == "B"


def test_multi_line_answer_is_read_whole() -> None:
    assert extract_answer("<think>a</think><answer>B\nC\n</answer>", STRICT).text == "B\nC"


@pytest.mark.parametrize(
    ("response", "text", "reason"),
    [
        ("<answer>B</answer>", "B", Reason.OK),
        ("<think>x <answer>A</answer></think><answer>B</answer>", "B", Reason.OK),
        ("<think>a</think><answer>B</answer> so, B", "B", Reason.OK),
        ("<think>a <answer>B</answer>", None, Reason.NO_ANSWER),
        ("<think>a</think><answer>B", None, Reason.NO_ANSWER),
        ("<think>a</think></answer>B<answer>", None, Reason.NO_ANSWER),
        ("<answer>B</answer><think>a</think>", None, Reason.NO_ANSWER),
        ("<think>a</think><answer></answer>", None, Reason.NO_ANSWER),
        ("<think>a</think>B", None, Reason.NO_ANSWER),
        ("<think>a</think><answer>A</answer><answer>B</answer>", None, Reason.TWO_ANSWERS),
        ("<think>a</think><answer>A<answer>B</answer>", None, Reason.TWO_ANSWERS),
        ("", None, Reason.NO_ANSWER),
    ],
)
def test_only_one_closed_block_after_thinking_is_an_answer(response: str, text: str | None, reason: Reason) -> None:
    answer = extract_answer(response, STRICT)
    assert (answer.text, answer.reason) == (text, reason)


def test_fallback_reads_untagged_text_after_think_only() -> None:
    fallback = FormatConfig(fallback="after_think")
    assert extract_answer("<think>a</think> B ", fallback).text == "B"
    assert extract_answer("B", fallback).text is None
    assert extract_answer("<think>a</think><answer>B", fallback).text is None


@pytest.mark.parametrize(
    "config",
    [
        FormatConfig(),
        FormatConfig(think_prefilled=True),
        FormatConfig(fallback="after_think"),
        FormatConfig(graded=True),
        FormatConfig(allow_empty_think=True),
    ],
    ids=repr,
)
def test_one_reading_of_an_envelope_says_what_its_two_functions_say(config: FormatConfig) -> None:
    generator = random.Random(0)
    pieces = ("<think>", "</think>", "<answer>", "</answer>", "a", " ", "\n", "<|im_end|>", "k>", "answer>")
    asked = ("<think>", "a", "</think>", "\n", "<answer>", "b", "</answer>")[config.think_prefilled :]
    num_asked = 0
    for _ in range(20_000):
        parts = list(asked) if generator.random() < 0.7 else generator.choices(pieces, k=generator.randrange(10))
        for _ in range(generator.randrange(3)):
            parts.insert(generator.randrange(len(parts) + 1), generator.choice(pieces))
        response = "".join(parts)
        envelope, answer = read_envelope(response, config), extract_answer(response, config)
        assert envelope == (answer.text, answer.reason, format_reward(response, config)), response
        num_asked += envelope.format_reward == 1.0
    assert num_asked > 1000
