"""What a check asks: four short prompts with images that are drawn here, and made-up rewards of the answers."""

import io
from dataclasses import dataclass, replace

from PIL import Image, ImageDraw

from rewards.core.base import Reason, RewardResult
from rollout.records import ImageBytes, Sample

WIDE, TALL = (150, 90), (100, 130)
"""Sides that no processor leaves as they are, so that a box read in another frame is another box."""
GREY = (122, 116, 104)
"""The mean of CLIP's and ImageNet's pictures: after normalisation hardly anything is left of it."""
STRIPES = {
    "red, white, blue": ((220, 30, 30), (240, 240, 240), (30, 60, 220)),
    "green, black, orange": ((20, 150, 50), (15, 15, 15), (255, 145, 0)),
    "yellow, purple, brown": ((250, 225, 20), (150, 40, 190), (120, 70, 30)),
    "blue, red, yellow": ((30, 60, 220), (220, 30, 30), (250, 225, 20)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckPrompt:
    """One prompt, and the same with its images mixed up or lost."""

    sample: Sample
    swapped: Sample | None
    """The same question with the pictures in another order, or with the picture of another prompt; None without."""
    blank: Sample | None
    """The same question about grey pictures of the same sizes; None without pictures."""

    @property
    def name(self) -> str:
        """Its name in rows and messages."""
        return self.sample.sample_id


def check_prompts(*, takes_images: bool = True) -> tuple[CheckPrompt, ...]:
    """Return the prompts: of text alone, of one picture (twice, another one each time), of two pictures in order.

    Args:
        takes_images: False gives two of text alone.
    """
    text = CheckPrompt(sample=_sample("text", "what is 3 and 4?", ()), swapped=None, blank=None)
    if not takes_images:
        return text, CheckPrompt(sample=_sample("another text", "is 12 more than 7?", ()), swapped=None, blank=None)
    red, green = (_drawing(colours, WIDE) for colours in list(STRIPES.values())[:2])
    yellow, blue = (_drawing(colours, TALL) for colours in list(STRIPES.values())[2:])
    return (
        text,
        _with_pictures("one picture", "what colour is left?", (red,), (green,)),
        _with_pictures("another picture", "what colour is left?", (green,), (red,)),
        _with_pictures("two pictures", "what colour is left?", (yellow, blue), (blue, yellow)),
    )


def _with_pictures(
    name: str, question: str, images: tuple[ImageBytes, ...], swapped: tuple[ImageBytes, ...]
) -> CheckPrompt:
    sample = _sample(name, question, images)
    grey = tuple(_encode(Image.new("RGB", image.size, GREY)) for image in images)
    return CheckPrompt(sample=sample, swapped=replace(sample, images=swapped), blank=replace(sample, images=grey))


def _sample(name: str, question: str, images: tuple[ImageBytes, ...]) -> Sample:
    return Sample(sample_id=name, source="check", task="open", question=question, answer="", images=images)


def _drawing(colours: tuple[tuple[int, int, int], ...], size: tuple[int, int]) -> ImageBytes:
    """Draw a stripe of each colour from left to right, and across them a bar that tells above from below."""
    image = Image.new("RGB", size)
    draw = ImageDraw.Draw(image)
    width, height = size
    for place, colour in enumerate(colours):
        draw.rectangle((place * width // len(colours), 0, (place + 1) * width // len(colours), height), fill=colour)
    draw.rectangle((0, height // 8, width // 2, height // 4), fill=colours[-1])
    return _encode(image)


def _encode(image: Image.Image) -> ImageBytes:
    file = io.BytesIO()
    image.save(file, format="PNG")
    return ImageBytes(data=file.getvalue(), width=image.width, height=image.height)


def made_up_rewards(num_completions: int) -> list[RewardResult]:
    """Return rewards of 0 and 1 in turn, so that a step has a gradient whatever was answered."""
    return [
        RewardResult(
            reward=float(place % 2),
            task_reward=float(place % 2),
            format_reward=1.0,
            breakdown={"check": float(place % 2)},
            parsed_answer=None,
            reason=Reason.OK,
        )
        for place in range(num_completions)
    ]
