"""Rows with one planted fault each, as a raw JSONL source, and the evaluation set that some of them leak."""

import io
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

NOT_FINITE = float("nan")


def picture(seed: int, size: tuple[int, int] = (120, 90)) -> Image.Image:
    """Smooth noise: a picture of its own for every seed, that survives JPEG."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


def damaged(data: bytes) -> bytes:
    """A file of full length with a stretch of its pixels overwritten."""
    middle = len(data) // 2
    return data[:middle] + bytes(64) + data[middle + 64 :]


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(picture(6), "JPEG", exif=exif)


IMAGES = {
    "good": encoded(picture(0)),
    "twin": encoded(picture(1)),
    "corrupt": damaged(encoded(picture(11))),
    "no_image": b"<html>404 not found</html>",
    "truncated": encoded(picture(2))[:-400],
    "huge": encoded(Image.new("RGB", (2400, 1200))),
    "bomb": png_header(60_000, 60_000),
    "cmyk": encoded(picture(3).convert("CMYK"), "JPEG"),
    "rotated": rotated(),
    "animated": encoded(picture(4), "GIF", save_all=True, append_images=[picture(5)]),
    "small": encoded(picture(7, (20, 20))),
    "narrow": encoded(picture(8, (3000, 28))),
    "heavy": encoded(Image.fromarray(np.random.default_rng(9).integers(0, 255, (400, 400, 3), dtype=np.uint8))),
    "leaked": encoded(picture(10)),
    "kept_back": encoded(picture(12)),
    "near_good": encoded(picture(0), "JPEG", quality=80),
    "near_leaked": encoded(picture(10), "JPEG", quality=80),
}


def row(name: str, image: str | None, **fields: Any) -> dict[str, Any]:
    """A right chart row but for what `fields` say."""
    base = {"id": name, "task": "chart", "question": f"How tall is bar {name}?", "answer": "4"}
    return {**base, "images": [] if image is None else [f"{image}.img"], **fields}


BOX = {"task": "iou", "answer": None, "question": "Where is it?"}
CHOICE = {"task": "match_mcq", "options": ["cat", "dog"], "question": "Which animal is it?"}

FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "corrupt image": (row("f1", "corrupt"), "image_corrupt"),
    "text instead of an image": (row("f2", "no_image"), "image_corrupt"),
    "truncated image": (row("f3", "truncated"), "image_truncated"),
    "huge image": (row("f4", "huge"), "image_too_large"),
    "bomb": (row("f5", "bomb"), "image_bomb"),
    "CMYK image": (row("f6", "cmyk"), "image_cmyk"),
    "EXIF-rotated image": (row("f7", "rotated"), "image_rotated"),
    "animated image": (row("f8", "animated"), "image_animated"),
    "tiny image": (row("f9", "small"), "image_too_small"),
    "narrow image": (row("f10", "narrow"), "image_too_narrow"),
    "heavy file": (row("f11", "heavy"), "image_file_too_large"),
    "absent file": (row("f12", "absent"), "image_missing"),
    "path with ..": (row("f13", None, images=["../elsewhere/good.img"]), "path_outside_root"),
    "absolute path": (row("f14", None, images=["/etc/hostname"]), "path_outside_root"),
    "box outside the image": (row("f15", "good", **BOX, boxes=[[100, 10, 180, 60]]), "box_outside_image"),
    "reversed box": (row("f16", "good", **BOX, boxes=[[60, 10, 20, 60]]), "box_malformed"),
    "NaN in a box": (row("f17", "good", **BOX, boxes=[[NOT_FINITE, 10, 20, 60]]), "not_finite"),
    "answer not among the options": (row("f18", "good", **CHOICE, answer="horse"), "answer_not_in_options"),
    "letter behind the options": (row("f19", "good", **CHOICE, answer="E"), "answer_not_in_options"),
    "one option": (row("f20", "good", **{**CHOICE, "options": ["cat"]}, answer="A"), "options_unusable"),
    "NaN as the answer": (row("f21", "good", answer="NaN", answer_type="number"), "not_finite"),
    "question of a megabyte": (row("f22", "good", question="a " * 500_000), "question_too_long"),
    "empty question": (row("f23", "good", question="  "), "question_empty"),
    "empty answer": (row("f24", "good", answer=" "), "answer_empty"),
    "placeholder in the question": (row("f25", "good", question="<|video_pad|> what?"), "placeholder_in_text"),
    "NUL in the question": (row("f26", "good", question="what\x00 is it?"), "text_not_clean"),
    "lone surrogate": (row("f27", "good", question="what \ud800 is it?"), "text_not_clean"),
    "unknown task": (row("f28", "good", task="poetry"), "unknown_task"),
    "reference that nothing can read": (row("f29", "good", task="match_yesno", answer="perhaps"), "reference_unusable"),
    "missing field": ({"id": "f30", "task": "chart", "images": ["good.img"], "answer": "4"}, "missing_field"),
    "nine images": (row("f31", None, images=["good.img"] * 9), "too_many_images"),
    "duplicate": (row("f32", "twin", question="How tall is the twin?"), "duplicate"),
    "near duplicate": (row("f33", "near_good", question="how tall is the original bar"), "near_duplicate"),
    "conflicting answer, one": (
        row("f34", "twin", question="How tall is the other?", answer="5"),
        "conflicting_answers",
    ),
    "conflicting answer, two": (
        row("f35", "twin", question="How tall is the other?", answer="6"),
        "conflicting_answers",
    ),
    "leaked image": (row("f36", "leaked"), "leaked_image"),
    "image of a benchmark without answers": (row("f40", "kept_back"), "leaked_image"),
    "leaked image, encoded again": (row("f37", "near_leaked"), "leaked_image"),
    "leaked question": (
        row("f38", None, task="math", question="What is the sum of 17 and 25, divided by two?", answer="21"),
        "leaked_question",
    ),
    "prompt too long": (row("f39", "good", question="very " * 200 + "tall?"), "prompt_too_long"),
}
"""By what is wrong: the row and the reason under which it has to be found."""

GOOD = [
    row("g0", "good", question="How tall is the original bar?"),
    row("g1", "twin", question="How tall is the twin?"),
    row("g2", None, task="math", question="What is 3 times 4?", answer="12"),
    row("g3", None, images=["good.img", "twin.img"], question="Which of both is taller?", answer="3"),
]
GUARDS = [
    row("b0", "kept_back", question="A benchmark keeps its answer back?", answer=None),
    row("b1", None, question="A benchmark may ask what no reward reads?", task="poetry", answer=None),
]
"""Of a benchmark whose answers are not public."""

HELD_OUT = [
    row("h0", "leaked", question="Something else entirely?"),
    row("h1", None, task="math", question="what is the sum of 17 and 25 divided by two", answer="21"),
]


def write_source(root: Path) -> None:
    """Write the raw source: train.jsonl, held_out.jsonl and the image files."""
    folder = root / "raw" / "planted"
    folder.mkdir(parents=True)
    for name, data in IMAGES.items():
        (folder / f"{name}.img").write_bytes(data)
    write_lines(folder / "held_out.jsonl", iter(HELD_OUT))
    write_lines(folder / "guard.jsonl", iter(GUARDS))
    write_lines(folder / "train.jsonl", train_rows())
    with (folder / "train.jsonl").open("a") as file:
        file.write('{"id": "broken", "task": \n')


def train_rows() -> Iterator[dict[str, Any]]:
    yield from GOOD
    for fault, _ in FAULTS.values():
        yield fault


def write_lines(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
