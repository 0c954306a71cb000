"""Rows in the form of conversations: roles, content parts, what was said before, and what is asked last."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from orchestration.data.sources.fields import RowError, as_text, cell_image, refuse
from orchestration.data.sources.markers import mark_places
from orchestration.data.sources.option_lists import written_list
from orchestration.data.sources.rows import RawImage, RejectReason
from rollout.records import IMAGE_PLACE, Turn, readable

MARKER = "<image>"
ASKING = ("user", "human")
REPLYING = ("assistant", "gpt", "model", "bot")
SYSTEM = ("system", "developer")
BESIDE = "images"
"""Stands for the role of a turn whose images are in a field beside its content."""
TEXTS = ("text", "input_text", "output_text")
IMAGES = ("image", "image_url", "input_image")
IMAGE_KEYS = ("image", "image_url", "source", "value", "url", "path", "base64")
"""What an image is called in its part: by Qwen and ms-swift, OpenAI, Anthropic, LLaMA-Factory, transformers."""
REFERENCE = "<ref-object>"
_LIST = re.compile(r"\s*\[\s*[\[{]")


@dataclass(frozen=True, slots=True, kw_only=True)
class RawTurn:
    """One turn of a raw row.

    Example:
        >>> RawTurn(role="user", text="<image>What is this?").role
        'user'
    """

    role: str
    """user, assistant or system."""
    text: str
    """With MARKER for each content part that is an image."""
    images: tuple[RawImage | None, ...] = ()
    """Of the content parts; None where a part holds none: the row has it in another field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialogue:
    """The turns of a raw row by what they are for."""

    system: str
    """Empty for none."""
    turns: tuple[RawTurn, ...]
    """Of user and assistant by turns; the first and the last are the user's. The last one asks."""

    @property
    def images(self) -> tuple[RawImage, ...]:
        """Images that content parts hold."""
        return tuple(image for turn in self.turns for image in turn.images if image is not None)

    def history(self, texts: Sequence[str]) -> tuple[Turn, ...]:
        """Return the turns before the question, whose images `texts` has in their places."""
        return tuple(
            Turn(role="assistant" if turn.role == "assistant" else "user", text=text)
            for turn, text in zip(self.turns[:-1], texts, strict=True)
        )


def read_turns(value: object, name: str) -> list[RawTurn] | None:
    """Return the turns of a list.

    Turns are objects of `role` and `content`, or of `from` and `value`, and content is a text or a list of parts, as in
    the chat forms of OpenAI, TRL, ms-swift and LLaMA-Factory; or objects of `user` and `assistant`, two turns each. The
    list may be a JSON text. One turn, or the content parts of one, are read as the user's.

    Returns:
        None where the value is nothing of this.

    Raises:
        RowError: A role is not known, or a part is neither text nor image.

    Example:
        >>> read_turns([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How many?"}]}], "m")
        [RawTurn(role='user', text='<image>How many?', images=(None,))]
    """
    value = _decoded(value)
    if isinstance(value, (list, tuple)) and any(_kind(part) in (*TEXTS, *IMAGES) for part in value):
        return [_turn("user", value, name)]
    spoken = spoken_turns(value)
    return None if spoken is None else [_turn(role, content, name) for role, content in spoken]


def read_history(value: object, name: str) -> list[RawTurn]:
    """Return earlier turns: pairs of question and answer, or turns as of `read_turns`; none where there is no value.

    Raises:
        RowError: It is neither.

    Example:
        >>> [turn.text for turn in read_history([["Who?", "Two players."]], "history")]
        ['Who?', 'Two players.']
    """
    value = _decoded(value)
    if value is None or value == "" or value == [] or value == ():
        return []
    if isinstance(value, (list, tuple)) and all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in value):
        roles = ("user", "assistant")
        return [_turn(role, content, name) for pair in value for role, content in zip(roles, pair, strict=True)]
    turns = read_turns(value, name)
    return refuse(name, value, "a list of pairs of question and answer, or of turns") if turns is None else turns


