"""The first rows of a source against its mapping, before anything is built."""

import itertools
from collections.abc import Iterable, Mapping

from orchestration.data.sources.fields import RowError
from orchestration.data.sources.mapping import PATH, RowMapping
from orchestration.data.sources.references import Reference
from orchestration.data.sources.rows import BadRow, RejectReason
from orchestration.data.sources.streams import Record
from orchestration.settings.errors import ConfigError

FIRST_ROWS = 200
NEEDED = ("id", "question", "answer", "task", "images", "boxes")
"""Keys without whose value a row is refused."""
MAX_NAMED = 12
"""Fields of a row that a message names."""


def check_paths(mapping: RowMapping, records: Iterable[Record | BadRow], *, is_strict: bool) -> None:
    """Check that each mapped field is in one of the first rows, unless the mapping says that rows may lack it.

    Args:
        mapping: Of the source.
        records: Its rows.
        is_strict: Whether this is asked of fields too without which a row can be read; evaluation sets often share the
            mapping of richer training rows.

    Raises:
        ConfigError: One is in none of them; names it, its path, and the fields that are there.
    """
    first = itertools.islice(records, FIRST_ROWS)
    rows = [record.value for record in first if isinstance(record, Record) and isinstance(record.value, Mapping)]
    if not rows:
        return
    extra = {f"metadata.{name}": reference for name, reference in mapping.metadata.items()}
    for key, reference in {**mapping.references, **extra}.items():
        if (
            reference.is_optional
            or not (is_strict or key in NEEDED)
            or any(_leads_somewhere(reference, row) for row in rows)
        ):
            continue
        named = sorted({str(name) for row in rows for name in row})
        there = ", ".join(named[:MAX_NAMED]) + (", ..." if len(named) > MAX_NAMED else "")
        remedy = f"the fields there are {there}"
        if key == "task":
            remedy = f"a task for all rows is {{constant: {reference.name or 'chart'}}}"
        elif key not in ("question", "answer", "id"):
            remedy += f"; where rows may lack it, write {reference.name or key}?"
        raise ConfigError(
            f"{PATH}.{key}: the path {reference.name or key} leads nowhere in the first {len(rows)} rows; {remedy}"
        )


def _leads_somewhere(reference: Reference, row: object) -> bool:
    """Return whether a row has the field, be it null; what is wrong with a value is said of its row."""
    name = reference.name
    try:
        if reference.of(row) is not None:
            return True
    except RowError as error:  # of a format: one of the fields in its text
        if error.reason is not RejectReason.MISSING_FIELD:
            return True
        name = str(error).removesuffix(" is missing")
    return any(_has(row, one) for one in name.split(" or "))


def _has(row: object, path: str) -> bool:
    """Return whether no object on a path lacks its next step."""
    value = row
    if isinstance(row, Mapping) and path in row:
        return True  # a name with dots
    for step in path.split("."):
        if not isinstance(value, Mapping):
            return True
        if step not in value:
            return False
        value = value[step]
    return True
