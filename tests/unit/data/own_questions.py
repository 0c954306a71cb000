"""Questions about drawn pictures, which `own_forms` writes in the forms that users bring."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

NUM_ROWS = 8
SIZE = (96, 64)
COLOURS = ("red", "green", "blue")
ANY_NUMBER = ("chart", "counting", "math")
"""Tasks that a whole number without a hint may get."""
NUMBER = {"constant": ANY_NUMBER[0]}
"""The first of them, in a mapping."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a row asks, in whatever form it is written."""

    question: str
    """Text of the asking turn; U+FFFC stands for an image inside of the text, images at its beginning have no mark."""
    images: tuple[bytes, ...]
    """PNG files, in their order."""
    tasks: tuple[str, ...]
    """Any of these is right."""
    answer: str = ""
    """Of multiple choice the letter."""
    options: tuple[str, ...] = ()
    boxes: tuple[tuple[float, ...], ...] = ()
    """Corners: x1, y1, x2, y2."""
    box_frame: str = "pixel"
    system: str = ""
    """Text of the system turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnData:
    """Data as a user has it, and what is to be read from it."""

    path: Path
    """What the user names: a file, or a folder."""
    files: tuple[Path, ...]
    """Files that hold the rows to train on, in the order of `rows`."""
    kind: str
    """Kind of form of these files; see `files.Form`."""
    raw: tuple[Mapping[str, Any], ...]
    """Rows as a reader of files gives them."""
    rows: tuple[Asked, ...]
    """Rows as they are to be asked."""
    mapping: Mapping[str, Any] = field(default_factory=dict)
    """A mapping that says how to read them, and `answer_is`; empty where no mapping can."""
    answer_is: str = "text"
    held_out: tuple[Path, ...] = ()
    """Files of the test split; their rows are those of `files` in reverse."""


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def squares(count: int, colour: str = "black", shade: int = 0) -> bytes:
    """Draw `count` squares, at most 8, as a PNG; `shade` makes pictures of equal squares differ."""
    picture = Image.new("RGB", SIZE, (230 - 20 * shade, 255 - 12 * count, 190 + 8 * count))
    draw = ImageDraw.Draw(picture)
    for index in range(count):
        x, y = 6 + 22 * (index % 4), 8 + 28 * (index // 4)
        draw.rectangle((x, y, x + 14, y + 14), fill=colour)
    return _png(picture)


def counted() -> tuple[Asked, ...]:
    """Questions whose answer is a number."""
    return tuple(
        Asked(
            question=f"How many squares are on sheet {number}?",
            answer=str(number),
            images=(squares(number),),
            tasks=ANY_NUMBER,
        )
        for number in range(1, NUM_ROWS + 1)
    )


def chosen() -> tuple[Asked, ...]:
    """Questions with options, all letters among the answers."""
    return tuple(
        Asked(
            question=f"What is the colour of the squares on sheet {number}?",
            options=COLOURS,
            answer="ABC"[number % 3],
            images=(squares(number, COLOURS[number % 3]),),
            tasks=("match_mcq",),
        )
        for number in range(1, NUM_ROWS + 1)
    )


def picture_files(folder: Path, rows: Sequence[Asked]) -> list[str]:
    """Write the first image of each row; return their paths from the folder."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(rows):
        (folder / "pictures" / f"{number}.png").write_bytes(row.images[0])
    return [f"pictures/{number}.png" for number in range(len(rows))]


def lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def cell(data: bytes, path: str | None = None) -> dict[str, Any]:
    """An image as `datasets` stores it."""
    return {"bytes": data, "path": path}


def table(rows: Sequence[Mapping[str, Any]], **images: str) -> pa.Table:
    """A table with the metadata that `datasets` writes; `images` says which columns are Image, and which List."""
    found = pa.Table.from_pylist(list(rows))
    features: dict[str, Any] = {name: {"dtype": "string", "_type": "Value"} for name in found.column_names}
    for name, kind in images.items():
        feature = {"_type": "Image"}
        features[name] = feature if kind == "Image" else {"feature": feature, "_type": "List"}
    return found.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write_parquet(path: Path, content: pa.Table) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, path)
    return path


def written(
    path: Path,
    content: bytes,
    kind: str,
    raw: Sequence[Mapping[str, Any]],
    rows: Sequence[Asked],
    mapping: Mapping[str, Any],
    **more: Any,
) -> OwnData:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return OwnData(path=path, files=(path,), kind=kind, raw=tuple(raw), rows=tuple(rows), mapping=mapping, **more)
