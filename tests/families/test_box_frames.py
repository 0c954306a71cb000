"""Boxes in the frame of each family: the size that its own processor gives a picture, and the real reward.

Sizes of published checkpoints are worked by hand in tests/unit/rollout/test_box_frames.py.
"""

import io
import json

import pytest
from PIL import Image

from learner.config import SUPPORTED_FAMILIES
from rewards.core.base import RewardRequest
from rewards.core.config import GroundingConfig
from rewards.functions.grounding import GroundingReward
from rollout.prompt import PromptBuilder
from rollout.records import ImageBytes, Sample

SIZES = [(112, 84), (300, 200), (90, 250)]
BOX = (0.2, 0.25, 0.5, 0.8)
"""Shares of width and height."""


@pytest.mark.usefixtures("_takes_images")
def test_a_box_in_the_frame_of_the_family_earns_one_and_in_another_less(case, folder, differences):
    builder = PromptBuilder(folder, max_images=len(SIZES))
    images = tuple(picture(size) for size in SIZES)
    asked = Sample(sample_id="a", source="unit", task="iou", question="?", answer="", images=images)

    sizes = builder.build(asked).input_sizes

    for original, seen in zip(SIZES, sizes, strict=True):
        grids = builder._processor.image_processor(images=[Image.new("RGB", original)], return_tensors="pt")
        if "image_grid_thw" in grids:
            _, rows, columns = grids["image_grid_thw"][0].tolist()
            side = builder._processor.image_processor.patch_size
            assert seen == (columns * side, rows * side)
    frame = SUPPORTED_FAMILIES.get(json.loads((folder / "config.json").read_text())["model_type"])
    if frame is None:
        differences.state("box frame", case.name, "model.coord_mode")
        return
    for original, seen in zip(SIZES, sizes, strict=True):
        units = {"pixel": original, "pixel_resized": seen, "norm1000": (1000, 1000), "norm1": (1, 1)}
        for name, unit in units.items():
            found = overlap(original, seen, frame, [share * unit[axis % 2] for axis, share in enumerate(BOX)])
            assert (found > 1 - 5e-5) if unit == units[frame] else (found < 0.998), name
    differences.state("box frame", case.name, f"{frame}: IoU 1")


def picture(size):
    file = io.BytesIO()
    Image.new("RGB", size).save(file, "PNG")
    return ImageBytes(data=file.getvalue(), width=size[0], height=size[1])


def overlap(original, seen, frame, written):
    request = RewardRequest(
        task="iou", question="", response="",
        answer=str([share * original[axis % 2] for axis, share in enumerate(BOX)]),
        image_sizes=(original,), image_input_sizes=(seen,), coord_mode=frame,
    )  # fmt: skip
    [grade] = GroundingReward(GroundingConfig()).grade(request, [str(written)])
    return grade.value
