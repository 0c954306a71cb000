import base64
import io
import itertools
import random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from orchestration.data.images import dhash256, thumbnail
from orchestration.data.row_index import jaccard, normalised_question, question_words
from orchestration.settings.recipe import DeduplicateConfig
from tests.unit.data.pictures import encoded, picture

CONFIG = DeduplicateConfig()


def hash_distance(left: str, right: str) -> int:
    return (int(left, 16) ^ int(right, 16)).bit_count()


def thumbnail_difference(left: str, right: str) -> int:
    return max(abs(a - b) for a, b in zip(base64.b64decode(left), base64.b64decode(right), strict=True))


def bar_chart(seed: int) -> Image.Image:
    """A chart as many tools draw it: axes, grid, numbers, and bars of random heights and colours."""
    rng = random.Random(seed)
    width, height = rng.choice(((640, 480), (800, 600), (500, 400)))
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for line in range(5):
        y = 20 + line * (height - 50) // 4
        draw.line((40, y, width - 20, y), fill=(220, 220, 220))
        draw.text((5, y), str(rng.randint(0, 999)), fill="black")
    num_bars = rng.randint(4, 10)
    for bar in range(num_bars):
        x = 60 + bar * (width - 100) // num_bars
        colour = (rng.randrange(256), rng.randrange(256), rng.randrange(256))
        draw.rectangle((x, rng.randint(40, height - 60), x + 25, height - 30), fill=colour)
    draw.text((width // 3, 3), f"Sales {rng.random()}", fill="black")
    return image


def encoded_again(image: Image.Image, quality: int, scale: float) -> Image.Image:
    resized = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    return Image.open(io.BytesIO(encoded(resized, "JPEG", quality=quality))).convert("RGB")


def are_near(left: Image.Image, right: Image.Image) -> bool:
    return (
        hash_distance(dhash256(left), dhash256(right)) <= CONFIG.max_hash_distance
        and thumbnail_difference(thumbnail(left), thumbnail(right)) <= CONFIG.max_thumbnail_difference
    )


def grey_columns(levels: list[int]) -> Image.Image:
    row = np.array(levels, np.uint8)
    return Image.fromarray(np.broadcast_to(row, (16, len(levels))).copy()).convert("RGB")


def test_the_hash_of_a_small_gradient_follows_by_hand() -> None:
    # 17 columns, each its own cell. Steps of 3 upwards exceed 2 and set their bit; a step of 2 and all downward ones
    # do not: 8 rising pairs, one of 2 levels, 7 falling ones -> 11111111 00000000 = ff00 in each of 16 rows.
    levels = [100 + 3 * column for column in range(9)] + [126] + [126 - 5 * column for column in range(1, 8)]
    assert len(levels) == 17
    assert dhash256(grey_columns(levels)) == "ff00" * 16


def test_the_first_bit_is_the_leftmost_pair_of_the_top_row() -> None:
    pixels = np.zeros((16, 17, 3), np.uint8)
    pixels[0, 1] = 200
    assert dhash256(Image.fromarray(pixels)) == "8000" + "0000" * 15


def test_an_even_image_has_the_empty_hash_despite_noise() -> None:
    noise = np.random.default_rng(0).integers(248, 251, (64, 64, 3)).astype(np.uint8)
    assert dhash256(Image.fromarray(noise)) == "0" * 64


def test_a_thumbnail_holds_the_mean_of_every_cell() -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[0:2, 0:2] = [[[10, 0, 0], [20, 0, 0]], [[30, 0, 0], [40, 0, 0]]]
    pixels[0:2, 2:4] = (1, 2, 3)
    cells = base64.b64decode(thumbnail(Image.fromarray(pixels)))
    assert len(cells) == 768
    assert tuple(cells[:9]) == (25, 0, 0, 1, 2, 3, 0, 0, 0)


@pytest.mark.parametrize(
    ("quality", "scale", "least"),
    [(90, 1.0, 20), (75, 1.0, 20), (50, 1.0, 20), (75, 0.75, 20), (75, 0.5, 19), (85, 1.5, 18)],
)
def test_encoded_and_resized_copies_of_charts_are_found(quality: int, scale: float, least: int) -> None:
    charts = [bar_chart(seed) for seed in range(20)]
    found = [are_near(chart, encoded_again(chart, quality, scale)) for chart in charts]
    assert sum(found) >= least


def test_copies_of_photographs_are_found() -> None:
    photos = [picture(320, 240, seed=seed) for seed in range(10)]
    assert all(are_near(photo, encoded_again(photo, 60, 0.6)) for photo in photos)


def test_different_charts_are_not_taken_for_each_other() -> None:
    charts = [bar_chart(seed) for seed in range(60)]
    hashes = [dhash256(chart) for chart in charts]
    assert min(itertools.starmap(hash_distance, itertools.combinations(hashes, 2))) > CONFIG.max_hash_distance


def test_another_colour_shows_in_the_thumbnail_though_not_in_the_hash() -> None:
    red, blue = Image.new("RGB", (64, 64), (200, 0, 0)), Image.new("RGB", (64, 64), (0, 0, 200))
    assert hash_distance(dhash256(red), dhash256(blue)) == 0
    assert thumbnail_difference(thumbnail(red), thumbnail(blue)) == 200


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("How many dogs?", "how many dogs"),
        ("  HOW\tmany\n dogs ?!", "how many dogs"),
        ("\uff28ow many \u201cdogs\u201d", "how many \u201cdogs"),
        ("Stra\u00dfe?", "strasse"),
        ("(x + 1) = ?", "x + 1"),
        ("\u25b3 ?", "\u25b3 ?"),
        ("", ""),
    ],
)
def test_questions_are_compared_in_one_form(text: str, expected: str) -> None:
    assert normalised_question(text) == expected


def test_words_are_a_set_and_jaccard_their_shared_part() -> None:
    left, right = question_words("Is the dog left of the cat?"), question_words("Is the dog right of the cat?")
    assert left == {"is", "the", "dog", "left", "of", "cat"}
    assert jaccard(left, right) == 5 / 7
    assert jaccard(left, frozenset()) == 0.0
    assert jaccard(frozenset(), frozenset()) == 1.0
