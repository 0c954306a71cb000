"""Data in the forms that users bring, small and true to them, each with what is to be read from it.

The table of VLMEvalKit was held against vlmeval/dataset/image_base.py and docs/en/Development, and folders of
`datasets` against what that library writes.
"""

import csv
import gzip
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from tests.unit.data.own_questions import (
    COLOURS,
    NUMBER,
    Asked,
    OwnData,
    base64_of,
    cell,
    chosen,
    counted,
    lines,
    picture_files,
    squares,
    table,
    write_parquet,
    written,
)
from tests.unit.data.own_trainers import (
    easyr1_parquet,
    factory_alpaca,
    factory_sharegpt,
    llava,
    openai_messages,
    swift_grounding,
    swift_messages,
    trl_grpo,
    trl_parts,
    verl_parquet,
)

Rows = Sequence[Mapping[str, Any]]
PLAIN = {"question": "question", "answer": "answer", "images": "image", "task": NUMBER}
NUM_SHARED = 4
"""Rows of a VLMEvalKit table that have pictures of their own; the next ones name them by their index."""


def _plain(folder: Path) -> tuple[tuple[Asked, ...], list[dict[str, Any]]]:
    rows = counted()
    paths = picture_files(folder, rows)
    return rows, [
        {"id": f"own-{number}", "image": path, "question": row.question, "answer": row.answer}
        for number, (row, path) in enumerate(zip(rows, paths, strict=True))
    ]


def json_lines(folder: Path) -> OwnData:
    rows, raw = _plain(folder)
    return written(folder / "own.jsonl", lines(raw), "lines", raw, rows, PLAIN)


def json_array(folder: Path) -> OwnData:
    rows, raw = _plain(folder)
    return written(folder / "own.json", json.dumps(raw, indent=2).encode(), "array", raw, rows, PLAIN)


def lines_in_json(folder: Path) -> OwnData:
    """What `Dataset.to_json("own.json")` writes."""
    rows, raw = _plain(folder)
    return written(folder / "own.json", lines(raw), "lines", raw, rows, PLAIN)


def packed_lines(folder: Path) -> OwnData:
    rows, raw = _plain(folder)
    return written(folder / "own.jsonl.gz", gzip.compress(lines(raw), mtime=0), "lines", raw, rows, PLAIN)


def json_with_mark(folder: Path) -> OwnData:
    """A JSON array with a byte order mark, as Windows writes it."""
    rows, raw = _plain(folder)
    return written(folder / "own.json", json.dumps(raw).encode("utf-8-sig"), "array", raw, rows, PLAIN)


def utf16_lines(folder: Path) -> Path:
    """Lines in UTF-16, which are refused by name."""
    _, raw = _plain(folder)
    path = folder / "own.jsonl"
    path.write_bytes(lines(raw).decode().encode("utf-16"))
    return path


def csv_with_paths(folder: Path) -> OwnData:
    """What `DataFrame.to_csv(index=False)` writes; questions hold a comma, a line end, and quotes."""
    rows, raw = _plain(folder)
    for number, text in ((2, "Count,\nhow many squares?"), (3, 'How many "squares" are here?')):
        raw[number]["question"] = text
        rows = (*rows[:number], replace(rows[number], question=text), *rows[number + 1 :])
    return written(folder / "own.csv", _delimited(raw, ","), "table", raw, rows, PLAIN)


def _delimited(raw: Rows, delimiter: str) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(raw[0]), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(raw)
    return text.getvalue().encode()


def image_structs(folder: Path) -> OwnData:
    """A table of the hub with options and the index of the right one, from 0."""
    rows = chosen()
    path = write_parquet(folder / "train.parquet", table(_indexed(rows), image="Image"))
    return OwnData(path=path, files=(path,), kind="parquet", raw=tuple(_indexed(rows)), rows=rows, **_INDEXED)


def _indexed(rows: Sequence[Asked]) -> list[dict[str, Any]]:
    return [
        {
            "image": cell(row.images[0], "0.png" if number else None),
            "question": row.question,
            "choices": list(row.options),
            "answer": "ABC".index(row.answer),
        }
        for number, row in enumerate(rows)
    ]


_INDEXED: dict[str, Any] = {
    "mapping": {
        "question": "question",
        "options": "choices",
        "answer": "answer",
        "images": "image",
        "task": {"constant": "match_mcq"},
    },
    "answer_is": "index",
}


def hub_folder(folder: Path) -> OwnData:
    """A dataset as the hub has it: a card, and a table for each split."""
    rows = chosen()
    data = _indexed(rows)
    train = write_parquet(folder / "data" / "train-00000-of-00001.parquet", table(data, image="Image"))
    test = write_parquet(folder / "data" / "test-00000-of-00001.parquet", table(data[::-1], image="Image"))
    card = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n"
    (folder / "README.md").write_text(f"{card}  - split: test\n    path: data/test-*\n---\n", encoding="utf-8")
    return OwnData(
        path=folder, files=(train,), held_out=(test,), kind="parquet", raw=tuple(data), rows=rows, **_INDEXED
    )


