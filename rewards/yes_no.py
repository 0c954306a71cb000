"""Yes and no (true and false) as the first whole word of an answer, with the opposite word nowhere in it."""

import re

from rewards.base import Reason
from rewards.plain_text import normalise

_WORD = re.compile(r"[^\W_]+")
_LABELS = {"yes": True, "true": True, "no": False, "false": False}


def read_yes_no(text: str) -> tuple[bool | None, Reason]:
    """Give True for yes or true, False for no or false, None with a reason for anything else.

    Args:
        text: A short answer; callers cap its length.

    Example:
        >>> read_yes_no("Yes, a dog."), read_yes_no("I know it")[0], read_yes_no("Yes and no")[1].value
        ((True, <Reason.OK: 'ok'>), None, 'contradiction')
    """
    words = _WORD.findall(normalise(text))
    label = _LABELS.get(words[0]) if words else None
    if label is None:
        return None, Reason.UNREADABLE
    if any(_LABELS.get(word, label) != label for word in words):
        return None, Reason.CONTRADICTION
    return label, Reason.OK
