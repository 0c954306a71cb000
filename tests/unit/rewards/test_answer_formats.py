"""Styles of answers: what the prompt asks for is what is written, read and paid; hostile text stays cheap."""

import time
from dataclasses import replace

import pytest

from rewards import MixedReward, RewardConfig, RewardRequest
from rewards.core.base import Reason, RewardError
from rewards.core.config import FormatConfig
from rewards.core.envelope import (
    extract_answer,
    fill_instruction,
    format_reward,
    instruction,
    read_envelope,
    unmentioned,
    write_response,
)
from rewards.proof import ReferenceProof

OWN_TAGS = FormatConfig(think_tag="reason", answer_tag="final")
BOXED, JSON, NONE = FormatConfig(style="boxed"), FormatConfig(style="json"), FormatConfig(style="none")
EVERY = (FormatConfig(), OWN_TAGS, BOXED, JSON, NONE)
ANSWERS = ("B", "0.50", r"\frac{1}{2}", '[{"bbox_2d": [1, 2, 3, 4], "label": "a"}]', "Größe \u4e2d", 'a "b" c', "x\ny")
LIMIT_S = 0.1
"""For 100 kB; what goes back would take minutes."""


def name(config: FormatConfig) -> str:
    return f"{config.style}-{config.answer_tag}-{config.think_prefilled}"


@pytest.mark.parametrize("is_prefilled", [False, True])
@pytest.mark.parametrize("config", EVERY, ids=name)
@pytest.mark.parametrize("answer", ANSWERS)
def test_what_is_written_in_a_style_is_read_and_paid_in_it(
    config: FormatConfig, answer: str, is_prefilled: bool
) -> None:
    config = replace(config, think_prefilled=is_prefilled)
    for ending in ("", "<|im_end|>\n"):
        response = write_response(answer, config, think="It is so.") + ending
        assert read_envelope(response, config) == (answer, Reason.OK, 1.0), response


@pytest.mark.parametrize("config", EVERY, ids=name)
def test_the_instruction_mentions_what_the_reader_needs(config: FormatConfig) -> None:
    assert unmentioned(instruction(config), config) == []
    assert unmentioned(fill_instruction("You read charts. {format} {x}", config), config) == []
    assert fill_instruction("{format}", config) == instruction(config)


def test_the_default_instruction_is_the_prompt_of_all_recipes_so_far() -> None:
    assert instruction(FormatConfig()) == (
        "First think about the question inside <think> </think>, then give the final answer inside <answer> </answer>."
    )


@pytest.mark.parametrize(
    ("config", "prompt", "missing"),
    [
        (FormatConfig(), "Think in <think> </think>.", ["<answer>"]),
        (FormatConfig(think_prefilled=True), "Answer in <answer> </answer>.", []),
        (OWN_TAGS, "Think in <think> and answer in <answer>.", ["<reason>", "<final>"]),
        (BOXED, "Be brief.", ["\\boxed"]),
        (JSON, "Answer as JSON.", ['"answer"']),
        (NONE, "", []),
    ],
)
def test_marks_that_a_prompt_never_mentions_are_named(config: FormatConfig, prompt: str, missing: list[str]) -> None:
    assert unmentioned(prompt, config) == missing


@pytest.mark.parametrize(
    ("response", "answer", "format_value"),
    [
        (r"So $\boxed{4}$.", "4", 1.0),
        (r"\boxed{3}, no: \boxed{4}", "4", 0.0),
        (r"\boxed{\frac{1}{2}} is it", r"\frac{1}{2}", 1.0),
        (r"\boxed{\{1\}}", r"\{1\}", 1.0),
        (r"\boxed{\}}", r"\}", 1.0),
        (r"\boxed{3} and \boxed{4", None, 0.0),
        (r"\boxed{ }", None, 0.0),
        ("4", None, 0.0),
        ("", None, 0.0),
        (r"<think>\boxed{3}</think>\boxed{4}", "4", 1.0),
        (r"<think>it is \boxed{3}", None, 0.0),
        (r"<answer>4</answer>", None, 0.0),
    ],
)
def test_the_last_closed_box_is_the_answer(response: str, answer: str | None, format_value: float) -> None:
    envelope = read_envelope(response, BOXED)
    assert (envelope.answer, envelope.format_reward) == (answer, format_value)
    assert envelope.reason is (Reason.NO_ANSWER if answer is None else Reason.OK)