def _save(folder: Path, raw: Rows, split: str) -> tuple[Path, ...]:
    """Write what `Dataset.save_to_disk` of `datasets` writes: streams of Arrow, state.json and dataset_info.json."""
    folder.mkdir(parents=True)
    content = table(raw, image="Image")
    half = content.num_rows // 2
    names = ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
    for name, piece in zip(names, (content.slice(0, half), content.slice(half)), strict=True):
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, piece.schema) as writer:
            writer.write_table(piece)
    state: dict[str, Any] = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": "0123456789abcdef",
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": split,
    }
    features = json.loads(content.schema.metadata[b"huggingface"])["info"]["features"]
    info = {"citation": "", "description": "", "features": features, "homepage": "", "license": ""}
    (folder / "state.json").write_text(json.dumps(state, indent=2, sort_keys=True), encoding="utf-8")
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=2, sort_keys=True), encoding="utf-8")
    return tuple(folder / name for name in names)


def saved_dataset(folder: Path) -> OwnData:
    rows = chosen()
    files = _save(folder / "own", _indexed(rows), "train")
    return OwnData(
        path=folder / "own", files=files, kind="arrow stream", raw=tuple(_indexed(rows)), rows=rows, **_INDEXED
    )


def saved_dict(folder: Path) -> OwnData:
    """What `DatasetDict.save_to_disk` writes."""
    rows = chosen()
    files = _save(folder / "own" / "train", _indexed(rows), "train")
    held_out = _save(folder / "own" / "test", _indexed(rows)[::-1], "test")
    (folder / "own" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}', encoding="utf-8")
    return OwnData(
        path=folder / "own",
        files=files,
        held_out=held_out,
        kind="arrow stream",
        raw=tuple(_indexed(rows)),
        rows=rows,
        **_INDEXED,
    )


def vlmevalkit_tsv(folder: Path) -> OwnData:
    """A table of VLMEvalKit: base64, options in columns, no fourth one in odd rows.

    The last rows name the picture of a row above by its index; the last of all has two pictures, as a list in Python.
    """
    rows, raw, cells = [], [], []
    for number, row in enumerate(chosen()):
        options = COLOURS if number % 2 else (*COLOURS, "none of them")
        source = number % NUM_SHARED
        images = chosen()[source].images
        encoded = base64_of(images[0])
        image = encoded if number < NUM_SHARED else str(source)
        answer = "ABC"[(source + 1) % 3]
        question = row.question if number < NUM_SHARED else f"Name the colour that {number} people see here."
        if number == len(chosen()) - 1:
            images = (images[0], squares(2, "red"))
            image = str([encoded, base64_of(images[1])])
            question, answer = "Which colour do the squares of the second picture have?", "A"
        rows.append(Asked(question=question, options=options, answer=answer, images=images, tasks=("match_mcq",)))
        columns = dict(zip("ABCD", (*options, ""), strict=False))
        values = {
            "index": str(number), "image": image, "question": question, "hint": "", **columns, "answer": answer,
            "category": "attribute", "l2-category": "colour", "split": "dev",
        }  # fmt: skip
        cells.append(values)
        shown = {name: value or None for name, value in values.items()}
        raw.append({**shown, "image": base64_of(images[0]) if len(images) == 1 else image})
    return written(folder / "Own_DEV.tsv", _delimited(cells, "\t"), "table", raw, rows, {})


def webdataset_tar(folder: Path) -> OwnData:
    """A shard of WebDataset: for each row a picture and its JSON."""
    rows = counted()
    path = folder / "own-000000.tar"
    folder.mkdir(parents=True, exist_ok=True)
    raw = []
    with tarfile.open(path, "w") as archive:
        for number, row in enumerate(rows):
            values = {"question": row.question, "answer": row.answer}
            raw.append({"__key__": f"{number:06d}", "png": row.images[0], "json": values})
            for ending, data in (("png", row.images[0]), ("json", json.dumps(values).encode())):
                member = tarfile.TarInfo(f"{number:06d}.{ending}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    mapping = {"question": "json.question", "answer": "json.answer", "images": "png", "task": NUMBER}
    return OwnData(path=path, files=(path,), kind="tar", raw=tuple(raw), rows=rows, mapping=mapping)


FORMS: dict[str, Callable[[Path], OwnData]] = {
    builder.__name__: builder
    for builder in (
        json_lines,
        json_array,
        lines_in_json,
        packed_lines,
        json_with_mark,
        csv_with_paths,
        verl_parquet,
        easyr1_parquet,
        swift_messages,
        swift_grounding,
        trl_parts,
        trl_grpo,
        factory_alpaca,
        factory_sharegpt,
        llava,
        openai_messages,
        image_structs,
        hub_folder,
        saved_dataset,
        saved_dict,
        vlmevalkit_tsv,
        webdataset_tar,
    )
}
"""By name: what writes a form into an empty folder."""