def read_reply(value: object, name: str) -> str | None:
    """Return the assistant's last reply in a list of turns; None where the value is no such list.

    Raises:
        RowError: Another turn comes last, or the reply shows an image.
    """
    spoken = spoken_turns(_decoded(value))
    if spoken is None:
        return None
    turns = [_turn(role, content, name) for role, content in spoken]
    last = _joined(turns)[-1]
    if last.role != "assistant":
        raise RowError(RejectReason.MISSING_FIELD, f"the last turn of {name} is of role {last.role!r}: it has no reply")
    if last.images:
        raise RowError(RejectReason.UNREADABLE_ROW, f"the reply in {name} shows an image; only texts are graded")
    return last.text


def as_dialogue(turns: Sequence[RawTurn], name: str) -> Dialogue:
    """Return what is asked last and what comes before it; a reply behind it is left out.

    Turns of one role that follow each other are joined with a blank line.

    Raises:
        RowError: No user asks, the assistant begins, or a system turn comes behind another turn.
    """
    joined = _joined(turns)
    system = ""
    if joined and joined[0].role == "system":
        if joined[0].images:
            raise RowError(
                RejectReason.MARKERS_UNEQUAL, f"the system turn of {name} shows an image; turns of users may"
            )
        system, joined = joined[0].text, joined[1:]
    while joined and joined[-1].role == "assistant":
        joined = joined[:-1]
    if not joined:
        raise RowError(RejectReason.UNREADABLE_ROW, f"{name} has 0 turns of the user; the last one asks")
    if any(turn.role == "system" for turn in joined):
        raise RowError(RejectReason.UNREADABLE_ROW, f"{name} has a system turn behind others; it comes first")
    if joined[0].role != "user":
        raise RowError(RejectReason.UNREADABLE_ROW, f"{name} begins with the assistant; the user asks first")
    return Dialogue(system=system, turns=tuple(joined))


