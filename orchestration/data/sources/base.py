"""What an adapter is: it finds the raw files of a source and reads rows from them, one file at a time."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from orchestration.data.rows.records import BadRow, RawRow
from orchestration.settings.recipe import SourceConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Licence:
    """What is known of a source's terms; stands in the manifest, is no legal advice.

    Example:
        >>> Licence(name="CC BY 4.0", note="as on its dataset card", url_hint="the authors' page").name
        'CC BY 4.0'
    """

    name: str
    """The licence, or "unverified"."""
    note: str
    """Where it was stated, what else applies (image terms), and what to check before sharing a derived set."""
    url_hint: str = ""
    """Where to look, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of a source that can be read on its own: an annotation file, or a stretch of drawn rows."""

    name: str
    """Unique within the source; joins the ids of rows that have none of their own."""
    files: tuple[Path, ...] = ()
    """Annotation files it is read from: their content decides whether a kept result still holds."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """JSON values that `rows` needs to know beside the files."""


class Adapter(Protocol):
    """Reads one raw format. Stateless: made anew in every worker."""

    licence: ClassVar[Licence]

    def parts(self, root: Path, config: SourceConfig) -> list[Part]:
        """Find what there is to read for `config.split`.

        Raises:
            DataError: Files that the format needs are missing; names them and where they come from.
            ConfigError: `config.options` holds what this adapter does not know.
        """
        ...

    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        """Read the rows of a part in a fixed order, without loading large files whole.

        A row that cannot be read is given as BadRow; nothing that stands in a file may raise. Image files are named,
        not opened.
        """
        ...
