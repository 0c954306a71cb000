"""Sources without an adapter of their own: JSON lines, Parquet, Hugging Face datasets, read by a mapping."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from orchestration.data.rows.records import BadRow, RawRow
from orchestration.data.sources.base import Licence, Part
from orchestration.data.sources.files import file_parts, missing, split_files
from orchestration.data.sources.mapping import AnswerIs, RowMapping, build_mapping
from orchestration.data.sources.streams import Records, arrow_rows, json_array, json_lines, parquet_rows, read_rows
from orchestration.settings.errors import DataError
from orchestration.settings.recipe import SourceConfig
from orchestration.settings.strict import build

SAVED_LAYOUT = (
    "<split>-*.parquet here, in data/ or in the folder of a configuration (hub download), or state.json with the "
    ".arrow files it names, here or in <split>/ (save_to_disk)"
)
UNKNOWN_TERMS = Licence(name="unverified", note="set the source's license: the format says nothing about its terms")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What sources with a mapping understand; orchestration/data/sources/mapping.py has the keys of `mapping`."""

    mapping: Mapping[str, Any]
    """Our fields from theirs: {question: prompt, answer: meta.answer, task: {constant: chart}}."""
    answer_is: AnswerIs = "text"
    images: str = ""
    """Folder that image paths start from; empty for the root."""
    remove_markers: bool = True
    """Take `<image>` markers out of the questions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonlOptions(Options):
    """What JSON sources understand beside that."""

    files: tuple[str, ...] = ("*.jsonl",)
    """Name patterns under the source's folder; {split} stands for the split. Files that end in .json are arrays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetOptions(Options):
    """What Parquet sources understand beside that."""

    files: tuple[str, ...] = ("*.parquet",)
    """Name patterns under the source's folder; {split} stands for the split."""


class Jsonl:
    """Reads JSON lines, or JSON arrays, by a mapping.

    Raw: files that match options.files, one JSON object a line (any ending) or one array a file (ending .json).
    Image paths are relative to options.images. A line that is no JSON is rejected and the next one read; NaN is read
    as a number and refused later.

    Conversion: options.mapping. Ids: mapping.id, which must be unique over all files; else a running number by file.

    Options: mapping (required), files, answer_is, images, remove_markers.
    """

    licence: ClassVar[Licence] = UNKNOWN_TERMS

    def parts(self, root: Path, config: SourceConfig) -> list[Part]:
        """Find the files of the patterns; see Adapter."""
        options = build(JsonlOptions, config.options, "options")
        _mapping(options)
        return file_parts(root, _matching(root, options.files, config.split))

    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        """Read one file; see Adapter."""
        path = part.files[0]
        records = json_array(path) if path.suffix == ".json" else json_lines(path)
        return _rows(records, part, _mapping(build(JsonlOptions, config.options, "options")))


class Parquet:
    """Reads Parquet by a mapping.

    Raw: files that match options.files. An image cell is a struct of bytes and path, bytes, or a path relative to
    options.images; a list of such is several images.

    Conversion: options.mapping. Ids: mapping.id, which must be unique over all files; else a running number by file.

    Options: mapping (required), files, answer_is, images, remove_markers.
    """

    licence: ClassVar[Licence] = UNKNOWN_TERMS

    def parts(self, root: Path, config: SourceConfig) -> list[Part]:
        """Find the files of the patterns; see Adapter."""
        options = build(ParquetOptions, config.options, "options")
        _mapping(options)
        return file_parts(root, _matching(root, options.files, config.split))

    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        """Read one file; see Adapter."""
        return _rows(parquet_rows(part.files[0]), part, _mapping(build(ParquetOptions, config.options, "options")))


class HuggingFace:
    """Reads a dataset folder of the `datasets` library by a mapping, without that library.

    Raw, a hub download:
        `<split>-*.parquet`, `<split>.parquet` or `<split>/*.parquet`, in the root, in `data/`, or one folder down.
    Raw, what `save_to_disk` writes:
        `state.json` with `_data_files` [{filename}], those Arrow stream files, `dataset_info.json`; a DatasetDict has
        `dataset_dict.json` and this in a folder for each split.

    Class labels stay the numbers they are stored as. Rows that `select` or `filter` left behind as indices are saved
    flat by `save_to_disk`, so files hold what the dataset held.

    Conversion: options.mapping. Ids: mapping.id, which must be unique over all files; else a running number by file.

    Options: mapping (required), answer_is, images, remove_markers.
    """

    licence: ClassVar[Licence] = UNKNOWN_TERMS

    def parts(self, root: Path, config: SourceConfig) -> list[Part]:
        """Find the tables of the split; see Adapter."""
        _mapping(build(Options, config.options, "options"))
        saved = next((folder for folder in (root / config.split, root) if (folder / "state.json").is_file()), None)
        files = _saved_files(saved) if saved else split_files(root, config.split)
        if not files:
            raise missing(root, f"{config.split}-*.parquet and no state.json", SAVED_LAYOUT)
        return file_parts(root, files)

    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        """Read one table; see Adapter."""
        path = part.files[0]
        records = arrow_rows(path) if path.suffix == ".arrow" else parquet_rows(path)
        return _rows(records, part, _mapping(build(Options, config.options, "options")))


def _mapping(options: Options) -> RowMapping:
    return build_mapping(options.mapping, options.answer_is, options.images, options.remove_markers)


def _rows(records: Records, part: Part, mapping: RowMapping) -> Iterator[RawRow | BadRow]:
    return read_rows(records, lambda record: [mapping.row(record, part.name)], part.name)


def _matching(root: Path, patterns: tuple[str, ...], split: str) -> list[Path]:
    found: dict[Path, None] = {}
    for pattern in patterns:
        named = pattern.replace("{split}", split)
        matches = sorted(path for path in root.glob(named) if path.is_file())
        if not matches:
            raise missing(root, named, "the files that options.files names")
        found.update(dict.fromkeys(matches))
    return list(found)


def _saved_files(folder: Path) -> list[Path]:
    """Give the Arrow files that state.json names, in its order.

    Raises:
        DataError: state.json is broken, or names files that are not there.
    """
    try:
        names = [entry["filename"] for entry in json.loads((folder / "state.json").read_bytes())["_data_files"]]
        files = [folder / Path(name).name for name in names]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / 'state.json'} names no data files ({error!r}); save the dataset again") from error
    absent = [path.name for path in files if not path.is_file()]
    if absent:
        raise missing(folder, ", ".join(absent), SAVED_LAYOUT)
    return files
