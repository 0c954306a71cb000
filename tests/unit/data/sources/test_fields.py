"""References by their form and the words of their question; image paths and the common names of pictures."""

import base64

import pytest

from orchestration.data.sources.answers import chart_type, short_task
from orchestration.data.sources.fields import RowError, cell_images, file_image, picture_id
from orchestration.data.sources.rows import RawImage
from tests.unit.data.sources.reading import PNG


@pytest.mark.parametrize(
    ("question", "answer", "kind"),
    [
        ("In which year was the share the highest?", "2015", "year"),
        ("When did the population peak?", "2015", "year"),
        ("What year has the lowest value?", "1799", "number"),
        ("What is the value in the year 2010?", "2015", "number"),
        ("How many people died in that year?", "1918", "number"),
        ("In 2010, what is the total?", "1950", "number"),
        ("What is the average over the years?", "1950", "number"),
        ("What is the share?", "45.5%", "number"),
        ("What is the revenue?", "$1.2 million", "number"),
        ("What is the revenue?", "-3", "number"),
        ("Which age group?", "18-29", "text"),
        ("Which colour?", "dark blue", "text"),
        ("Which two?", "[India, Brazil]", "list"),
        ("Which?", "", "text"),
        ("Which?", "9" * 300, "text"),
    ],
)
def test_the_kind_of_a_chart_answer_is_found(question: str, answer: str, kind: str) -> None:
    assert chart_type(question, answer) == kind


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (" Yes", ("match_yesno", "")),
        ("0", ("chart", "number")),
        ("no dogs", ("match_text", "")),
        ("", ("match_text", "")),
    ],
)
def test_a_short_answer_goes_to_the_reward_that_reads_it(answer: str, kind: tuple[str, str]) -> None:
    assert short_task(answer) == kind


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("images/train2014/COCO_train2014_000000581857.jpg", "coco/581857"),
        ("COCO_val2014_000000000042.jpg", "coco/42"),
        ("COCO_train2014_000000000110_6.jpg", "coco/110"),
        ("coco/train2017/000000000042.jpg", "coco/42"),
        ("vg/VG_100K/42.jpg", "vg/42"),
        ("VG_100K_2/42.jpg", "vg/42"),
        ("000000000042.jpg", ""),
        ("ocr_vqa/images/000000000042.jpg", ""),
        ("train2017/" + "x" * 100_000, ""),
    ],
)
def test_pictures_of_the_great_collections_have_one_name(path: str, name: str) -> None:
    assert picture_id(path) == name


def test_paths_that_leave_the_source_are_passed_on_to_be_refused() -> None:
    assert file_image("images", "/etc/passwd").path == "/etc/passwd"
    assert file_image("images", "../secret.png").path == "images/../secret.png"
    assert file_image("", "a.png").path == "a.png"


@pytest.mark.parametrize(
    ("cell", "paths"),
    [
        ("['a.png', \"b's.png\"]", ["a.png", "b's.png"]),
        ('["a.png", "b.png"]\n', ["a.png", "b.png"]),
        ("[]", []),
        ("[1].png", ["[1].png"]),
        ("[a.png]", ["[a.png]"]),
        ("['a.png'].pop() or ['b.png']", ["['a.png'].pop() or ['b.png']"]),
    ],
)
def test_a_text_may_hold_a_list_of_images(cell: str, paths: list[str]) -> None:
    assert [image.path for image in cell_images(cell, "image")] == paths


def test_a_list_of_base64_texts_gives_each_picture() -> None:
    encoded = base64.b64encode(PNG).decode()
    assert cell_images(str([encoded, encoded]), "image") == (RawImage(data=PNG), RawImage(data=PNG))
    with pytest.raises(RowError, match=r"image\[1\] is 7; it should be an image"):
        cell_images("['a.png', 7]", "image")
