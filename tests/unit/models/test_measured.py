"""What prompt lengths depend on: equal wherever a folder lies, different where a length would be."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from orchestration.models.measured import MeasuredWith, measured_with, of_record
from orchestration.settings.model import ModelConfig
from rollout.conversation import PromptSpec
from tests.tiny_models import make_tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    make_tiny_model(path, corpus=["how tall is the third bar"])
    return path


def model(folder: Path, **fields: int) -> ModelConfig:
    return ModelConfig(path=str(folder), family=None, coord_mode="pixel", **fields)


def measured(folder: Path, system_prompt: str = "Think first.", **fields: int) -> MeasuredWith:
    return measured_with(model(folder, **fields), folder, PromptSpec(system_prompt=system_prompt))


def test_a_copy_measures_the_same(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / "copy"
    shutil.copytree(folder, copy)
    assert measured(copy) == measured(folder)
    assert all(vars_of(measured(folder)).values())
    linked = tmp_path / "linked"
    linked.symlink_to(copy)
    assert measured(linked) == measured(folder)


def vars_of(one: MeasuredWith) -> dict[str, str]:
    found: dict[str, str] = json.loads(one.record)
    return found


def test_what_the_last_call_of_a_tokenizer_was_does_not_matter(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    content = json.loads((copy / "tokenizer.json").read_text())
    content["truncation"] = {"max_length": 5}
    content["padding"] = {"strategy": "BatchLongest"}
    (copy / "tokenizer.json").write_text(json.dumps(content, indent=4))
    assert measured(copy) == measured(folder)


def test_each_part_is_told_by_its_name(folder: Path, tmp_path: Path) -> None:
    mine = measured(folder)
    assert mine.differences(measured(folder, "Another."), ()) == ["system prompt"]
    assert mine.differences(measured(folder, ""), ()) == ["system prompt"]
    assert mine.differences(measured(folder, max_pixels=12_544), ()) == ["images"]
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    content = json.loads((copy / "tokenizer.json").read_text())
    content["model"]["vocab"].pop(next(reversed(content["model"]["vocab"])))
    (copy / "tokenizer.json").write_text(json.dumps(content))
    templates = list(copy.glob("chat_template*"))
    assert templates
    for template in templates:
        template.write_text("{{ messages[0].content }}")
    assert mine.differences(measured(copy), ()) == ["tokenizer", "chat template"]


def test_prompts_of_tasks_are_compared_for_the_tasks_of_the_rows(folder: Path) -> None:
    mine, other = (
        measured_with(model(folder), folder, PromptSpec(task_prompts=prompts))
        for prompts in ({}, {"iou": "In pixels."})
    )
    assert mine.differences(other, ["iou", "chart"]) == other.differences(mine, ["iou"]) == ["task prompts"]
    assert mine.differences(other, ["chart"]) == []


def test_variables_of_the_template_are_compared(folder: Path) -> None:
    mine, other = (
        measured_with(model(folder), folder, PromptSpec(template_kwargs=given))
        for given in ({}, {"enable_thinking": False})
    )
    assert mine.differences(other, ()) == ["template variables"]


def test_a_record_of_an_earlier_version_had_neither(folder: Path) -> None:
    plain = measured(folder)
    kept = {key: value for key, value in json.loads(plain.record).items() if not key.startswith(("task_", "template_"))}
    earlier = of_record(json.dumps(kept))
    assert earlier == plain
    asking = measured_with(
        model(folder), folder, PromptSpec(system_prompt="Think first.", task_prompts={"iou": "In pixels."})
    )
    assert earlier.differences(asking, ["iou"]) == ["task prompts"]
    assert earlier.differences(asking, ["chart"]) == []


def test_images_are_told_in_words(folder: Path) -> None:
    assert measured(folder, min_pixels=3_136, max_pixels=12_544).images == (
        "tokens of 28 pixels a side, 3136 to 12544 pixels"
    )


def test_what_is_not_known_is_not_compared(folder: Path, tmp_path: Path) -> None:
    mine = measured(folder)
    unknown = measured_with(model(folder), None, PromptSpec(system_prompt="Think first."))
    assert (unknown.tokenizer, unknown.chat_template, unknown.images) == ("", "", mine.images)
    assert mine.differences(unknown, ()) == unknown.differences(mine, ()) == []
    empty = measured_with(model(folder), tmp_path, PromptSpec(system_prompt="Think first."))
    assert (empty.tokenizer, empty.chat_template) == ("", "")
    assert mine.differences(replace(mine, images=""), ()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"tokenizer": "a"}', '{"other": 1}', "null"])
def test_a_record_that_says_nothing_is_none(text: str) -> None:
    assert of_record(text) is None


def test_a_record_is_read_back(folder: Path) -> None:
    assert of_record(measured(folder).record) == measured(folder)
