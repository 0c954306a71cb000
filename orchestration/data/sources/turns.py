"""Questions in the form of turns: roles, content parts, and which images a turn asks about."""

import json
from collections.abc import Mapping, Sequence

from orchestration.data.sources.fields import RowError, as_text, cell_image, refuse
from orchestration.data.sources.rows import RawImage, RejectReason

MARKER = "<image>"
ASKING = ("user", "human")
REPLYING = ("assistant", "gpt", "model")
SYSTEM = ("system", "developer")
TEXTS = ("text", "input_text")
IMAGES = ("image", "image_url", "input_image")


def read_turns(value: object, name: str) -> tuple[str, list[RawImage | None]] | None:
    """Return what the user asks in a list of turns, with a marker for each of its images, and the images.

    Turns are objects of `role` and `content`, or of `from` and `value`, and content is a text or a list of parts, as in
    the chat forms of OpenAI, TRL, ms-swift and LLaMA-Factory; the list may be a JSON text. A system turn and the
    assistant's last one are left out. An image is None where a part holds none: the row has it in another field.

    Returns:
        None where the value is no list of turns.

    Raises:
        RowError: There is no user turn or more than one, or a part is neither text nor image.

    Example:
        >>> read_turns([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How many?"}]}], "m")
        ('<image>How many?', [None])
    """
    turns = _turns(value)
    if turns is None:
        return None
    asked = [content for role, content in turns if role in ASKING]
    unknown = [role for role, _ in turns if role not in (*ASKING, *REPLYING, *SYSTEM)]
    if unknown:
        raise RowError(RejectReason.UNREADABLE_ROW, f"{name} has a turn of role {unknown[0]!r}; known: user, system")
    if len(asked) != 1:
        raise RowError(
            RejectReason.UNREADABLE_ROW,
            f"{name} has {len(asked)} turns of the user; one is asked: name it, as in {name}.0.content",
        )
    return _content(asked[0], name)


def images_of_turn(row: object, steps: Sequence[str], text: str, images: tuple[RawImage, ...]) -> tuple[RawImage, ...]:
    """Return the images that the markers of one turn name, where the row's images belong to all turns.

    Args:
        row: The raw row.
        steps: Path of the question, such as ("messages", "0", "content").
        text: The question, with its markers.
        images: Of the row.

    Raises:
        RowError: The path leads to a turn that is not the user's.
    """
    *above, number, _ = steps
    value = row
    for step in above:
        value = value.get(step) if isinstance(value, Mapping) else None
    turns = _turns(value)
    if turns is None or not number.isdigit() or int(number) >= len(turns):
        return images
    role = turns[int(number)][0]
    if role not in ASKING:
        path = ".".join(steps)
        raise RowError(
            RejectReason.UNREADABLE_ROW,
            f"{path} is a turn of role {role!r}, no question; map question to {'.'.join(above)}, whose user turn asks",
        )
    markers = [str(content).count(MARKER) for _, content in turns]
    if sum(markers) != len(images) or not markers[int(number)]:
        return images
    first = sum(markers[: int(number)])
    return images[first : first + text.count(MARKER)]


def with_labels(text: str, labels: object) -> str:
    """Return a question in which each `<ref-object>`, as ms-swift writes it, is the next label of the row's boxes.

    Example:
        >>> with_labels("Find the <ref-object> in the image", ["refrigerator"])
        'Find the refrigerator in the image'
    """
    names = [labels] if isinstance(labels, str) else labels if isinstance(labels, (list, tuple)) else []
    pieces = text.split("<ref-object>")
    if len(pieces) == 1 or len(pieces) - 1 > len(names):
        return text  # left over, it is refused as a placeholder
    filled = [*map(str, names[: len(pieces) - 1]), ""]
    return "".join(piece + label for piece, label in zip(pieces, filled, strict=True))


def _turns(value: object) -> list[tuple[str, object]] | None:
    """Return role and content of each turn; None where the value is no list of turns."""
    if isinstance(value, str) and value.lstrip().startswith("[{"):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    if not isinstance(value, (list, tuple)) or not value:
        return None
    found = []
    for turn in value:
        if not isinstance(turn, Mapping):
            return None
        role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        if not isinstance(role, str) or content is None:
            return None
        found.append((role.strip().lower(), content))
    return found


def _content(content: object, name: str) -> tuple[str, list[RawImage | None]]:
    if isinstance(content, str):
        return content, []
    if not isinstance(content, (list, tuple)):
        return refuse(f"{name}.content", content, "a text or a list of parts")
    text, images = "", list[RawImage | None]()
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if isinstance(part, str):
            text += part
        elif kind in TEXTS:
            text += as_text(part.get("text"), f"{name}.content.text")
        elif kind in IMAGES:
            text += MARKER
            images.append(_image(part, name))
        else:
            raise RowError(RejectReason.UNREADABLE_ROW, f"{name} has a part of type {kind!r}; text and image are read")
    return text, images


def _image(part: Mapping[str, object], name: str) -> RawImage | None:
    """Return the image of a part: `image`, `image_url` (a text, or an object with `url`), or `source` with `data`."""
    value = part.get("image", part.get("image_url", part.get("source")))
    if isinstance(value, Mapping) and ("url" in value or "data" in value):
        value = value.get("url", value.get("data"))
    return None if value is None or value == "" else cell_image(value, f"{name}.image")
