"""Rows of the data engine as JSON values, and the sample that a row becomes."""

from dataclasses import asdict
from typing import Any

from orchestration.data.rows.chunks import ImageReader
from orchestration.data.rows.reasons import RejectReason
from orchestration.data.rows.records import Candidate, RawBox, RawImage, RawRow, Rejected, StoredImage
from rollout.records import Difficulty, ImageBytes, Sample

_REASONS = {reason.value: reason for reason in RejectReason}


def raw_to_json(row: RawRow, places: list[int]) -> dict[str, Any]:
    """Give a raw row as JSON values; images become places in the chunk."""
    values = asdict(row)
    values["images"] = [
        {"index": index, "image_id": image.image_id} for index, image in zip(places, row.images, strict=True)
    ]
    return values


def raw_from_json(values: dict[str, Any]) -> tuple[RawRow, list[int]]:
    """Give back a raw row, with the places of its images instead of their bytes."""
    places = [image["index"] for image in values["images"]]
    boxes = values["boxes"]
    row = RawRow(
        **{
            **values,
            "images": tuple(RawImage(image_id=image["image_id"]) for image in values["images"]),
            "options": tuple(values["options"]),
            "boxes": None
            if boxes is None
            else tuple(RawBox(values=tuple(box["values"]), label=box["label"]) for box in boxes),
        }
    )
    return row, places


def candidate_to_json(row: Candidate) -> dict[str, Any]:
    """Give a row as JSON values; reads back as an equal one."""
    return asdict(row)


def candidate_from_json(values: dict[str, Any]) -> Candidate:
    """Give back what `candidate_to_json` wrote."""
    difficulty = values["difficulty"]
    return Candidate(
        **{
            **values,
            "images": tuple(StoredImage(**image) for image in values["images"]),
            "options": tuple(values["options"]),
            "difficulty": None if difficulty is None else Difficulty(**difficulty),
        }
    )


def rejected_from_json(values: dict[str, Any]) -> Rejected:
    """Give back a left-out row as its chunk holds it."""
    return Rejected(**{**values, "reason": _REASONS[values["reason"]]})


def to_sample(row: Candidate, images: ImageReader) -> Sample:
    """Give a row as the rollout knows it, its images read from their chunks."""
    return Sample(
        sample_id=row.sample_id,
        source=row.source,
        source_id=row.source_id,
        license=row.license,
        task=row.task,
        question=row.question,
        images=tuple(
            ImageBytes(data=images.read(image.chunk, image.index), width=image.width, height=image.height)
            for image in row.images
        ),
        options=row.options,
        answer=row.answer,
        answer_type=row.answer_type,
        stratum=row.stratum,
        prompt_tokens=row.prompt_tokens,
        image_tokens=row.image_tokens,
        difficulty=row.difficulty,
        metadata=row.metadata,
    )
