"""A source of the user's own: a function `FILE.py:NAME` that yields rows as plain dicts, named as the adapter."""

import inspect
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from conf.own_code import OwnCodeError, load_own, raised_by
from orchestration.data.sources.base import Adapter, Licence, Part, missing
from orchestration.data.sources.fields import RowError, as_answer, as_fields, refuse
from orchestration.data.sources.mapping import build_mapping
from orchestration.data.sources.rows import BadRow, RawRow, RejectReason
from orchestration.data.sources.streams import Record, Records, read_rows
from orchestration.data.sources.time_limit import OutOfTimeError, time_limit
from orchestration.settings.errors import ConfigError, DataError
from orchestration.settings.recipe import SourceConfig
from orchestration.settings.strict import unknown_key

PICTURES = {".avif", ".bmp", ".gif", ".heic", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
"""Endings of files that rows name as images; stage read compares those by size and time."""
OPTIONAL = (
    "id", "system", "history", "answer", "options", "images", "image_id", "answer_type", "boxes", "box_labels", "part",
)  # fmt: skip
MAPPING = build_mapping(
    {
        "question": "question",
        "task": "task",
        **{name: f"{name}?" for name in OPTIONAL},
        "box_form": {"first": ["box_form", {"constant": "xyxy"}]},
        "box_frame": {"first": ["box_frame", {"constant": "pixel"}]},
    }
)
ROW_KEYS = (*MAPPING.references, "metadata")
"""A row of one's own has our names already."""


class OwnSource(Adapter):
    """Reads the dicts that a function of the user's yields.

    Raw: whatever the function reads. Files below the source's path count by content where they are no pictures, so a
    changed one is read again; pictures that rows name by path count by size and time.

    Conversion: the keys of a dict are those of options.mapping; `question`, `task` and `answer` or `boxes` are needed.
    An image is a path below the source's folder, encoded bytes, or a PIL image, which is kept as PNG.
    Ids: `id`, which must be unique; else a running number, so that rows must come in the same order every time.

    Options: arguments of the function.
    """

    licence = Licence(name="unverified", note="set the source's license: its code does not state its terms")

    def __init__(self, text: str) -> None:
        """Load the function.

        Raises:
            ConfigError: There is no such function, or its code raises while it is imported.
        """
        self._text = text
        try:
            self._function: Callable[..., Any] = load_own("adapter", text)
        except OwnCodeError as error:
            raise ConfigError(str(error)) from error
        if not callable(self._function):
            raise ConfigError(f"adapter={text} is a {type(self._function).__name__}; name a function {SIGNATURE}")

    @property
    def description(self) -> str:
        return inspect.getdoc(self._function) or f"Reads rows by {self._text}."

    def read_options(self, config: SourceConfig) -> dict[str, Any]:
        options = dict(config.options)
        try:
            inspect.signature(self._function).bind(Path(), config.split, **options)
        except TypeError as error:
            raise ConfigError(
                f"adapter={self._text} cannot be called with options {', '.join(options) or '(none)'}: {error}; it is "
                f"called as {SIGNATURE}"
            ) from error
        except ValueError:
            pass  # written in C, without a signature
        return options

    def parts(self, root: Path, config: SourceConfig) -> list[Part]:
        self.read_options(config)
        if config.path is None:
            return [Part(name=config.split)]
        if not root.is_dir():
            raise missing(root, "files", f"what {self._text} reads")
        files = (path for path in root.rglob("*") if path.suffix.lower() not in PICTURES and path.is_file())
        return [Part(name=config.split, files=tuple(sorted(path for path in files if not _is_hidden(path, root))))]

    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        folder = None if config.path is None else root
        records = self._records(folder, config)
        return read_rows(records, lambda record: [own_row(record, part.name, folder)], part.name)

    def _records(self, root: Path | None, config: SourceConfig) -> Records:
        number = 0
        try:
            with time_limit(config.timeout_s):
                found = self._function(root, config.split, **self.read_options(config))
            if not isinstance(found, Iterable) or isinstance(found, (str, bytes, Mapping)):
                raise TypeError(f"it returned {type(found).__name__}; it must yield one dict a row")
            rows = iter(found)
            while True:
                with time_limit(config.timeout_s):
                    row = next(rows, _END)
                if row is _END:
                    return
                yield Record(str(number), row)
                number += 1
        except OutOfTimeError as error:
            raise DataError(
                f"adapter={self._text} hung after {number} rows: {raised_by(self._function, error)}; correct the "
                "function, or raise the source's timeout_s"
            ) from error
        except (Exception, SystemExit) as error:
            # What comes behind a failure is unknown: a dataset without it would be short in silence.
            raise DataError(
                f"adapter={self._text} failed after {number} rows: {raised_by(self._function, error)}; correct the "
                "function, or let it skip such a row"
            ) from error


_END = object()
SIGNATURE = "rows(root, split, **options), which yields one dict a row"


def own_row(record: Record, part: str, root: Path | None) -> RawRow:
    """Convert a dict of the user's to a raw row.

    Raises:
        RowError: A key is unknown, missing, or has a value of a wrong type.

    Example:
        >>> own_row(Record("0", {"question": "How many?", "answer": 3, "task": "chart"}), "train", None).answer
        '3'
    """
    values = {key: value if key == "images" else _plain(value) for key, value in as_fields(record.value).values.items()}
    for key in values:
        if key not in ROW_KEYS:
            raise RowError(
                RejectReason.UNREADABLE_ROW, unknown_key(str(key), list(ROW_KEYS), "", kind="field of a row")
            )
    images = values.get("images")
    if images is not None:
        several: Iterable[object] = [images]
        if isinstance(images, (list, tuple)) or (isinstance(images, np.ndarray) and images.dtype == object):
            several = images
        values["images"] = [_image(image, f"images[{index}]", root) for index, image in enumerate(several)]
    if values.get("id") is None:
        values["id"] = f"{part}/{record.place}"
    metadata = values.pop("metadata", None) or {}
    if not isinstance(metadata, Mapping) or not all(isinstance(name, str) for name in metadata):
        return refuse("metadata", metadata, "a dict of plain values by name")
    row = MAPPING.row(Record(record.place, values), part)
    return replace(
        row, metadata={name: as_answer(_plain(value), f"metadata.{name}") for name, value in metadata.items()}
    )


def _plain(value: object) -> object:
    """Return numbers and arrays of NumPy, as pandas and datasets give them, as those of Python."""
    if isinstance(value, np.generic):
        return value.item()
    return value.tolist() if isinstance(value, np.ndarray) else value


def _image(value: object, name: str, root: Path | None) -> object:
    """Return an image as a mapping can read it: a path below the source's folder, or its bytes and path."""
    if isinstance(value, Image.Image):
        data = io.BytesIO()
        try:
            value.save(data, format="PNG")
        except (OSError, ValueError) as error:
            raise RowError(RejectReason.IMAGE_CORRUPT, f"{name} cannot be kept as PNG: {error}") from error
        return data.getvalue()
    if isinstance(value, (str, Path)):
        path = Path(value)
        return str(path.relative_to(root)) if root is not None and path.is_relative_to(root) else str(value)
    return value


def _is_hidden(path: Path, root: Path) -> bool:
    """Return whether a file is none of the data: hidden, or compiled Python."""
    return any(step.startswith(".") or step == "__pycache__" for step in path.relative_to(root).parts)
