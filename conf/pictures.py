"""Decoded pictures in RGB, the same for prompts, learner and data engine."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def in_rgb(picture: "Image") -> "Image":
    """Return a picture in RGB; one with transparency is put on white, as vLLM's and Qwen's own readers do.

    Pillow's own conversion drops the alpha channel, and what is transparent then has any colour, mostly black.

    Example:
        >>> from PIL import Image
        >>> in_rgb(Image.new("RGBA", (1, 1), (0, 0, 0, 0))).getpixel((0, 0))
        (255, 255, 255)
    """
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    from PIL import Image

    layer = picture.convert("RGBA")
    ground = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(ground, layer).convert("RGB")
