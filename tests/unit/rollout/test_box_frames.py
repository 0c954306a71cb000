"""A box in the frame of its family, through the processor's own resize and the real reward: sizes worked by hand."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from learner.config import SUPPORTED_FAMILIES
from rewards.core.base import RewardRequest
from rewards.core.config import GroundingConfig
from rewards.functions.grounding import GroundingReward
from rollout.prompt import PromptBuilder
from rollout.records import ImageBytes, Sample
from tests.tiny_models import make_tiny_model

Size = tuple[int, int]

PATCHES_OF_14 = {"patch_size": 14, "merge_size": 2, "size": {"shortest_edge": 3136, "longest_edge": 12_845_056}}
PATCHES_OF_16 = {"patch_size": 16, "merge_size": 2, "size": {"shortest_edge": 65_536, "longest_edge": 16_777_216}}
"""As published with Qwen2.5-VL and with Qwen3-VL."""
FEW = 401_408
"""A limit of pixels."""

# Each side is rounded to the nearest multiple of the unit, 28 or 32, a half to the even one. 1600 / 28 = 57.14, so
# 57 x 28 = 1596; 1200 / 28 = 42.86, so 43 x 28 = 1204. Above the limit both sides are divided by
# sqrt(width x height / limit) and rounded down: 4000 x 3000 by 5.4676, 4000 / 5.4676 / 28 = 26.13, so 26 x 28 = 728.
# Below the least area they are multiplied and rounded up: 40 x 30 by sqrt(3136 / 1200) = 1.6166 to 84 x 56.
RESIZED_BY_28: dict[tuple[Size, int | None], Size] = {
    ((560, 420), None): (560, 420),
    ((600, 400), None): (588, 392),
    ((1600, 1200), None): (1596, 1204),
    ((4000, 3000), None): (4004, 2996),
    ((40, 30), None): (84, 56),
    ((600, 400), FEW): (588, 392),
    ((1600, 1200), FEW): (728, 532),
    ((4000, 3000), FEW): (728, 532),
}
RESIZED_BY_32: dict[tuple[Size, int | None], Size] = {
    ((560, 420), None): (576, 416),  # 17.5 is rounded to 18
    ((600, 400), None): (608, 384),  # 12.5 is rounded to 12
    ((1600, 1200), None): (1600, 1216),
    ((4000, 3000), None): (4000, 3008),
    ((4000, 3000), FEW): (704, 544),
}
FRAMES = {
    "qwen2_vl": (PATCHES_OF_14, RESIZED_BY_28, "norm1000"),
    "qwen2_5_vl": (PATCHES_OF_14, RESIZED_BY_28, "pixel_resized"),
    "qwen3_vl": (PATCHES_OF_16, RESIZED_BY_32, "norm1000"),
    "qwen3_vl_moe": (PATCHES_OF_16, RESIZED_BY_32, "norm1000"),
    "qwen3_5": (PATCHES_OF_16, RESIZED_BY_32, "norm1000"),
    "internvl": (None, {case: case[0] for case in RESIZED_BY_28}, "norm1000"),  # tiles: the frame knows no pixels
}
CASES = [(family, size, limit) for family, (_, resized, _) in FRAMES.items() for size, limit in resized]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One tiny folder of each processor."""
    found = {}
    for name in ("qwen2_5_vl", "internvl"):
        found[name] = tmp_path_factory.mktemp(name)
        make_tiny_model(found[name], name, corpus=["where is the red oval?"] * 3)
    return found


def builder(folders: dict[str, Path], family: str, limit: int | None, folder: Path) -> PromptBuilder:
    values, _, _ = FRAMES[family]
    shutil.copytree(folders["internvl" if values is None else "qwen2_5_vl"], folder, dirs_exist_ok=True)
    if values is not None:
        file = folder / "processor_config.json"
        whole: dict[str, Any] = json.loads(file.read_text())
        whole["image_processor"] = {"image_processor_type": "Qwen2VLImageProcessor", **values}
        if limit is not None:
            whole["image_processor"]["size"] = {**values["size"], "longest_edge": limit}
        file.write_text(json.dumps(whole))
    return PromptBuilder(folder, max_images=1)


def picture(size: Size) -> ImageBytes:
    file = io.BytesIO()
    Image.new("RGB", size).save(file, "PNG")
    return ImageBytes(data=file.getvalue(), width=size[0], height=size[1])


def overlap(box: list[float], written: list[float], original: Size, resized: Size, frame: str) -> float:
    request = RewardRequest(
        task="iou", question="", response="", answer=str(box),
        image_sizes=(original,), image_input_sizes=(resized,), coord_mode=frame,
    )  # fmt: skip
    [grade] = GroundingReward(GroundingConfig()).grade(request, [str(written)])
    assert grade.value is not None
    return float(grade.value)


@pytest.mark.parametrize(("family", "size", "limit"), CASES)
def test_a_true_box_in_the_familys_frame_earns_one_and_in_another_less(
    family: str, size: Size, limit: int | None, folders: dict[str, Path], tmp_path: Path
) -> None:
    _, resized, frame = FRAMES[family]
    assert SUPPORTED_FAMILIES.get(family, frame) == frame
    asked = Sample(sample_id="a", source="unit", task="iou", question="?", answer="", images=(picture(size),))

    [seen] = builder(folders, family, limit, tmp_path).build(asked).input_sizes

    assert seen == resized[size, limit]
    width, height = size
    box = [width * 0.2, height * 0.25, width * 0.5, height * 0.8]
    units = {"pixel": size, "pixel_resized": resized[size, limit], "norm1000": (1000, 1000), "norm1": (1, 1)}
    for written_in, (across, down) in units.items():
        written = [across * 0.2, down * 0.25, across * 0.5, down * 0.8]
        found = overlap(box, written, size, seen, frame)
        if units[written_in] == units[frame]:
            assert found == pytest.approx(1, abs=5e-5), written_in
        else:
            assert found < 0.998, written_in


def test_every_supported_family_is_proved_here() -> None:
    assert SUPPORTED_FAMILIES.keys() <= FRAMES.keys()
