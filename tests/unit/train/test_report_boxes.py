"""The report draws the model's box where the reward reads it, whatever frame the model writes in."""

import re

import pytest

from orchestration.page.pictures import MODEL_COLOUR, picture_svg


@pytest.mark.parametrize(
    ("coord_mode", "answer"),
    [
        ("pixel", "[50, 20, 100, 60]"),
        ("pixel_resized", "[28, 14, 56, 42]"),
        ("norm1000", "[250, 200, 500, 600]"),
        ("norm1", "[0.25, 0.2, 0.5, 0.6]"),
    ],
)
def test_a_box_of_every_frame_is_drawn_in_pixels_of_the_picture(coord_mode: str, answer: str) -> None:
    image = {"width": 200, "height": 100, "input_width": 112, "input_height": 70, "data": "data:"}
    example = {"family": "grounding", "answer": "[0, 0, 9, 9]", "greedy": f"<answer>{answer}</answer>"}

    svg = picture_svg(image, example, coord_mode=coord_mode)

    drawn = next(rect for rect in re.findall("<rect [^>]*>", svg) if MODEL_COLOUR in rect)
    numbers = [float(value) for value in re.findall(r' (?:x|y|width|height)="([0-9.]+)"', drawn)]
    assert numbers == pytest.approx([50.0, 20.0, 50.0, 40.0])
