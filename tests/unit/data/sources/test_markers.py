"""Markers of images as training frameworks write them: where they stand, in which order, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from orchestration.data.sources.fields import RowError
from orchestration.data.sources.markers import as_question, mark_places
from orchestration.data.sources.rows import RawRow
from tests.unit.data.sources.reading import bad, good
from tests.unit.data.sources.test_forms import rows_of

MARKERS = [
    "<image>",
    "<Image>",
    "<|image|>",
    "<|image_pad|>",
    "<|vision_start|><|image_pad|><|vision_end|>",
    "<|begin_of_image|><|image|><|end_of_image|>",
    "<|image_start|><|image|><|image_end|>",
    "<|media_start|>image<|media_content|><|media_pad|><|media_end|>",
    "<im_start><image><im_end>",
    "<fake_token_around_image><image><fake_token_around_image>",
    "<img><IMG_CONTEXT></img>",
    "<img></img>",
    "<Img><ImageHere></Img>",
    "<ImageHere>",
    "<img>",
    "<|img|>",
    "(<image>./</image>)",
    "<start_of_image>",
    "<image_placeholder>",
    "[IMG]",
]


@pytest.mark.parametrize("marker", MARKERS)
def test_each_marker_keeps_its_place(marker: str) -> None:
    assert mark_places([f"Is {marker} like {marker}?", "Yes", f"{marker}\nWhy?"], 3) == (
        ("Is \ufffc like \ufffc?", "Yes", "\ufffcWhy?"),
        (0, 1, 2),
    )


@pytest.mark.parametrize("form", ["<image {}>", "<image_{}>", "<image{}>", "<|image_{}|>", "<image-{}>", "<IMAGE {}>"])
def test_numbered_markers_put_their_images_in_order(form: str) -> None:
    one, two, zero = form.format(1), form.format(2), form.format("00")
    assert mark_places([f"Is {two} like {one}?"], 2) == (("Is \ufffc like \ufffc?",), (1, 0))
    assert mark_places([f"Is {one} like {two}? See {one}."], 2) == (("Is \ufffc like \ufffc? See image 1.",), (0, 1))
    assert mark_places([f"{one}Who?", "He.", f"And {two}, not {one}?"], 2) == (
        ("\ufffcWho?", "He.", "And \ufffc, not image 1?"),
        (0, 1),
    )
    assert mark_places([f"Is {zero} like {one}?"], 2) == (("Is \ufffc like \ufffc?",), (0, 1))


def test_beside_plain_markers_numbered_ones_are_words() -> None:
    assert mark_places(["<image>\n<image>\nIs <image 2> like <image 1>?"], 2) == (
        ("\ufffc\ufffc\nIs image 2 like image 1?".replace("\ufffc\ufffc\n", "\ufffc\ufffc"),),
        (0, 1),
    )


@pytest.mark.parametrize(
    ("texts", "num_images", "words"),
    [
        (["<image>"], 2, "1 markers of images, the row has 2 images"),
        (["<image>"], 0, "1 markers of images, the row has 0 images"),
        (["<image 2>"], 2, "markers with the numbers 2, the row has 2 images"),
        (["<image 1>", "", "<image 3>"], 2, "markers with the numbers 1, 3, the row has 2 images"),
        (["<image 1>"], 0, "numbers 1, the row has 0 images"),
        (["<image> <image 2>"], 1, "1 markers of images with the numbers 2"),
        (["<image 2> or <image 1>? See <image 2>."], 2, "stand in the order 2, 1, and one is named again"),
        (["\ufffc"], 1, "holds U+FFFC"),
    ],
)
def test_markers_that_name_other_images_are_refused(texts: list[str], num_images: int, words: str) -> None:
    with pytest.raises(RowError) as caught:
        mark_places(texts, num_images)
    assert words in str(caught.value)


@pytest.mark.parametrize("text", ["<img>1.jpg</img> Who?", "<image>1.jpg</image> Who?", "<video>", "<audio>", "<bbox>"])
def test_what_is_no_marker_of_an_image_is_left_for_validate_to_refuse(text: str) -> None:
    assert mark_places([text], 1) == ((text,), (0,))


@pytest.mark.parametrize(
    ("text", "question"),
    [("\ufffc\n\ufffc Who?", "Who?"), ("\ufffc or \ufffc?", "\ufffc or \ufffc?"), ("\ufffc", ""), ("Who?", "Who?")],
)
def test_places_that_begin_a_question_are_not_needed(text: str, question: str) -> None:
    assert as_question(text) == question


CHOICE = {"question": "q", "answer": "a", "options": "o", "images": "images", "task": {"constant": "match_mcq"}}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            {"q": "Which is next to <image 1>?", "o": ["<image 2>", "<image 3>"], "a": "B"},
            ("Which is next to image 1?", ("image 2", "image 3"), "B"),
        ),
        (
            {"q": "Which?", "o": ["<image 3>", "<image 1>"], "a": "<image 1>"},
            ("Which?", ("image 3", "image 1"), "image 1"),
        ),
    ],
)
def test_options_name_images_in_words(row: dict[str, Any], expected: Any, tmp_path: Path) -> None:
    (found,) = good(rows_of(tmp_path, CHOICE, {**row, "images": ["1.png", "2.png", "3.png"]}))
    assert (found.question, found.options, found.answer) == expected
    assert [image.path for image in found.images] == ["1.png", "2.png", "3.png"]
    assert bad(rows_of(tmp_path, CHOICE, {**row, "images": ["1.png", "2.png"]})) == [("rows/1", "markers_unequal")]


def test_a_path_to_one_turn_takes_its_numbered_image(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "<image 1>Who?"},
        {"role": "assistant", "content": "He."},
        {"role": "user", "content": "Is <image 2> he?"},
    ]
    mapping = {"question": "m.2.content", "answer": "a", "images": "images", "task": {"constant": "chart"}}
    (row,) = rows_of(tmp_path, mapping, {"m": turns, "a": "1", "images": ["1.png", "2.png"]})
    assert isinstance(row, RawRow), row
    assert (row.question, [image.path for image in row.images], row.history) == ("Is \ufffc he?", ["2.png"], ())


def test_boxes_stay_with_the_first_image(tmp_path: Path) -> None:
    mapping = {"question": "q", "boxes": "b", "images": "images", "task": {"constant": "iou"}}
    rows = [
        {
            "q": f"Find what is in <image {first}> and not in <image {other}>",
            "b": [1, 2, 30, 40],
            "images": ["1.png", "2.png"],
        }
        for first, other in ((1, 2), (2, 1))
    ]
    found = rows_of(tmp_path, mapping, *rows)
    assert (len(good(found)), bad(found)) == (1, [("rows/2", "box_image_unclear")])
