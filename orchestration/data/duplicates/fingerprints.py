"""What near-duplicates are found by: a difference hash and a thumbnail of an image, the words of a question.

Both image fingerprints are means over a grid of cells, so that another size, encoder or quality of one picture changes
them little. The hash looks at neighbouring cells, the thumbnail at colours; two images are nearly one when both agree.
"""

import base64
import re
import unicodedata

import numpy as np
from PIL import Image

HASH_SIDE = 16
"""Rows of the hash, and bits in each: 256 in all."""
THUMBNAIL_SIDE = 16
MIN_STEP = 2
"""Grey levels by which a cell must outshine its left neighbour to set its bit. With 0, the noise of a JPEG encoder
sets bits at random wherever a drawing is evenly white."""

_WORD = re.compile(r"\w+")


def dhash256(image: Image.Image) -> str:
    """Give the difference hash of an RGB image: 64 hexadecimal digits, row by row, the leftmost pair of cells first.

    Bit (y, x) is set where cell (y, x + 1) of a 16 x 17 grid of grey means is brighter than cell (y, x) by more than
    MIN_STEP.

    Source:
        N. Krawetz, "Kind of Like That" (2013), with 17 x 16 instead of 9 x 8 cells and a least step.
    """
    cells = image.convert("L").resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX)
    grid = np.asarray(cells, np.int16)
    return np.packbits(grid[:, 1:] - grid[:, :-1] > MIN_STEP).tobytes().hex()


def thumbnail(image: Image.Image) -> str:
    """Give the means of an RGB image over 16 x 16 cells as base64 of 768 bytes, row by row."""
    cells = image.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
    return base64.b64encode(cells.tobytes()).decode("ascii")


def normalised_question(text: str) -> str:
    """Give the form in which questions are compared: NFKC, case-folded, single spaces, no punctuation at the ends.

    Example:
        >>> normalised_question('  "How many  DOGS?" ')
        'how many dogs'
    """
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    start, end = 0, len(text)
    while start < end and not text[start].isalnum():
        start += 1
    while end > start and not text[end - 1].isalnum():
        end -= 1
    # A text of signs alone (a formula, emoji) stays as it is: emptied, all such questions would be one.
    return text[start:end] or text


def question_words(text: str) -> frozenset[str]:
    """Give the words of a question, for `jaccard`.

    Example:
        >>> sorted(question_words("Is the dog left of the cat?"))
        ['cat', 'dog', 'is', 'left', 'of', 'the']
    """
    return frozenset(_WORD.findall(normalised_question(text)))


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """Give the share of the words of either question that both have; 1 where neither has any.

    Example:
        >>> jaccard(frozenset(("a", "b", "c")), frozenset(("b", "c", "d")))
        0.5
    """
    union = len(left | right)
    return len(left & right) / union if union else 1.0
