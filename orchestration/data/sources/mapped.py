"""Adapters that read by a mapping: of the recipe (files, Hugging Face datasets) or of formats.yaml."""

import dataclasses
import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from orchestration.data.sources.answers import without_opening
from orchestration.data.sources.base import Adapter, Licence, Part, file_parts, missing, split_files
from orchestration.data.sources.fields import as_fields
from orchestration.data.sources.files import find_form, records
from orchestration.data.sources.first_rows import check_paths
from orchestration.data.sources.mapping import AnswerIs, RowMapping, build_mapping
from orchestration.data.sources.rows import BadRow, RawRow
from orchestration.data.sources.streams import BROKEN, Record, of_split, read_rows
from orchestration.settings.errors import ConfigError, DataError
from orchestration.settings.recipe import SourceConfig
from orchestration.settings.strict import build

FORMATS = Path(__file__).parent / "formats.yaml"
SAVED_LAYOUT = (
    "<split>-*.parquet here, in data/ or in the folder of a configuration (hub download), or state.json with the "
    ".arrow files it names, here or in <split>/ (save_to_disk)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of sources with a mapping in the recipe; orchestration/data/sources/mapping.py has the mapping's keys."""

    mapping: Mapping[str, Any]
    """From our fields to theirs: {question: prompt, answer: meta.answer, task: {constant: chart}}."""
    answer_is: AnswerIs = "text"
    images: str = ""
    """Folder that image paths start from; empty for the root."""
    remove_markers: bool = True
    """Put images where their markers, such as `<image>`, stand in the turns; false leaves texts as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOptions(Options):
    """Options of sources whose files the recipe names."""

    files: tuple[str, ...] = ()
    """Name patterns in the source's folder; {split} is replaced by the split. Empty: all files of the adapter's
    ending. Whatever their names, files are read by what is in them."""
    array: str = ""
    """Of JSON files that are an object with several lists: the name of the list of rows."""


class _Mapped(Adapter):
    """Reads rows by a mapping in the recipe."""

    licence = Licence(name="unverified", note="set the source's license: the format does not state its terms")
    options: type[Options] = FileOptions
    pattern = ""
    """Name pattern of the files if the recipe names none."""

    def parts(self, root: Path, config: SourceConfig) -> list[Part]:
        options = self.read_options(config)
        mapping, files = _mapping(options), self.files(root, config.split, options)
        for path in files:
            try:
                find_form(path, self.array(options))
            except ConfigError:
                raise
            except BROKEN:
                continue  # reading gives it as a broken file
        first = (record for path in files for record in records(path, self.array(options)))
        check_paths(mapping, first, is_strict=config.role == "train")
        return file_parts(root, files)

    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        options = self.read_options(config)
        mapping = _mapping(options)
        found = records(part.files[0], self.array(options))
        return read_rows(found, lambda record: [mapping.row(record, part.name)], part.name)

    def files(self, root: Path, split: str, options: Any) -> list[Path]:
        """Return the files of a split.

        Raises:
            ConfigError: A pattern leads out of the source's folder.
            DataError: There are no such files.
        """
        found: dict[Path, None] = {}
        for pattern in options.files or (self.pattern,):
            named = pattern.replace("{split}", split)
            matches = sorted(path for path in _matches(root, named) if path.is_file())
            if not matches:
                raise missing(root, named, "the files that options.files names")
            found.update(dict.fromkeys(matches))
        return list(found)

    def array(self, options: Any) -> str:
        """Return the name of the list of rows in an object."""
        return str(options.array)


def _matches(root: Path, pattern: str) -> Iterable[Path]:
    steps = Path(pattern).parts
    if not steps or Path(pattern).is_absolute() or ".." in steps or steps[0].startswith("~"):
        raise ConfigError(
            f"options.files names {pattern!r}, and files are patterns under the source's path ({root}), such as "
            f"{Path(pattern).name or '*.jsonl'}; set the source's path to the folder that holds the files"
        )
    try:
        return list(root.glob(pattern))
    except (ValueError, NotImplementedError) as error:
        raise ConfigError(f"options.files names {pattern!r}, which is no pattern: {error}") from error


class Jsonl(_Mapped):
    """Reads JSON, JSON lines, CSV, TSV, Parquet, Arrow and tars of WebDataset by a mapping.

    Raw: files that match options.files, of any ending: they are read by what is in them. JSON lines; a JSON array; an
    object with one list of rows (of several, options.array names one) or with rows by their names; CSV and the like,
    with a header; Parquet; Arrow; a tar whose files of one stem are a row, by their endings. Texts are UTF-8; gzip
    around them is unpacked. Image paths are relative to options.images. A line that is not JSON is rejected. A file
    that breaks off, is damaged or of another form gives the rows before, and a broken_file. NaN is no value.

    Conversion: options.mapping. Ids: mapping.id, which must be unique over all files; else a running number by file.

    Options: mapping (required), files, array, answer_is, images, remove_markers.
    """

    pattern = "*.jsonl"


class Parquet(_Mapped):
    """Reads Parquet by a mapping.

    Raw: files that match options.files; others than Parquet are read as by `jsonl`. An image cell is a struct of bytes
    and path, bytes, or a path relative to options.images; a list of such is several images.

    Conversion: options.mapping. Ids: mapping.id, which must be unique over all files; else a running number by file.

    Options: mapping (required), files, array, answer_is, images, remove_markers.
    """

    pattern = "*.parquet"


class HuggingFace(_Mapped):
    """Reads a dataset folder of the `datasets` library by a mapping, without that library.

    Raw, a hub download:
        `<split>-*.parquet`, `<split>.parquet` or `<split>/*.parquet`, in the root, in `data/`, or one folder down.
    Raw, what `save_to_disk` writes:
        `state.json` with `_data_files` [{filename}], those Arrow stream files, `dataset_info.json`; a DatasetDict has
        `dataset_dict.json` and this in a folder for each split.

    Class labels stay the numbers they are stored as. `save_to_disk` writes the rows that `select` or `filter` kept, so
    the files have exactly the rows of the dataset.

    Conversion: options.mapping. Ids: mapping.id, which must be unique over all files; else a running number by file.

    Options: mapping (required), answer_is, images, remove_markers.
    """

    options = Options

    def files(self, root: Path, split: str, options: Any) -> list[Path]:
        saved = next((folder for folder in (root / split, root) if (folder / "state.json").is_file()), None)
        files = _saved_files(saved) if saved else split_files(root, split)
        if not files:
            raise missing(root, f"{split}-*.parquet and no state.json", SAVED_LAYOUT)
        return files

    def array(self, options: Any) -> str:
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """One published form of a known format: its files, and the mapping that reads them."""

    mapping: Mapping[str, Any]
    """See mapping.py."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Paths of annotation files, each with the part of its rows (may be empty). Empty: the tables of the split in the
    layout of hub downloads. {split} is replaced by the split."""
    array: str = ""
    """Name of the array inside an outermost JSON object; empty if the file is the array."""
    split_field: str = ""
    """Field that names the split of a row; rows of other splits are skipped."""
    images: str = ""
    """Folder that image paths start from; {split} is replaced by the split."""
    answer_is: AnswerIs = "text"
    remove_markers: bool = False
    guards_lack_answers: bool = False
    """Accept rows without an answer if the source is a guard; otherwise they are rejected as missing_field."""
    strip_openings: bool = False
    """Remove openings such as "The image shows" from the answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """An entry of formats.yaml: a raw format whose rows a mapping converts."""

    description: str
    """Raw layout, conversion, ids and options; the first line is a summary."""
    licence: Licence
    layout: str
    """Layout of a download, for the message about missing files."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Names and defaults of options of a recipe; "{options.name}" in `downloads` is replaced by the value."""
    downloads: tuple[Mapping[str, Any], ...]
    """The first one whose files exist is read; each is a Download once its options are filled in."""


@functools.cache
def formats() -> dict[str, Format]:
    """Return the formats of formats.yaml by name."""
    found = yaml.safe_load(FORMATS.read_text(encoding="utf-8"))
    return {name: build(Format, values, name) for name, values in found.items()}


class FormatAdapter(Adapter):
    """Reads a format that formats.yaml describes."""

    def __init__(self, name: str) -> None:
        self._format = formats()[name]
        self.licence = self._format.licence

    @property
    def description(self) -> str:
        return self._format.description

    def parts(self, root: Path, config: SourceConfig) -> list[Part]:
        wanted = []
        for index, download in enumerate(self._downloads(config)):
            files = {name.replace("{split}", config.split): half for name, half in download.files.items()}
            if files:
                found = {root / name: half for name, half in files.items() if (root / name).is_file()}
                wanted.append(next(iter(files)))
            else:
                found = dict.fromkeys(split_files(root, config.split), "")
                wanted.append(f"{config.split}-*.parquet")
            if found:
                return [
                    part for path, half in found.items() for part in file_parts(root, [path], download=index, part=half)
                ]
        raise missing(root, " and no ".join(wanted), self._format.layout)

    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        download = self._downloads(config)[part.arguments["download"]]
        images = download.images.replace("{split}", config.split)
        mapping = build_mapping(download.mapping, download.answer_is, images, download.remove_markers, is_strict=True)
        needs_answer = not (download.guards_lack_answers and config.role == "guard")

        def convert(record: Record) -> list[RawRow]:
            if download.split_field:
                as_fields(record.value).text(download.split_field)
            row = mapping.row(record, part.name, needs_answer=needs_answer)
            answer = without_opening(row.answer) if download.strip_openings else row.answer
            return [dataclasses.replace(row, answer=answer, part=part.arguments["part"] or row.part)]

        found = records(part.files[0], download.array)
        return read_rows(of_split(found, config.split) if download.split_field else found, convert, part.name)

    def _downloads(self, config: SourceConfig) -> list[Download]:
        defaults = self._format.options
        fields = [(name, type(value), field(default=value)) for name, value in defaults.items()]
        options: Any = build(dataclasses.make_dataclass("Options", fields, frozen=True), config.options, "options")
        filled = _filled(self._format.downloads, {name: getattr(options, name) for name in defaults})
        return [build(Download, download, "downloads") for download in filled]


def _filled(value: Any, options: Mapping[str, Any]) -> Any:
    """Return YAML values with "{options.name}" replaced by the option's value."""
    if isinstance(value, Mapping):
        return {_filled(key, options): _filled(item, options) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_filled(item, options) for item in value]
    if isinstance(value, str):
        for name, option in options.items():
            if value == f"{{options.{name}}}":
                return option
    return value


def _mapping(options: Options) -> RowMapping:
    return build_mapping(options.mapping, options.answer_is, options.images, options.remove_markers)


def _saved_files(folder: Path) -> list[Path]:
    """Return the Arrow files that state.json names, in its order.

    Raises:
        DataError: state.json is broken, or names missing files.
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
