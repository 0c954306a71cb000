"""Checks of what users write, for every package: the nearest known name, and ranges such as `Annotated[int, Ge(1)]`."""

import difflib
import math
from collections.abc import Iterable
from typing import Any

from annotated_types import Ge, Gt, Le, Lt, MinLen


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.5) -> str | None:
    """Return the known name that was probably meant; None where none is similar.

    Example:
        >>> nearest("grop", ["dapo", "grpo"]), nearest("x", ["dapo", "grpo"])
        ('grpo', None)
    """
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)), None)


def out_of_range(value: Any, declared: Iterable[Any] = ()) -> str | None:
    """Return what to use instead of a value outside of its range, such as `use 1 or more`; None for one inside.

    Numbers must be finite in any case. A text of spaces counts as empty.

    Args:
        value: a number, a text, or a tuple or mapping of which the length counts.
        declared: the `Ge`, `Gt`, `Le`, `Lt` and `MinLen` of the setting's annotation; others are ignored.

    Example:
        >>> out_of_range(1.5, [Gt(0), Le(1)])
        'use a value above 0 and at most 1'
    """
    lower, upper, is_inside = "", "", True
    for bound in declared:
        if isinstance(bound, Ge):
            lower, is_inside = f"{bound.ge} or more", is_inside and value >= bound.ge
        elif isinstance(bound, Gt):
            lower, is_inside = f"a value above {bound.gt}", is_inside and value > bound.gt
        elif isinstance(bound, Le):
            upper, is_inside = f"at most {bound.le}", is_inside and value <= bound.le
        elif isinstance(bound, Lt):
            upper, is_inside = f"below {bound.lt}", is_inside and value < bound.lt
        elif isinstance(bound, MinLen) and len(value.strip() if isinstance(value, str) else value) < bound.min_length:
            return "use a text that is not empty" if isinstance(value, str) else f"name at least {bound.min_length}"
    words = " and ".join(filter(None, (lower, upper))).replace("or more and at most", "to")
    if isinstance(value, float) and not math.isfinite(value):
        return f"use a finite number{', ' if words else ''}{words}"
    return None if is_inside else f"use {words}"
