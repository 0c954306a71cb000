"""The frame of a model's boxes: a fact of its family, said in the prompts of rows with boxes, or a setting."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from learner.config import SUPPORTED_FAMILIES
from orchestration.cli import compose
from orchestration.models.box_frame import family_frame, frame_fault, with_box_frame
from orchestration.plan.findings import frame_findings
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig, build_settings, check_tasks
from orchestration.settings.model import ModelConfig
from tests.tiny_models import tiny_config

BOXES = [("iou", "a"), ("iou", "a"), ("pointing", "b"), ("chart", "c")]
IN_THOUSANDTHS = "Write each box as [x1, y1, x2, y2] in thousandths of the image's width and height, from 0 to 1000."


def folder_of(tmp_path: Path, model_type: str, **processor: Any) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    return tmp_path


def settings(folder: Path, *overrides: str) -> ExperimentConfig:
    return build_settings(compose(["rollout=vllm_gpu", "model=qwen2_5_vl", f"model.path={folder}", *overrides]))


@pytest.mark.parametrize("family", SUPPORTED_FAMILIES)
def test_a_family_says_its_frame_in_the_prompts_of_its_boxes(family: str, tmp_path: Path) -> None:
    found = with_box_frame(settings(folder_of(tmp_path, family, merge_size=2)))

    assert found.model.coord_mode == found.model.box_frame == SUPPORTED_FAMILIES[family]
    words = {"pixel_resized": "in pixels of the image.", "norm1000": "in thousandths of the image's width and height"}
    assert words[SUPPORTED_FAMILIES[family]] in found.rollout.task_prompts["iou"]
    assert found.rollout.task_prompts["pointing"].startswith("Write each point as [x, y] in ")
    assert with_box_frame(found) == found


def test_where_there_is_no_folder_the_stated_sizes_or_the_demo_say_it(tmp_path: Path) -> None:
    assert family_frame(ModelConfig(path=None, family=None, hf_config={"model_type": "internvl"})) == "norm1000"
    assert family_frame(tiny_config("qwen2_5_vl")) == "pixel_resized"
    assert family_frame(ModelConfig(path=str(tmp_path / "absent"), family=None)) is None


def test_a_set_frame_counts_and_plans_warn_where_it_is_not_the_familys(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "qwen2_5_vl", merge_size=2)
    own = with_box_frame(settings(folder, "model.coord_mode=norm1000"))

    assert (own.model.box_frame, own.rollout.task_prompts["iou"]) == ("norm1000", IN_THOUSANDTHS)
    [warned] = frame_findings(own, [])
    assert (warned.severity, warned.key) == ("warning", "model.coord_mode")
    assert "it is norm1000, and models of this family were trained to write boxes in pixel_resized" in warned.message
    assert list(frame_findings(with_box_frame(settings(folder)), [])) == []


def test_an_unknown_model_needs_a_frame_for_rows_with_boxes(tmp_path: Path) -> None:
    config = with_box_frame(settings(folder_of(tmp_path, "llava", size={"height": 336, "width": 336})))

    assert frame_fault(config, BOXES) == (
        "it is null, and the frame in which a model of type llava writes boxes is not known here, but 3 rows are "
        "graded by them (iou, pointing); set it to what the model was trained to write: "
        "pixel, pixel_resized, norm1000, norm1"
    )
    assert frame_fault(config, [("chart", "c"), ("unrouted", "d")]) == ""
    known = with_box_frame(settings(tmp_path, "model.coord_mode=norm1000"))
    assert frame_fault(known, BOXES) == ""
    assert known.rollout.task_prompts["iou"] == IN_THOUSANDTHS


def test_a_part_of_a_sum_that_reads_boxes_needs_a_frame_too(tmp_path: Path) -> None:
    config = settings(folder_of(tmp_path, "llava"))
    routes = {**config.reward.routes, "open": {"grounding": 0.5, "open_ended": 0.5}}
    config = replace(config, reward=replace(config.reward, routes=routes))

    assert "1 rows are graded by them (open)" in frame_fault(config, [("open", "a")])


def test_pixels_of_the_resized_image_need_a_processor_that_has_them(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "internvl", size={"height": 448, "width": 448})

    with pytest.raises(
        ConfigError, match=r"model\.coord_mode is pixel_resized, .* \(no merge_size\); use pixel, norm1000"
    ):
        with_box_frame(settings(folder, "model.coord_mode=pixel_resized"))


def test_the_sentence_can_be_another_or_none(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "internvl")
    off = with_box_frame(settings(folder, 'rollout.task_prompts.iou=""'))
    own = with_box_frame(settings(folder, "rollout.task_prompts.iou=Only boxes. {box_frame}"))

    assert "iou" not in off.rollout.prompt_spec.task_prompts
    assert own.rollout.prompt_spec.task_prompts["iou"] == f"Only boxes. {IN_THOUSANDTHS}"
    with pytest.raises(ConfigError, match=r"rollout\.task_prompts names ioo, which no reward scores"):
        check_tasks(settings(folder, "+rollout.task_prompts.ioo=x"))
