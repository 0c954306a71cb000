"""Checked images: sizes, formats, colours, orientation, cut files, fingerprints."""

import hashlib
import io
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from learner.policy.images import decode_images
from orchestration.data.images import CheckedImage, check_image, dhash256, is_truncated, thumbnail
from orchestration.data.sources.rows import Refused, RejectReason
from orchestration.settings.recipe import LimitsConfig
from rollout.prompt import _decode as rollout_decode
from rollout.records import ImageBytes
from tests.unit.data.pictures import (
    FILES,
    ORIENTATION,
    WITH_AN_END,
    decoded,
    encoded,
    exif_bytes,
    file,
    picture,
    png_chunk,
    png_claiming,
)

LIMITS = LimitsConfig()


def refusal(data: bytes, limits: LimitsConfig = LIMITS, *, has_boxes: bool = False) -> Refused:
    with pytest.raises(Refused) as caught:
        check_image(data, limits, has_boxes=has_boxes)
    return caught.value


def accepted(data: bytes, limits: LimitsConfig = LIMITS, *, has_boxes: bool = False) -> CheckedImage:
    return check_image(data, limits, has_boxes=has_boxes)


@pytest.mark.parametrize("name", FILES)
def test_a_sound_file_keeps_its_very_bytes(name: str) -> None:
    image = accepted(file(name), has_boxes=True)
    pixels = decoded(file(name))
    assert image.data == file(name)
    assert image.sha256 == hashlib.sha256(file(name)).hexdigest()
    assert image.size == pixels.size == (64, 48)
    assert image.dhash == dhash256(pixels)
    assert image.thumbnail == thumbnail(pixels)


def test_a_stored_image_carries_what_was_checked_and_where_it_lies() -> None:
    image = accepted(file("png"))
    stored = image.stored(image_id="coco/9", chunk="validate/0007", index=3)
    assert (stored.sha256, stored.size_bytes, stored.size) == (image.sha256, len(file("png")), (64, 48))
    assert (stored.dhash, stored.thumbnail) == (image.dhash, image.thumbnail)
    assert (stored.image_id, stored.chunk, stored.index) == ("coco/9", "validate/0007", 3)


def test_a_png_with_a_flipped_bit_is_corrupt() -> None:
    data = bytearray(file("png"))
    data[len(data) // 2] ^= 0x10
    assert refusal(bytes(data)).reason is RejectReason.IMAGE_CORRUPT


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PN",
        b"GIF89a",
        b"this is a text file, not a picture",
        b"<svg xmlns='http://www.w3.org/2000/svg' width='40' height='40'><rect width='9' height='9'/></svg>",
        b"%PDF-1.7\n",
        b"\0" * 5000,
    ],
)
def test_what_is_no_image_is_corrupt_or_truncated_and_named(data: bytes) -> None:
    error = refusal(data)
    expected = RejectReason.IMAGE_TRUNCATED if data == b"GIF89a" else RejectReason.IMAGE_CORRUPT
    assert error.reason is expected
    assert f"{len(data)} bytes" in error.detail


@pytest.mark.parametrize("kind", ["PPM", "ICO", "TGA", "JPEG2000", "PCX", "DDS"])
def test_other_formats_are_refused_even_where_they_decode(kind: str) -> None:
    data = encoded(picture(), kind)
    assert decoded(data).size[0] > 0
    assert refusal(data).reason is RejectReason.IMAGE_CORRUPT


@pytest.mark.parametrize("size", [(60_000, 60_000), (2_000_000_000, 1), (20_000, 20_000)])
def test_a_tiny_file_that_claims_a_huge_size_is_a_bomb_and_is_never_decoded(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image.Image, "load", forbidden)
    assert refusal(png_claiming(*size)).reason is RejectReason.IMAGE_BOMB


def test_a_real_bomb_of_zeros_is_refused_by_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "load", forbidden)
    packer = zlib.compressobj(1)
    rows = b"".join([packer.compress(bytes(20_001 * 500)) for _ in range(40)]) + packer.flush()
    data = png_claiming(20_000, 20_000, idat=rows)
    assert len(data) < 3_000_000
    assert refusal(data).reason is RejectReason.IMAGE_BOMB


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_a_bomb_inside_of_metadata_is_a_bomb(kind: bytes) -> None:
    chunk = png_chunk(kind, b"name\0\0" + zlib.compress(bytes(50_000_000)))
    data = png_claiming(40, 40, idat=zlib.compress(bytes(41 * 40)), extra=chunk)
    assert len(data) < 100_000
    assert refusal(data).reason is RejectReason.IMAGE_BOMB


