import zlib

import pytest
from PIL import Image

from orchestration.data.rows.reasons import RejectReason
from orchestration.data.validation.images import is_truncated
from tests.unit.data.checks import accepted, refusal
from tests.unit.data.pictures import WITH_AN_END, encoded, file, png_claiming


@pytest.mark.parametrize("name", WITH_AN_END)
def test_a_file_cut_anywhere_is_truncated(name: str) -> None:
    data = file(name)
    for cut in range(12, len(data)):
        assert refusal(data[:cut]).reason is RejectReason.IMAGE_TRUNCATED, cut


@pytest.mark.parametrize("name", WITH_AN_END)
def test_bytes_behind_the_end_do_not_matter(name: str) -> None:
    assert not is_truncated(file(name) + b"\0garbage\xff\xd8")
    assert accepted(file(name) + b"\0garbage\xff\xd8").size == (64, 48)


def test_colours_of_a_frame_are_no_blocks_of_pixels() -> None:
    # Four whites: their 255 bytes would be read as the length of a block that leads out of the file.
    image = Image.new("P", (40, 40), 1)
    image.putpalette([255] * 12)
    data = encoded(image, "GIF", include_color_table=True)
    assert b"\xff" * 12 in data[20:]
    assert accepted(data).data == data


@pytest.mark.parametrize("name", ["bmp", "tiff"])
def test_a_bitmap_cut_in_its_pixels_is_truncated(name: str) -> None:
    data = file(name)
    for cut in range(200, len(data) - 1, 37):
        assert refusal(data[:cut]).reason is RejectReason.IMAGE_TRUNCATED, cut


def test_a_whole_png_whose_pixels_break_off_is_truncated() -> None:
    pixels = zlib.compress(bytes(41 * 40), 0)
    data = png_claiming(40, 40, idat=pixels[:800])
    assert not is_truncated(data)
    assert refusal(data).reason is RejectReason.IMAGE_TRUNCATED
