"""The answer format of a run: the prompt asks for what readers expect, and a plan warns where it does not."""

import re
from pathlib import Path

import pytest

from orchestration.evaluate.benchmarks import PRESETS, row_columns
from orchestration.evaluate.predictions import prediction
from orchestration.plan.findings import prompt_findings
from orchestration.score.summary import Agreement
from orchestration.settings.composition import compose
from orchestration.settings.experiment import build_settings
from orchestration.workers.answers import UNANSWERED, bare_answer, drawable_boxes
from rewards.core.base import Reason, RewardResult
from rewards.core.config import FormatConfig
from tests.unit.evaluate.builders import completion, sample

README = Path(__file__).parents[3] / "rollout" / "README.md"
GPU = ("rollout=vllm_gpu",)
BOXED, JSON, NONE = FormatConfig(style="boxed"), FormatConfig(style="json"), FormatConfig(style="none")


def system_prompt(*overrides: str) -> str:
    return build_settings(compose([*GPU, *overrides])).rollout.system_prompt


def test_the_prompt_of_every_gpu_recipe_is_derived_from_the_style() -> None:
    assert system_prompt() == (
        "First think about the question inside <think> </think>, then give the final answer inside <answer> </answer>."
    )
    assert "\\boxed{}" in system_prompt("reward.format.style=boxed")
    own = system_prompt("reward.format.think_tag=reason", "reward.format.answer_tag=final")
    assert "<reason> </reason>" in own
    assert "<final> </final>" in own


def test_a_prompt_of_ones_own_holds_the_instruction_where_it_says_so() -> None:
    text = system_prompt("rollout.system_prompt=Read {x} charts. {format} Be kind.", "reward.format.style=none")
    assert text == "Read {x} charts. Give the final answer and nothing else. Be kind."
    assert system_prompt("rollout.system_prompt=Be kind.") == "Be kind."


@pytest.mark.parametrize(
    ("overrides", "missing"),
    [
        ((), None),
        (("reward.format.style=json",), None),
        (("rollout.system_prompt=Be kind.",), "<think> and <answer>"),
        (("rollout.system_prompt=Be kind. {format}",), None),
        (("rollout.system_prompt=Be kind.", "reward.format.style=boxed"), r"\boxed"),
        (("rollout.system_prompt=Be kind.", "reward.format.style=none"), None),
        (('rollout.system_prompt=""',), None),
        (('rollout.system_prompt=""', "reward.format.style=boxed"), r"\boxed"),
    ],
)
def test_a_plan_warns_of_a_prompt_that_never_mentions_the_form(overrides: tuple[str, ...], missing: str | None) -> None:
    found = list(prompt_findings(build_settings(compose([*GPU, *overrides]))))
    assert [finding.severity for finding in found] == ([] if missing is None else ["warning"])
    if missing is not None:
        assert found[0].key == "rollout.system_prompt"
        assert f"does not mention {missing}, by which" in found[0].message


@pytest.mark.parametrize(
    ("form", "text", "answer"),
    [
        (BOXED, r"So \boxed{B}.", "B"),
        (BOXED, r"<think>\boxed{A}</think> It is B.", "It is B."),
        (JSON, 'So {"answer": "B"}', "B"),
        (NONE, "<think>a</think>B", "B"),
        (FormatConfig(think_tag="reason", answer_tag="final"), "<reason>a</reason><final>B</final>", "B"),
        (FormatConfig(style="boxed", think_prefilled=True), r"a</think>\boxed{B}", "B"),
        (BOXED, "<think>never ends", UNANSWERED),
    ],
)
def test_other_scorers_get_the_answer_without_its_marks(form: FormatConfig, text: str, answer: str) -> None:
    assert bare_answer(text, form) == answer
    row = sample("a", task="match_mcq", answer="B", greedy=completion(text=text))
    assert prediction(row, form=form) == answer


def test_presets_read_answers_by_the_form() -> None:
    row = sample("a", task="chart", answer="45", greedy=completion(text=r"It is \boxed{45}"))
    official = [row_columns(PRESETS["chartqa"], row, *form)["official"] for form in ((BOXED,), ())]  # type: ignore[index]
    assert official == [1.0, 0.0]
    box = sample(
        "b", task="iou", answer="[0, 0, 9, 9]", image_sizes=((9, 9),), greedy=completion(text=r"\boxed{[0, 0, 9, 9]}")
    )
    strict = [row_columns(PRESETS["refcoco"], box, *form)["strict"] for form in ((BOXED,), ())]  # type: ignore[index]
    assert strict == [1.0, 0.0]
    assert drawable_boxes(box.request('{"answer": [0, 0, 9, 9]}'), JSON)["given"] == [(0.0, 0.0, 9.0, 9.0)]


def test_disagreements_show_the_answer_of_the_form() -> None:
    agreement = Agreement("verdict", BOXED)
    result = RewardResult(0.1, 0.0, 1.0, {}, None, Reason.OK, None)
    agreement.add("a", {"task": "chart", "verdict": True, "response": r"so \boxed{4}", "answer": "5"}, result)
    assert "a: '4' against '5'" in agreement.report()


def test_the_example_of_the_page_runs() -> None:
    section = README.read_text().split("## Prompt and answer format of your own\n")[1].split("\n## ")[0]
    [example] = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    exec(compile(example, str(README), "exec"), {})


def test_the_page_states_the_instruction_of_every_style() -> None:
    section = README.read_text().split("## Prompt and answer format of your own\n")[1].split("\n## ")[0]
    for style in ("tags", "boxed", "json", "none"):
        assert f"| {system_prompt(f'reward.format.style={style}')} |" in section