def part_of_turn(
    row: object, steps: Sequence[str], text: str, images: tuple[RawImage, ...]
) -> tuple[str, tuple[RawImage, ...]]:
    """Return one turn with the images that its markers name, where the row's images belong to all turns.

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
    found = [_spoken(turn) for turn in value] if isinstance(value, (list, tuple)) else []
    spoken = [turns[0] for turns in found if turns is not None and len(turns) == 1]
    if len(spoken) < len(found) or not number.isdigit() or int(number) >= len(spoken):
        return text, images
    place = int(number)
    if spoken[place][0] not in ASKING:
        path = ".".join(steps)
        raise RowError(
            RejectReason.UNREADABLE_ROW,
            f"{path} is a turn of role {spoken[place][0]!r}, no question; map question to {'.'.join(above)}, whose "
            "user turn asks",
        )
    try:
        marked, order = mark_places([str(content) for _, content in spoken], len(images))
    except RowError:
        return text, images  # the images belong to this turn alone, or do not fit: the question is compared with them
    before, own = (sum(part.count(IMAGE_PLACE) for part in marked[:end]) for end in (place, place + 1))
    if own == before:
        return text, images
    return readable(marked[place]), tuple(images[index] for index in order[before:own])


def with_labels(texts: Sequence[str], labels: object) -> tuple[str, ...]:
    """Return turns in which each `<ref-object>`, as ms-swift writes it, is the next label of the row's boxes.

    Example:
        >>> with_labels(["Find the <ref-object> in the image"], ["refrigerator"])
        ('Find the refrigerator in the image',)
    """
    names = [labels] if isinstance(labels, str) else labels if isinstance(labels, (list, tuple)) else []
    if sum(text.count(REFERENCE) for text in texts) > len(names):
        return tuple(texts)  # left over, it is refused as a placeholder
    waiting = iter(map(str, names))
    return tuple(re.sub(REFERENCE, lambda _: next(waiting), text) for text in texts)


def _decoded(value: object) -> object:
    """Return the list that a text holds in JSON or Python; any other value as it is."""
    if not isinstance(value, str) or _LIST.match(value) is None:
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        found = written_list(value)
        return value if found is None else found


def _kind(part: object) -> object:
    """Return the type of a content part; None for anything else."""
    return part.get("type") if isinstance(part, Mapping) and "role" not in part else None


def spoken_turns(value: object) -> list[tuple[str, object]] | None:
    """Return role and content of each turn of a list, or of one turn; None where the value is no such thing."""
    turns = [value] if isinstance(value, Mapping) else value
    if not isinstance(turns, (list, tuple)) or not turns:
        return None
    found = [_spoken(turn) for turn in turns]
    return None if None in found else [turn for spoken in found for turn in spoken or ()]


def _spoken(turn: object) -> list[tuple[str, object]] | None:
    """Return role and content of an object that is a turn, or of the two in one of `user` and `assistant`."""
    if not isinstance(turn, Mapping):
        return None
    role = turn.get("from") if turn.get("role") is None else turn["role"]
    if isinstance(role, str) and turn.get("tool_calls"):
        return [("tool_calls", None)]
    if isinstance(role, str) and (turn.get("images") or turn.get("image")):
        return [(BESIDE, None)]
    if isinstance(role, str) and ("content" in turn or "value" in turn):
        content = turn.get("content")
        return [(role.strip().lower(), turn.get("value") if content is None else content)]
    pair = [next((key for key in roles if isinstance(turn.get(key), str)), "") for roles in (ASKING, REPLYING)]
    return [(key, turn[key]) for key in pair] if all(pair) else None


def _turn(role: str, content: object, name: str) -> RawTurn:
    for known, names in (("user", ASKING), ("assistant", REPLYING), ("system", SYSTEM)):
        if role in names:
            text, images = _content(content, name)
            return RawTurn(role=known, text=text, images=images)
    what = f"a turn of role {role!r}; those of system, user and assistant are read"
    if role == BESIDE:
        what = "a turn with images beside its content; name them in its content parts, or in a column of images"
    raise RowError(RejectReason.UNREADABLE_ROW, f"{name} has {what}")


def _joined(turns: Sequence[RawTurn]) -> list[RawTurn]:
    """Return turns of which no two of one role follow each other."""
    joined: list[RawTurn] = []
    for turn in turns:
        if joined and joined[-1].role == turn.role:
            last = joined.pop()
            text = "\n\n".join(text for text in (last.text, turn.text) if text.strip())
            turn = replace(turn, text=text, images=last.images + turn.images)
        joined.append(turn)
    return joined


def _content(content: object, name: str) -> tuple[str, tuple[RawImage | None, ...]]:
    if content is None:
        return "", ()
    if isinstance(content, str):
        return content, ()
    if not isinstance(content, (list, tuple)):
        return refuse(f"{name}.content", content, "a text or a list of parts")
    text, images = "", list[RawImage | None]()
    for part in content:
        kind = _kind_of_part(part)
        if isinstance(part, str):
            text += part
        elif kind in TEXTS:
            text += as_text(part.get("value") if part.get("text") is None else part["text"], f"{name}.content.text")
        elif kind in IMAGES:
            text += MARKER
            images.append(_image(part, name))
        else:
            raise RowError(RejectReason.UNREADABLE_ROW, f"{name} has a part of type {kind!r}; text and image are read")
    return text, tuple(images)


def _kind_of_part(part: object) -> object:
    """Return the type of a content part; of one without, as Qwen-VL writes them, the name of what it holds."""
    if not isinstance(part, Mapping):
        return None
    held = [key for key in ("text", "image", "image_url") if part.get(key) is not None]
    return held[0] if part.get("type") is None and len(held) == 1 else part.get("type")


def _image(part: Mapping[str, object], name: str) -> RawImage | None:
    """Return the image of a part, a text or an object with `url` or `data`, under any of IMAGE_KEYS."""
    value = next((part[key] for key in IMAGE_KEYS if part.get(key) is not None), None)
    if isinstance(value, Mapping) and ("url" in value or "data" in value):
        value = value.get("url", value.get("data"))
    return None if value is None or value == "" else cell_image(value, f"{name}.image")