@pytest.mark.parametrize(
    ("response", "answer", "format_value"),
    [
        ('It is so. {"answer": "dog"}', "dog", 1.0),
        ('```json\n{"answer": 0.50}\n```', "0.50", 1.0),
        ('{"why": {"a": {}}, "answer": [1, 2.0]}', "[1, 2.0]", 1.0),
        ('{"answer": true, "sure": 1}', "true", 1.0),
        ('{"why": "I write {\\"answer\\": 3}", "answer": 4}', "4", 1.0),
        ('{"answer": 3} or {"answer": 4}', "4", 0.0),
        ('{"answer": 3} that is it', "3", 0.0),
        ('{"answer": null}', None, 0.0),
        ('{"answer": " "}', None, 0.0),
        ('{"answer": 3', None, 0.0),
        ('{"Answer": 3}', None, 0.0),
        ('"answer": 3', None, 0.0),
        ("{'answer': 3}", None, 0.0),
        ('[{"answer": 3}]', "3", 0.0),
        ("", None, 0.0),
        ('<think>{"answer": 3}</think>{"answer": 4}', "4", 1.0),
        ('{"answer": "a\nb"}', "a\nb", 1.0),
        (f'{{"answer": {"9" * 5000}}}', "9" * 5000, 1.0),
    ],
)
def test_the_last_json_object_with_an_answer_is_read(response: str, answer: str | None, format_value: float) -> None:
    envelope = read_envelope(response, JSON)
    assert (envelope.answer, envelope.format_reward) == (answer, format_value)


def test_without_a_style_all_text_after_thinking_is_the_answer() -> None:
    assert read_envelope(" Paris <|im_end|>", NONE) == ("Paris", Reason.OK, 1.0)
    assert read_envelope("<think>a</think> Paris", NONE).answer == "Paris"
    assert read_envelope("<think>a, Paris", NONE) == (None, Reason.NO_ANSWER, 1.0)
    assert read_envelope("\n", NONE).answer is None


def test_own_tags_replace_the_usual_ones() -> None:
    response = "<reason>a</reason><final>B</final>"
    assert read_envelope(response, OWN_TAGS) == ("B", Reason.OK, 1.0)
    assert format_reward("<think>a</think><answer>B</answer>", OWN_TAGS) == 0.0
    assert extract_answer("<think>a</think><answer>B</answer>", OWN_TAGS).text is None
    assert extract_answer(response + "<final>C</final>", OWN_TAGS).reason is Reason.TWO_ANSWERS
    assert format_reward("<reason>a<final>B</final>", replace(OWN_TAGS, graded=True)) == 0.75


def test_a_name_that_ends_in_the_other_is_a_tag_of_its_own() -> None:
    nested = FormatConfig(think_tag="rethink", answer_tag="think")
    assert read_envelope("<rethink>a</rethink><think>B</think>", nested) == ("B", Reason.OK, 1.0)


def test_fallback_reads_unmarked_text_after_thinking_in_every_style() -> None:
    for config in (BOXED, JSON):
        fallback = replace(config, fallback="after_think")
        assert extract_answer("<think>a</think> B ", fallback).text == "B"
        assert extract_answer("B", fallback).text is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"think_tag": "<reason>"}, r"reward\.format\.think_tag is '<reason>'; use the name alone"),
        ({"answer_tag": ""}, r"reward\.format\.answer_tag is ''"),
        ({"answer_tag": "think"}, r"think_tag and answer_tag are both 'think'"),
        ({"style": "boxed", "graded": True}, r"reward\.format\.graded is true.*style=boxed; set graded=false"),
    ],
)
def test_a_form_that_cannot_be_read_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(RewardError, match=message):
        FormatConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("config", EVERY, ids=name)
def test_reward_and_proof_of_references_go_by_the_style(config: FormatConfig) -> None:
    settings = RewardConfig(format=config)
    request = RewardRequest(task="chart", question="", answer="45", response=write_response("45", config))
    with MixedReward(settings) as rewards:
        assert rewards.score([request])[0].reward == 1.0
        wrong = replace(request, response=write_response("90", config))
        assert rewards.score([wrong])[0].reward == pytest.approx(0.1)
    with ReferenceProof(settings) as proof:
        assert proof.fault(request) is None


SEEDS = {
    "boxes": "\\boxed{",
    "braces": "{",
    "closings": "}",
    "keys": '"answer":',
    "objects": '{"answer": 1} ',
    "nested": '{"answer":',
    "arrays": '{"a":[1,',
    "long strings": '{"a": "' + "x" * 1000,
    "spaces after a key": '"answer"' + " " * 1000,
    "escapes": "\\",
    "thoughts": "</think>",
}


@pytest.mark.parametrize("config", EVERY, ids=name)
@pytest.mark.parametrize("seed", SEEDS)
def test_hostile_text_is_read_in_linear_time(config: FormatConfig, seed: str) -> None:
    text = (SEEDS[seed] * (100_000 // len(SEEDS[seed]) + 1))[:100_000]
    for response in (text, text + '"answer": 1}', "\\boxed{" + text):
        tries = []
        for _ in range(2):
            start = time.process_time()
            read_envelope(response, config)
            tries.append(time.process_time() - start)
        assert min(tries) < LIMIT_S, seed
