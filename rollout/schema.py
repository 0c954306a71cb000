"""The Arrow schema of a dataset: one row per prompt, every column documented, and row <-> Sample.

Images lie in the row as encoded bytes, or in files under the dataset's root; both carry size and digest, which are
compared whenever a row is read.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from rollout.errors import RolloutError
from rollout.records import Difficulty, ImageBytes, Sample

SCHEMA_VERSION = "mixed-r1.samples.v2"

IMAGE_TYPE = pa.struct(
    [
        pa.field("bytes", pa.binary(), metadata={"doc": "the encoded file; null where `path` names one"}),
        pa.field("path", pa.string(), metadata={"doc": "file under the dataset's folder; null where `bytes` is set"}),
        pa.field("size_bytes", pa.int64(), nullable=False, metadata={"doc": "length of the encoded file"}),
        pa.field("sha256", pa.string(), nullable=False, metadata={"doc": "digest of the encoded file, hexadecimal"}),
        pa.field("width", pa.int32(), nullable=False, metadata={"doc": "original width in pixels"}),
        pa.field("height", pa.int32(), nullable=False, metadata={"doc": "original height in pixels"}),
    ]
)
DIFFICULTY_TYPE = pa.struct(
    [
        pa.field("num_completions", pa.int32(), nullable=False),
        *(
            pa.field(name, pa.float32(), nullable=False)
            for name in ("mean", "std", "min", "max", "pass_rate", "format_rate", "agreement")
        ),
    ]
)


def _column(name: str, kind: pa.DataType, doc: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"doc": doc})


SCHEMA = pa.schema(
    [
        _column("sample_id", pa.string(), "unique within the dataset; metrics and resume use it"),
        _column("source", pa.string(), "dataset, and its part, that the row comes from"),
        _column("source_id", pa.string(), "the row's name inside its source"),
        _column("license", pa.string(), "licence of the source as the recipe states it"),
        _column("task", pa.string(), "match_yesno | match_mcq | match_text | chart | iou | open | math"),
        _column("question", pa.string(), "the user turn, options included; no placeholder tokens"),
        _column("images", pa.list_(IMAGE_TYPE), "none, one or several, in the order of the prompt"),
        _column("options", pa.list_(pa.string()), "option texts of a multiple-choice row, A first"),
        _column("answer", pa.string(), "the reference; boxes as JSON in original pixels"),
        _column("answer_type", pa.string(), "number | year | text | list | bool for charts; else empty"),
        _column("stratum", pa.string(), "difficulty class by mean reward; empty where not measured"),
        _column("prompt_tokens", pa.int32(), "tokens of the prompt under the measured processor", nullable=True),
        _column("image_tokens", pa.int32(), "tokens of the images among them", nullable=True),
        _column("difficulty", DIFFICULTY_TYPE, "rewards of completions sampled at build time", nullable=True),
        _column("metadata", pa.map_(pa.string(), pa.string()), "what else the source says of the row"),
    ],
    metadata={"schema": SCHEMA_VERSION},
)


def describe() -> str:
    """Return the columns of a dataset as text, a line each, those of images indented."""
    lines = [SCHEMA_VERSION]
    for column in SCHEMA:
        lines.append(
            f"{column.name:14} {str(column.type).split('<')[0]}".ljust(40) + f" {column.metadata[b'doc'].decode()}"
        )
        if column.name == "images":
            lines.extend(
                f"  .{part.name:11} {part.type!s}".ljust(40) + f" {part.metadata[b'doc'].decode()}"
                for part in IMAGE_TYPE
            )
    return "\n".join(lines)


def to_row(sample: Sample) -> dict[str, Any]:
    """Return a sample as a row of SCHEMA with its images inside."""
    return {
        "sample_id": sample.sample_id,
        "source": sample.source,
        "source_id": sample.source_id,
        "license": sample.license,
        "task": sample.task,
        "question": sample.question,
        "images": [
            {
                "bytes": image.data,
                "path": None,
                "size_bytes": len(image.data),
                "sha256": hashlib.sha256(image.data).hexdigest(),
                "width": image.width,
                "height": image.height,
            }
            for image in sample.images
        ],
        "options": list(sample.options),
        "answer": sample.answer,
        "answer_type": sample.answer_type,
        "stratum": sample.stratum,
        "prompt_tokens": sample.prompt_tokens,
        "image_tokens": sample.image_tokens,
        "difficulty": None if sample.difficulty is None else asdict(sample.difficulty),
        "metadata": sorted(sample.metadata.items()),
    }


def to_sample(row: Mapping[str, Any], root: Path) -> Sample:
    """Return a row as a sample; images in files are read from under `root`.

    Raises:
        RolloutError: an image is missing, lies outside of `root`, or is not the one that the row was written with.
    """
    difficulty = row["difficulty"]
    return Sample(
        sample_id=row["sample_id"],
        source=row["source"],
        source_id=row["source_id"],
        license=row["license"],
        task=row["task"],
        question=row["question"],
        images=tuple(_image(image, root, row["sample_id"]) for image in row["images"]),
        options=tuple(row["options"]),
        answer=row["answer"],
        answer_type=row["answer_type"],
        stratum=row["stratum"],
        prompt_tokens=row["prompt_tokens"],
        image_tokens=row["image_tokens"],
        difficulty=None if difficulty is None else Difficulty(**difficulty),
        metadata=dict(row["metadata"]),
    )


def _image(image: Mapping[str, Any], root: Path, sample_id: str) -> ImageBytes:
    is_inside = image["bytes"] is not None
    data = image["bytes"] if is_inside else _read_confined(root, image["path"], sample_id)
    if len(data) != image["size_bytes"] or hashlib.sha256(data).hexdigest() != image["sha256"]:
        place = f"an image inside its row under {root}" if is_inside else root / image["path"]
        raise RolloutError(
            f"sample {sample_id}: {place} is not the image that the dataset was built with "
            f"({len(data)} bytes, {image['size_bytes']} expected, or another digest); restore it or build again"
        )
    return ImageBytes(data=data, width=image["width"], height=image["height"])


def _read_confined(root: Path, path: str, sample_id: str) -> bytes:
    """Read a file that must lie under `root`, links followed."""
    resolved = (root / path).resolve()
    if not resolved.is_relative_to(root.resolve()):
        raise RolloutError(f"sample {sample_id}: image path {path!r} leads out of {root}; paths stay under the dataset")
    try:
        return resolved.read_bytes()
    except OSError as error:
        raise RolloutError(
            f"sample {sample_id}: image {root / path} cannot be read ({error.strerror}); restore it or build again"
        ) from error
