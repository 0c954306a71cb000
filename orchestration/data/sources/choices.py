"""Right options as letters, from what sources write: an index, a letter, several of either."""

import string

from orchestration.data.sources.fields import as_answer, as_integer

LETTERS = string.ascii_uppercase


def letter(index: int) -> str:
    """Give the letter of an option by its index from 0; a number without a letter stays a number.

    An index beyond the options gives its letter all the same: a later stage sees that no such option exists.

    Example:
        >>> letter(1), letter(30), letter(-1)
        ('B', '30', '-1')
    """
    return LETTERS[index] if 0 <= index < len(LETTERS) else str(index)


def from_index(value: object, name: str) -> str:
    """Read one index or a list of indices, from 0, as letters.

    Example:
        >>> from_index(2, "answer"), from_index([0, 2], "answer")
        ('C', 'A, C')
    """
    if isinstance(value, (list, tuple)):
        return ", ".join(letter(as_integer(item, name)) for item in value)
    return letter(as_integer(value, name))


def from_letters(value: object, name: str) -> str:
    """Read one letter or several; anything else is passed on as it stands, for a later stage to refuse.

    Example:
        >>> from_letters("b", "answer"), from_letters(["A", "C"], "answer"), from_letters("?", "answer")
        ('B', 'A, C', '?')
    """
    if isinstance(value, (list, tuple)):
        return ", ".join(from_letters(item, name) for item in value)
    text = as_answer(value, name).strip()
    return text.upper() if len(text) == 1 else text


def from_text(value: object, options: tuple[str, ...], name: str) -> str:
    """Read an answer that repeats the text of an option as the letter of the first such option.

    Example:
        >>> from_text("cat", ("dog", "cat"), "answer"), from_text("cow", ("dog", "cat"), "answer")
        ('B', 'cow')
    """
    text = as_answer(value, name)
    return letter(options.index(text)) if text in options else text
