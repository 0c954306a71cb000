"""Raw rows, and how the tests of the data engine bring them into canonical form in an image of 200 x 100."""

import dataclasses
from typing import Any

import pytest

from orchestration.data.normalise import normalise
from orchestration.data.sources.rows import Candidate, RawBox, RawRow, Refused, StoredImage
from orchestration.settings.recipe import LimitsConfig, NormaliseConfig

LIMITS = LimitsConfig()
PLAIN = NormaliseConfig()
SHUFFLED = NormaliseConfig(prompts={"match_mcq": "{question}\n{options}"}, shuffle_options=True)
IMAGE = StoredImage(
    sha256="00", size_bytes=9, width=200, height=100, dhash="00", thumbnail="", image_id="", chunk="c", index=0
)
MCQ = RawRow(source_id="7", task="match_mcq", question="Which?", answer="B", options=("cat", "dog", "cow", "rat"))
IOU = RawRow(source_id="7", task="iou", question="the dog")


def candidate(
    row: RawRow, config: NormaliseConfig = PLAIN, limits: LimitsConfig = LIMITS, seed: int = 1, **fields: Any
) -> Candidate:
    return normalise(
        dataclasses.replace(row, **fields),
        [IMAGE],
        source="src/part",
        role="train",
        license="CC0",
        config=config,
        limits=limits,
        seed=seed,
    )


def refusal(row: RawRow, limits: LimitsConfig = LIMITS, **fields: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        candidate(row, limits=limits, **fields)
    return caught.value


def boxes(*values: tuple[float, ...]) -> tuple[RawBox, ...]:
    return tuple(RawBox(values=box) for box in values)