@pytest.mark.parametrize(
    ("side", "reason"),
    [(101, RejectReason.IMAGE_TOO_LARGE), (200, RejectReason.IMAGE_TOO_LARGE), (201, RejectReason.IMAGE_BOMB)],
)
def test_up_to_four_times_the_limit_is_too_large_and_beyond_it_a_bomb(side: int, reason: RejectReason) -> None:
    limits = LimitsConfig(max_pixels=10_000)
    assert refusal(encoded(picture(side, side)), limits).reason is reason
    assert accepted(encoded(picture(100, 100)), limits).size == (100, 100)


def test_a_size_above_pillows_own_warning_is_judged_by_the_limits_alone() -> None:
    error = refusal(png_claiming(10_000, 10_000), LimitsConfig(max_pixels=99_999_999))
    assert error.reason is RejectReason.IMAGE_TOO_LARGE


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((1, 1), RejectReason.IMAGE_TOO_SMALL),
        ((1, 3000), RejectReason.IMAGE_TOO_SMALL),
        ((27, 500), RejectReason.IMAGE_TOO_SMALL),
        ((2801, 28), RejectReason.IMAGE_TOO_NARROW),
        ((28, 2801), RejectReason.IMAGE_TOO_NARROW),
    ],
)
def test_small_and_narrow_images_are_refused(size: tuple[int, int], reason: RejectReason) -> None:
    assert refusal(encoded(Image.new("RGB", size))).reason is reason


@pytest.mark.parametrize("size", [(28, 28), (2800, 28)])
def test_the_smallest_and_the_narrowest_that_fit_are_accepted(size: tuple[int, int]) -> None:
    assert accepted(encoded(Image.new("RGB", size))).size == size


def test_a_file_of_too_many_bytes_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", forbidden)
    limits = LimitsConfig(max_image_bytes=len(file("png")) - 1)
    assert refusal(file("png"), limits).reason is RejectReason.IMAGE_FILE_TOO_LARGE


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_several_frames_are_refused(kind: str) -> None:
    data = encoded(picture(seed=1), kind, save_all=True, append_images=[picture(seed=2), picture(seed=3)])
    assert refusal(data).reason is RejectReason.IMAGE_ANIMATED


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_refused_unless_converting_is_wanted(kind: str) -> None:
    data = encoded(picture().convert("CMYK"), kind)
    assert refusal(data).reason is RejectReason.IMAGE_CMYK
    image = accepted(data, LimitsConfig(cmyk="convert"), has_boxes=True)
    opened = Image.open(io.BytesIO(image.data))
    assert (opened.format, opened.mode, opened.size) == ("JPEG" if kind == "JPEG" else "PNG", "RGB", (64, 48))
    assert image.sha256 == hashlib.sha256(image.data).hexdigest()
    assert largest_mean_difference(opened, decoded(data)) < 3.0


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_turned_image_is_refused_or_set_upright(kind: str, orientation: int) -> None:
    upright = picture()
    data = encoded(turned(upright, orientation), kind, exif=exif_bytes(orientation))
    assert refusal(data).reason is RejectReason.IMAGE_ROTATED
    image = accepted(data, LimitsConfig(exif="rotate"))
    opened = Image.open(io.BytesIO(image.data))
    assert opened.getexif().get(ORIENTATION, 1) == 1
    assert image.size == opened.size == upright.size
    assert largest_mean_difference(opened.convert("RGB"), upright) < 4.0


def test_a_turned_tiff_is_refused_though_its_reader_turns_it_silently() -> None:
    data = encoded(turned(picture(), 6), "TIFF", exif=exif_bytes(6))
    assert refusal(data).reason is RejectReason.IMAGE_ROTATED
    image = accepted(data, LimitsConfig(exif="rotate"))
    assert image.size == (64, 48)
    assert largest_mean_difference(decoded(image.data), picture()) == 0.0


def test_a_turned_image_with_boxes_is_refused_whatever_the_limits_say() -> None:
    data = encoded(picture(), "JPEG", exif=exif_bytes(6))
    assert refusal(data, LimitsConfig(exif="rotate"), has_boxes=True).reason is RejectReason.IMAGE_ROTATED


