"""Conversations of LLaVA's form: turns from human and gpt about an image."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from orchestration.data.rows.records import RawImage, RawRow
from orchestration.data.sources.fields import Fields, as_fields, refuse
from orchestration.data.sources.pictures import file_image, without_markers

_OPENING = re.compile(
    r"(?:in (?:the|this) (?:image|picture|photo|photograph),? |(?:the|this) (?:image|picture|photo|photograph)"
    r"(?: vividly| prominently| clearly)? (?:shows|depicts|features|presents|captures|displays|showcases|portrays"
    r"|illustrates) |(?:the image|this) is (?:a|an) (?:image|picture|photo|photograph) of )",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Turn:
    """A question of the human and the reply to it.

    Example:
        >>> Turn("What is this?", "A dog.").reply
        'A dog.'
    """

    question: str
    reply: str


def read_turns(row: Fields) -> list[Turn]:
    """Pair each human turn with the reply that follows it; `<image>` markers are dropped.

    Raises:
        RowError: There is no such pair, or a turn is no object with `from` and `value`.
    """
    turns = row.raw("conversations")
    if not isinstance(turns, list):
        refuse("conversations", turns, "a list of turns")
    spoken = [(fields.text("from"), fields.text("value")) for fields in map(as_fields, turns)]
    pairs = [
        Turn(without_markers(asked), told.strip())
        for (speaker, asked), (listener, told) in pairwise(spoken)
        if speaker in ("human", "user") and listener in ("gpt", "assistant")
    ]
    return pairs or refuse("conversations", None, "a question and its reply")


def read_images(row: Fields, folder: str) -> tuple[RawImage, ...]:
    """Give the files under `image`, one or a list, or none."""
    value = row.raw("image")
    paths = value if isinstance(value, list) else [] if value in (None, "") else [value]
    texts = [path if isinstance(path, str) else refuse("image", value, "a path or a list of paths") for path in paths]
    return tuple(file_image(folder, path) for path in texts)


def without_opening(caption: str) -> str:
    """Take boilerplate off the beginning of a caption: words that earn overlap and describe nothing.

    Example:
        >>> without_opening("The image shows a dog."), without_opening("In this picture, two men talk.")
        ('A dog.', 'Two men talk.')
    """
    opening = _OPENING.match(caption)
    rest = caption[opening.end() :] if opening else caption
    return rest[:1].upper() + rest[1:] if opening else caption


def turn_rows(source_id: str, turns: Iterable[Turn], images: tuple[RawImage, ...], task: str) -> list[RawRow]:
    """Make a row of every turn; further ones have their number in the id."""
    return [
        RawRow(
            source_id=f"{source_id}-{index}" if index else source_id,
            task=task,
            question=turn.question,
            answer=turn.reply,
            images=images,
        )
        for index, turn in enumerate(turns)
    ]
