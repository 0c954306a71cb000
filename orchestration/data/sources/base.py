"""The interface of an adapter: it finds the raw files of a source and reads rows from them, one file at a time."""

import glob
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestration.data.sources.rows import BadRow, RawRow
from orchestration.settings.errors import ConfigError, DataError
from orchestration.settings.recipe import SourceConfig
from orchestration.settings.strict import build


@dataclass(frozen=True, slots=True, kw_only=True)
class Licence:
    """Known terms of a source, written to the manifest; not legal advice."""

    name: str
    """The licence, or "unverified"."""
    note: str
    """Where it is stated, what else applies (image terms), and what to check before sharing a derived set."""
    url_hint: str = ""
    """Where to look, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The unit of a source that one task reads: an annotation file, or all drawn rows of a split."""

    name: str
    """Unique within the source; prefix of the ids of rows that have none of their own."""
    files: tuple[Path, ...] = ()
    """Its annotation files; cached results are reused while their content is the same."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Further arguments of `rows`, as JSON values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoOptions:
    """Options of an adapter that has none."""


class Adapter(ABC):
    """Reads one raw format. Stateless: created again in every worker."""

    licence: Licence
    options: type[Any] = NoOptions
    """Dataclass of the options that a recipe may set for this adapter."""

    def read_options(self, config: SourceConfig) -> Any:
        """Return the options of a source.

        Raises:
            ConfigError: An option is unknown or has a wrong type.
        """
        return build(self.options, config.options, "options")

    @property
    def description(self) -> str:
        """Raw layout, conversion, ids and options; the first line is a summary."""
        return inspect.getdoc(type(self)) or ""

    @abstractmethod
    def parts(self, root: Path, config: SourceConfig) -> list[Part]:
        """Find the parts of `config.split`.

        Raises:
            DataError: Files are missing; names them and the expected layout.
            ConfigError: `config.options` has an unknown key or value.
        """

    @abstractmethod
    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        """Read the rows of a part in a fixed order, without loading large files into memory.

        A row that cannot be read is returned as BadRow; no content of a file may raise. Image files are not opened.
        """


def missing(root: Path, expected: str, layout: str) -> DataError:
    """Return the error that names the missing files of a source and the layout of its download."""
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
    """Return the files of one split in the layout of hub downloads, sorted by name.

    These are `train-00000-of-00003.parquet`, `train.parquet` or `train/0000.parquet`, in the root or one folder down.
    """
    if not split:
        return []
    name = glob.escape(split)
    found: set[Path] = set()
    for pattern in (f"{name}-*{suffix}", f"{name}{suffix}", f"{name}/*{suffix}"):
        found.update(path for path in [*root.glob(pattern), *root.glob(f"*/{pattern}")] if path.is_file())
    return sorted(found)


def file_parts(root: Path, files: Iterable[Path], **arguments: object) -> list[Part]:
    """Return one part for each file, named by its path without suffix.

    Raises:
        ConfigError: A file is not under the source's folder.
    """
    files = list(files)
    for path in files:
        if not path.is_relative_to(root) or ".." in path.relative_to(root).parts:
            raise ConfigError(f"{path} is not under the source's path ({root}); name files from there")
    return [
        Part(name=path.relative_to(root).with_suffix("").as_posix(), files=(path,), arguments=dict(arguments))
        for path in files
    ]