@pytest.mark.parametrize("orientation", [0, 1, 9])
def test_orientations_that_turn_nothing_leave_the_bytes_alone(orientation: int) -> None:
    data = encoded(picture(), "JPEG", exif=exif_bytes(orientation))
    assert accepted(data, LimitsConfig(exif="rotate"), has_boxes=True).data == data


def test_changed_images_are_the_same_bytes_every_time_and_carry_no_metadata() -> None:
    limits = LimitsConfig(exif="rotate")
    data = encoded(
        picture(), "JPEG", exif=exif_bytes(3), comment=b"SECRET-COMMENT", icc_profile=b"SECRET-PROFILE" + bytes(200)
    )
    assert b"SECRET-COMMENT" in data
    first, second = accepted(data, limits), accepted(data, limits)
    assert first == second
    assert b"SECRET" not in first.data
    as_png = encoded(picture(), "WEBP", exif=exif_bytes(3), icc_profile=b"SECRET-PROFILE" + bytes(200))
    assert b"iCCP" not in accepted(as_png, limits).data


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_other_channels_stay_as_they_are(mode: str) -> None:
    image = picture(40, 40).convert(mode)
    data = encoded(image)
    assert accepted(data).data == data


@pytest.mark.parametrize(("mode", "form"), [("I;16", "PNG"), ("I;16", "TIFF"), ("F", "TIFF")])
def test_grey_values_of_more_than_eight_bits_are_refused(mode: str, form: str) -> None:
    assert refusal(encoded(Image.new(mode, (40, 40), 40_000), form)).reason is RejectReason.IMAGE_DEPTH


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_bytes_raise_anything_but_a_refusal(data: Any) -> None:
    start = file(data.draw(st.sampled_from(sorted(FILES))))
    broken = bytearray(start)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(broken) - 1))
        broken[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=6))
    outcome = attempt(bytes(broken))
    if isinstance(outcome, CheckedImage):
        assert outcome.size == decoded(bytes(broken)).size
    else:
        assert outcome.reason.value.startswith("image_")


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=400), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM", b"II*\0"])
)
def test_random_bytes_behind_any_magic_are_refused(body: bytes, magic: bytes) -> None:
    assert refusal(magic + body).reason.value.startswith("image_")


def attempt(data: bytes) -> CheckedImage | Refused:
    try:
        return check_image(data, LIMITS, has_boxes=False)
    except Refused as error:
        return error


def forbidden(*_: object, **__: object) -> None:
    raise AssertionError("must not be reached")


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """Give the pixels that a viewer which heeds the orientation shows as `image`; the inverse of the EXIF table."""
    methods = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    return image.transpose(methods[orientation])


def largest_mean_difference(left: Image.Image, right: Image.Image) -> float:
    """Mean over the pixels of a channel; an image that is turned otherwise differs by tens of levels."""
    difference = np.abs(np.asarray(left, np.float64) - np.asarray(right, np.float64))
    return float(difference.mean(axis=(0, 1)).max())


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


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P", "L", "RGB"])
def test_what_is_transparent_is_white_for_data_engine_engine_and_learner(mode: str) -> None:
    """A black stroke on transparent ground: without composing, ground and stroke are one black."""
    drawn = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    drawn.paste((0, 0, 0, 255), (10, 10, 30, 30))
    options: dict[str, Any] = {}
    if mode in ("RGBA", "LA"):
        drawn = drawn.convert(mode)
    else:
        drawn = Image.eval(drawn.getchannel("A"), lambda alpha: 0 if alpha else 255).convert(mode.replace("PA", "P"))
        options["transparency"] = (255, 255, 255) if mode == "RGB" else 255
        if mode in ("P", "PA"):
            options["transparency"] = drawn.getpixel((0, 0))
    file = io.BytesIO()
    drawn.save(file, "PNG", **options)
    (seen,) = decode_images([file.getvalue()], "test")
    prompted = rollout_decode(ImageBytes(data=file.getvalue(), width=40, height=40), "test")
    assert seen.getpixel((0, 0)) == (255, 255, 255)
    assert seen.getpixel((20, 20)) == (0, 0, 0)
    assert seen.tobytes() == prompted.tobytes()
    assert check_image(file.getvalue(), LimitsConfig(), has_boxes=False).dhash == dhash256(seen)
