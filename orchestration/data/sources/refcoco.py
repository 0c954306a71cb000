"""RefCOCO, RefCOCO+ and RefCOCOg: referring expressions, each with the box of one object."""

import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NoReturn

from orchestration.data.sources.base import Adapter, Licence, Part, file_parts, missing, require_file, split_files
from orchestration.data.sources.fields import (
    Fields,
    RowError,
    as_fields,
    as_numbers,
    cell_image,
    coco_id,
    file_image,
    picture_id,
    refuse,
)
from orchestration.data.sources.rows import BadRow, BoxForm, RawBox, RawImage, RawRow, RejectReason
from orchestration.data.sources.streams import (
    Record,
    Records,
    broken_file,
    json_array,
    of_split,
    parquet_rows,
    read_rows,
)
from orchestration.settings.errors import DataError
from orchestration.settings.recipe import SourceConfig

LAYOUT = (
    "<dataset>/refs(<split_by>).p, <dataset>/instances.json, images/mscoco/images/train2014/ (as in the refer repo)"
)
TABLE_LAYOUT = (
    "data/train-*.parquet (jxu124/refcoco) and coco/train2014/COCO_train2014_<12 digits>.jpg, or data/val-*.parquet "
    "(lmms-lab/RefCOCO)"
)

LICENCE = Licence(
    name="Apache-2.0 (annotations)",
    note="annotations as stated in the refer repository; the photographs are COCO's, under Flickr terms. All images "
    "are of COCO train2014, also those of val and test: everything made from COCO train leaks into them",
    url_hint="refer repository of the authors (lichengunc/refer); COCO's page",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of the authors' download."""

    dataset: Literal["refcoco", "refcoco+", "refcocog"] = "refcoco"
    split_by: Literal["unc", "google", "umd"] = "unc"
    """Author of the split; refcocog has google and umd. Images of google's train and val overlap: prefer umd."""
    images: str = "images/mscoco/images/train2014"
    """Folder of the COCO images."""
    expressions: Literal["all", "first"] = "all"
    """All expressions of an object, each a row of its own, or the first alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableOptions:
    """Options of the Parquet form."""

    images: str = ""
    """Folder that contains coco/train2014; empty for the root."""
    expressions: Literal["all", "first"] = "all"
    """All expressions of an object, each a row of its own, or the first alone."""


class RefCOCO(Adapter):
    """Reads the authors' download, one of its three datasets at a time.

    Raw: `<dataset>/refs(<split_by>).p`, a pickled list of {ref_id, ann_id, image_id, category_id, split, file_name,
    sentences: [{sent_id, sent, raw, tokens}], sent_ids}; `<dataset>/instances.json` in COCO form with `images`
    (id, file_name, width, height) and `annotations` (id, bbox xywh). Splits: train, val, testA, testB, test.

    The pickle is loaded whole (about 50 MB), without running code in it; of instances.json only the boxes and file
    names that the split needs are kept.

    Conversion: iou with one box, xywh in pixels; the expression is the question, unchanged. Ids: ref_id-sent_id.

    Options: dataset, split_by, images, expressions.
    """

    licence = LICENCE
    options = Options

    def parts(self, root: Path, config: SourceConfig) -> list[Part]:
        options = self.read_options(config)
        refs = require_file(root, f"{options.dataset}/refs({options.split_by}).p", LAYOUT)
        instances = require_file(root, f"{options.dataset}/instances.json", LAYOUT)
        load_plain_pickle(refs)
        return [Part(name=f"{options.dataset}-{options.split_by}-{config.split}", files=(refs, instances))]

    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        options = self.read_options(config)
        try:
            refs = load_plain_pickle(part.files[0])
        except DataError as error:
            yield broken_file(part.files[0], str(error))
            return
        wanted = list(of_split(_refs(part.files[0], refs), config.split))
        broken: dict[str, BadRow] = {}
        boxes = _table(part.files[1], "annotations", _keys(wanted, "ann_id"), "bbox", broken)
        names = _table(part.files[1], "images", _keys(wanted, "image_id"), "file_name", broken)
        yield from broken.values()
        yield from read_rows(iter(wanted), lambda record: _ref_rows(record, boxes, names, options), part.name)


class RefCOCOTable(Adapter):
    """Reads the Parquet forms of jxu124 and lmms-lab, each of their datasets a source of its own.

    jxu124/refcoco, refcocoplus, refcocog:
        `data/{train,validation,test,testB}-*.parquet` with `ref_id`, `image_id`, `image_path`
        ("coco/train2014/COCO_train2014_000000000110.jpg"), `bbox` (xyxy in pixels), `sentences` [{sent, sent_id, raw,
        tokens}], `captions`, `raw_anns`, `raw_image_info`, `raw_sentences`; of refcoco, `test` is testA. Images are not
        in the tables.
    lmms-lab/RefCOCO, RefCOCOplus, RefCOCOg:
        `data/{val,test,testA,testB}-*.parquet` with `question_id`, `image`, `answer` (list of the expressions), `bbox`
        (xywh in pixels), `file_name` ("COCO_train2014_000000000110.jpg"), `question` (how to describe a region, the
        same in all rows: not read), `segmentation`, `iscrowd`. Evaluation sets: role guard.

    Conversion: iou with one box in pixels; the expression is the question, unchanged. Ids: ref_id-sent_id, or
    question_id and the number of the expression.

    Options: images, expressions.
    """

    licence = LICENCE
    options = TableOptions

    def parts(self, root: Path, config: SourceConfig) -> list[Part]:
        self.read_options(config)
        files = split_files(root, config.split)
        if not files:
            raise missing(root, f"{config.split}-*.parquet", TABLE_LAYOUT)
        return file_parts(root, files)

    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        options = self.read_options(config)
        return read_rows(parquet_rows(part.files[0]), lambda record: _table_rows(record, options), part.name)


def _refs(path: Path, refs: object) -> Records:
    if not isinstance(refs, list):
        yield broken_file(path, "holds no list of references")
        return
    for index, ref in enumerate(refs):
        yield Record(str(index), ref)


def _keys(records: Iterable[Record | BadRow], name: str) -> set[int]:
    values = (record.value for record in records if isinstance(record, Record))
    found = (value.get(name) for value in values if isinstance(value, dict))
    return {value for value in found if isinstance(value, int)}


def _table(path: Path, array: str, wanted: set[int], name: str, broken: dict[str, BadRow]) -> dict[int, Any]:
    """Return one field of the wanted entries of instances.json by id; `_ref_rows` reports missing entries.

    A fault of the file goes to `broken`, once though the file is read for each of its arrays.
    """
    kept = {}
    for record in json_array(path, array):
        if isinstance(record, BadRow):
            broken.setdefault(record.source_id, record)
        value = record.value if isinstance(record, Record) else None
        number = value.get("id") if isinstance(value, dict) else None
        if isinstance(value, dict) and isinstance(number, int) and number in wanted:
            kept[number] = value.get(name)
    return kept


def _ref_rows(record: Record, boxes: dict[int, Any], names: dict[int, Any], options: Options) -> list[RawRow]:
    row = as_fields(record.value)
    row.text("split")
    annotation, image = row.integer("ann_id"), row.integer("image_id")
    if annotation not in boxes or image not in names:
        absent = f"annotation {annotation}" if annotation not in boxes else f"image {image}"
        raise RowError(RejectReason.MISSING_FIELD, f"instances.json has no {absent}")
    name = names[image]
    if not isinstance(name, str):
        refuse(f"file_name of image {image}", name, "a text")
    values = as_numbers(boxes[annotation], f"bbox of annotation {annotation}")
    return _rows(row, values, "xywh", file_image(options.images, name, coco_id(image)), options.expressions)


def _table_rows(record: Record, options: TableOptions) -> list[RawRow]:
    row = as_fields(record.value)
    if "sentences" not in row.values and "question_id" in row.values:
        return _described_rows(row, options)
    image = file_image(options.images, row.text("image_path"), coco_id(row.integer("image_id")))
    return _rows(row, as_numbers(row.raw("bbox"), "bbox"), "xyxy", image, options.expressions)


def _rows(row: Fields, values: tuple[float, ...], form: BoxForm, image: RawImage, expressions: str) -> list[RawRow]:
    sentences = row.raw("sentences")
    if not isinstance(sentences, list) or not sentences:
        refuse("sentences", sentences or None, "a list of sentences")
    rows = []
    for sentence in sentences[:1] if expressions == "first" else sentences:
        fields = as_fields(sentence)
        rows.append(
            RawRow(
                source_id=f"{row.integer('ref_id')}-{fields.integer('sent_id')}",
                task="iou",
                question=fields.text("sent"),
                images=(image,),
                boxes=(RawBox(values=values),),
                box_form=form,
            )
        )
    return rows


def _described_rows(row: Fields, options: TableOptions) -> list[RawRow]:
    """Return the rows of an object whose expressions are the answers to a request for a description."""
    number, expressions = row.label("question_id"), row.texts("answer")
    if not number or not expressions:
        refuse("answer" if number else "question_id", None, "a list of expressions")
    image = replace(cell_image(row.raw("image"), "image"), image_id=picture_id(row.text_or("file_name")))
    values = as_numbers(row.raw("bbox"), "bbox")
    return [
        RawRow(
            source_id=f"{number}-{index}",
            task="iou",
            question=expression,
            images=(image,),
            boxes=(RawBox(values=values),),
            box_form="xywh",
        )
        for index, expression in enumerate(expressions[:1] if options.expressions == "first" else expressions)
    ]


def load_plain_pickle(path: Path) -> object:
    """Load a pickle that holds only lists, tuples, sets, dicts, texts, bytes, numbers, booleans and None.

    Python 2 texts are read as UTF-8.

    Raises:
        DataError: The file is broken, or names a class or function, which could run arbitrary code.
    """
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="utf-8", errors="replace").load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle may raise anything
        raise DataError(f"{path} is no readable pickle ({type(error).__name__}: {error}); download it again") from error


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> NoReturn:
        raise DataError(
            f"the pickle names {module_name}.{global_name}; only plain containers, texts and numbers are loaded, "
            "because anything else may run a program. Get the file from its authors, or convert it to JSON"
        )

    def persistent_load(self, pid: Any) -> NoReturn:
        raise DataError("the pickle refers to objects outside it; only plain containers, texts and numbers are loaded")
