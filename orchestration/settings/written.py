"""Values as `key=value` arguments write them."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any


def as_written(value: Any) -> str:
    """Return a value as it is written behind `key=`, whatever signs it holds.

    Example:
        >>> as_written([1, True, None, "a, b"]), as_written({"path": "my.py:score"})
        ("[1,true,null,'a, b']", "{path:'my.py:score'}")
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return as_written({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{as_written(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(as_written, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    return quoted(str(value).replace("${", r"\${"))


def quoted(text: str) -> str:
    r"""Return text in single quotes, as Hydra's grammar reads it: backslashes count before a quote alone.

    Example:
        >>> print(quoted("it's"), quoted("C:\\"))
        'it\'s' 'C:\\'
    """
    escaped = re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text)
    return f"'{escaped}'"
