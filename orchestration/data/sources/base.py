"""The interface of an adapter: it finds the raw files of a source and reads rows from them, one file at a time."""

import glob
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestration.data.sources.rows import BadRow, RawRow
from orchestration.settings.errors import DataError
from orchestration.settings.recipe import SourceConfig
from orchestration.settings.strict import build


@dataclass(frozen=True, slots=True, kw_only=True)
class Licence:
    """What is known of a source's terms; written to the manifest, not legal advice."""

    name: str
    """The licence, or "unverified"."""
    note: str
    """Where it was stated, what else applies (image terms), and what to check before sharing a derived set."""
    url_hint: str = ""
    """Where to look, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of a source that is read by one task: an annotation file, or all drawn rows of a split."""

    name: str
    """Unique within the source; prefixes the ids of rows that have none of their own."""
    files: tuple[Path, ...] = ()
    """Annotation files it is read from; cached results are valid as long as their content is the same."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """JSON values that `rows` needs besides the files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoOptions:
    """Of an adapter without options."""


class Adapter(ABC):
    """Reads one raw format. Stateless: made anew in every worker."""

    licence: Licence
    options: type[Any] = NoOptions
    """Dataclass of what a recipe may set for this adapter alone."""

    def read_options(self, config: SourceConfig) -> Any:
        """Return the options of a source.

        Raises:
            ConfigError: an option is not known, or of another type.
        """
        return build(self.options, config.options, "options")

    @property
    def description(self) -> str:
        """Raw layout, conversion, ids and options; the first line is a summary."""
        return inspect.getdoc(type(self)) or ""

    @abstractmethod
    def parts(self, root: Path, config: SourceConfig) -> list[Part]:
        """Find what there is to read for `config.split`.

        Raises:
            DataError: Files that the format needs are missing; names them and the expected layout.
            ConfigError: `config.options` has a key or value that this adapter does not know.
        """

    @abstractmethod
    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        """Read the rows of a part in a fixed order, without loading large files whole.

        A row that cannot be read is returned as BadRow; no content of a file may raise. Image files are named, not
        opened.
        """


def missing(root: Path, expected: str, layout: str) -> DataError:
    """Return the error that names the files a source lacks and how its download is laid out."""
    state = "" if root.is_dir() else " (the folder does not exist)"
    return DataError(f"{root}{state} holds no {expected}; expected layout: {layout}. Check the source's path and split")


def require_file(root: Path, name: str, layout: str) -> Path:
    """Return `root/name`.

    Raises:
        DataError: The file does not exist.
    """
    if not (root / name).is_file():
        raise missing(root, name, layout)
    return root / name


def split_files(root: Path, split: str, suffix: str = ".parquet") -> list[Path]:
    """Return the files of one split as hub downloads lay them out, sorted by name.

    `train-00000-of-00003.parquet`, `train.parquet` or `train/0000.parquet`, in the root, in `data/`, or in the folder
    of a configuration.
    """
    if not split:
        return []
    name = glob.escape(split)
    found: set[Path] = set()
    for pattern in (f"{name}-*{suffix}", f"{name}{suffix}", f"{name}/*{suffix}"):
        found.update(path for path in [*root.glob(pattern), *root.glob(f"*/{pattern}")] if path.is_file())
    return sorted(found)


def file_parts(root: Path, files: Iterable[Path], **arguments: object) -> list[Part]:
    """Return one part for each file, named by its path without suffix."""
    return [
        Part(name=path.relative_to(root).with_suffix("").as_posix(), files=(path,), arguments=dict(arguments))
        for path in files
    ]
