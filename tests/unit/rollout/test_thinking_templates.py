"""Chat templates that open the think block, or take enable_thinking: prompts of all sides and the format reward agree.

Endings of the generation prompt as published: Qwen3-VL-Thinking opens the block; Qwen3 closes an empty one where
enable_thinking is false; Qwen3.5 opens it unless enable_thinking is false, and then closes an empty one.
"""

from pathlib import Path
from typing import Any

import pytest

from orchestration.models.chat_template import ChatTemplate, check_opened_thinking
from orchestration.models.image_tokens import processor_of
from orchestration.models.shapes import shape_of
from orchestration.plan.dataset import PromptRuler
from orchestration.settings.errors import ConfigError
from orchestration.settings.model import ModelConfig
from rewards.core.base import RewardRequest
from rewards.core.config import FormatConfig, RewardConfig
from rewards.mixed import MixedReward
from rollout.conversation import Conversation, PromptSpec
from rollout.errors import RolloutError
from rollout.prompt import PromptBuilder
from rollout.records import Sample
from tests.tiny_models import make_tiny_model
from tests.unit.settings.test_answer_format import GPU, build_settings, compose

TURNS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for part in m.content %}{{ part.text }}{% endfor %}"
    "<|im_end|>\n{% endfor %}"
)
CLOSED = "<think>\n\n</think>\n\n"
IS_OFF = "enable_thinking is defined and enable_thinking is false"
ENDINGS = {
    "thinking": "<think>\n",
    "opens by default": f"{{% if {IS_OFF} %}}{CLOSED}{{% else %}}<think>\n{{% endif %}}",
    "closed on demand": f"{{% if {IS_OFF} %}}{CLOSED}{{% endif %}}",
}
CASES: list[tuple[str, dict[str, Any], str]] = [
    ("thinking", {}, "<think>\n"),
    ("opens by default", {}, "<think>\n"),
    ("opens by default", {"enable_thinking": True}, "<think>\n"),
    ("opens by default", {"enable_thinking": False}, CLOSED),
    ("closed on demand", {}, ""),
    ("closed on demand", {"enable_thinking": False}, CLOSED),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    make_tiny_model(folder, corpus=["How many bars? think"] * 3)
    return folder


def given(folder: Path, ending: str) -> Path:
    text = f"{TURNS}{{% if add_generation_prompt %}}<|im_start|>assistant\n{ENDINGS[ending]}{{% endif %}}"
    (folder / "chat_template.jinja").write_text(text)
    return folder


@pytest.mark.parametrize("system_prompt", ["", "First think inside <think> </think>."])
@pytest.mark.parametrize(("ending", "variables", "end"), CASES)
def test_engine_learner_plan_and_data_engine_ask_alike(
    ending: str, variables: dict[str, Any], end: str, system_prompt: str, folder: Path
) -> None:
    given(folder, ending)
    spec = PromptSpec(system_prompt=system_prompt, task_prompts={"chart": "Be brief."}, template_kwargs=variables)
    asked = Sample(sample_id="a", source="unit", task="chart", question="How many bars?", answer="3", images=())
    system = f"<|im_start|>system\n{system_prompt}<|im_end|>\n" if system_prompt else ""
    text = f"{system}<|im_start|>user\nHow many bars?\nBe brief.<|im_end|>\n<|im_start|>assistant\n{end}"
    builder = PromptBuilder(folder, spec=spec, max_images=1)
    model = ModelConfig(path=str(folder), family=None)

    ids = builder.build(asked).token_ids

    assert builder._tokenizer.decode(ids) == text
    assert ids == builder.expanded_ids(asked)
    assert ChatTemplate(folder).prompt("How many bars?", num_images=0, spec=spec, task="chart") == text
    [planned] = PromptRuler(folder, shape_of(model), processor_of(model), spec).measure([Conversation.of(asked)], [[]])
    measured = builder.measure("How many bars?", [], "a", task="chart")
    assert planned is not None
    assert planned.num_tokens == measured.num_tokens == len(ids)


@pytest.mark.parametrize(("ending", "variables", "end"), CASES)
def test_the_format_reward_pays_what_such_a_prompt_leaves_to_write(
    ending: str, variables: dict[str, Any], end: str, folder: Path
) -> None:
    given(folder, ending)
    spec = PromptSpec(template_kwargs=variables)
    is_open = end == "<think>\n"
    agreeing, other = (
        RewardConfig(format=FormatConfig(think_prefilled=prefilled)) for prefilled in (is_open, not is_open)
    )

    check_opened_thinking(folder, agreeing, spec)
    with pytest.raises(ConfigError, match=rf"set reward\.format\.think_prefilled={str(is_open).lower()}"):
        check_opened_thinking(folder, other, spec)

    written = "Three.</think><answer>3</answer>" if is_open else "<think>Three.</think><answer>3</answer>"
    request = RewardRequest(task="chart", question="How many bars?", response=written, answer="3")
    with MixedReward(agreeing) as rewards:
        [result] = rewards.score([request])
    assert (result.format_reward, result.task_reward) == (1.0, 1.0)


def test_a_variable_that_the_template_never_reads_is_refused(folder: Path) -> None:
    given(folder, "thinking")
    spec = PromptSpec(template_kwargs={"enable_thinking": False})

    with pytest.raises(ConfigError, match=r"rollout\.chat_template_kwargs\.enable_thinking: .* reads no variable"):
        check_opened_thinking(folder, RewardConfig(format=FormatConfig(think_prefilled=True)), spec)


def test_variables_are_settings_of_the_run_and_none_may_be_the_runs_own() -> None:
    found = build_settings(compose([*GPU, "+rollout.chat_template_kwargs.enable_thinking=false"]))

    assert found.rollout.prompt_spec.template_kwargs == {"enable_thinking": False}
    with pytest.raises((ConfigError, RolloutError), match="names add_generation_prompt, which the run sets itself"):
        build_settings(compose([*GPU, "+rollout.chat_template_kwargs.add_generation_prompt=false"]))
