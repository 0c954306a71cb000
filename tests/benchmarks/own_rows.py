"""Rows of a user's own Parquet for the data engine's benchmark: pictures in structs, several questions each, by column.

The columns are those of EasyR1 and verl (`problem` with `<image>`, `answer`, `images` as list of structs), with the
task of each row beside them, since tasks are mixed.
"""

import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

ROWS_A_FILE = 5_000
PER_PICTURE = 4
"""Questions about one picture."""
COLOURS = ("red", "green", "blue", "black", "orange", "purple", "brown", "pink", "grey", "cyan")
THINGS = ("bar", "line", "label", "dot", "field", "curve", "arrow", "frame", "corner", "legend")
PLACES = ("left", "right", "top", "bottom", "middle")
TASKS = ("chart", "match_yesno", "match_mcq", "match_text")
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "problem": pa.string(),
        "answer": pa.string(),
        "images": pa.list_(IMAGE),
        "task": pa.string(),
        "options": pa.list_(pa.string()),
    }
)
OWN_MAPPING = "{id: id, question: problem, answer: answer, images: images, task: task, options: 'options?'}"
LIGHT_MAPPING = "{id: id, question: problem, answer: answer, images: image, task: task}"


def write_own(folder: Path, num_rows: int, tasks: tuple[str, ...] = TASKS) -> None:
    """Write rows with their pictures as bytes, in files of ROWS_A_FILE."""
    draw = random.Random(0)

    def rows() -> Iterator[dict[str, Any]]:
        for number in range(num_rows):
            if number % PER_PICTURE == 0:
                image = {"bytes": picture(number // PER_PICTURE), "path": f"{number // PER_PICTURE}.png"}
            yield {"id": f"q{number}", "images": [image], **question(draw, tasks[number % len(tasks)])}

    _write(folder, rows(), num_rows, SCHEMA)


def write_light(folder: Path, num_rows: int) -> None:
    """Write short rows that share a hundred pictures by path."""
    draw = random.Random(0)
    (folder / "pictures").mkdir(parents=True)
    for number in range(100):
        (folder / "pictures" / f"{number}.png").write_bytes(picture(2 * number))
    rows = (
        {"id": f"q{number}", "image": f"pictures/{draw.randrange(100)}.png", **question(draw, "match_text")}
        for number in range(num_rows)
    )
    _write(folder, rows, num_rows, pa.schema({"image": pa.string(), **{field.name: field.type for field in SCHEMA}}))


def _write(folder: Path, rows: Iterator[dict[str, Any]], num_rows: int, schema: pa.Schema) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, num_rows, ROWS_A_FILE):
        part = [next(rows) for _ in range(min(ROWS_A_FILE, num_rows - start))]
        pq.write_table(pa.Table.from_pylist(part, schema), folder / f"train-{start // ROWS_A_FILE:05d}.parquet")


def question(draw: random.Random, task: str) -> dict[str, Any]:
    """Return question, answer and options of a row."""
    colour, thing, place, number = draw.choice(COLOURS), draw.choice(THINGS), draw.choice(PLACES), draw.randrange(1000)
    options = None
    if task == "chart":
        asked, answer = (
            f"What value does the {colour} {thing} at the {place} of series {number} have?",
            str(number % 100),
        )
    elif task == "match_yesno":
        other = draw.choice(COLOURS)
        asked, answer = (
            f"Is the {colour} {thing} {number} at the {place} above the {other} one?",
            draw.choice(["yes", "no"]),
        )
    elif task == "match_mcq":
        options = draw.sample(COLOURS, 4)
        asked, answer = f"Which colour has the {thing} at the {place} of part {number}?", draw.choice("ABCD")
    else:
        asked, answer = f"Name the colour of the {thing} {number} at the {place}.", colour
    return {"problem": f"<image>{asked}", "answer": answer, "options": options, "task": task}


def picture(number: int) -> bytes:
    """Return a chart as PNG, or something like a photograph as JPEG, by turns."""
    draw = np.random.default_rng(number)
    file = io.BytesIO()
    if number % 2:
        coarse = draw.integers(0, 255, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((224, 168), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        return file.getvalue()
    image = Image.new("RGB", (224, 168), "white")
    pen = ImageDraw.Draw(image)
    heights = draw.integers(10, 150, 6).tolist()
    for place, height in enumerate(heights):
        left = 12 + 34 * place
        pen.rectangle((left, 160 - height, left + 24, 160), fill=COLOURS[(number + place) % len(COLOURS)])
        pen.text((left, 150 - height), str(height), fill="black")
    image.save(file, "PNG")
    return file.getvalue()
