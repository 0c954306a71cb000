"""Image paths and the common names of pictures."""

import pytest

from orchestration.data.sources.fields import file_image, picture_id


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
