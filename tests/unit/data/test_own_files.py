"""Files of the user's own: which ones a path names, and what becomes of them."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from orchestration.data.own_files import OwnFiles, built_rows, find_own_files
from orchestration.settings.errors import ConfigError
from rollout.dataset import write_samples
from rollout.records import Sample


def picture(number: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (56, 56), (number * 7 % 256, 40, 200)).save(data, "PNG")
    return data.getvalue()


def rows(number: int, **more: Any) -> list[dict[str, Any]]:
    return [
        {"image": f"{index}.png", "problem": f"How many of {index}?", "answer": str(index), **more}
        for index in range(number)
    ]


def written(path: Path, values: list[dict[str, Any]]) -> Path:
    """Write rows as JSON lines, with their pictures beside them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    for index in range(len(values)):
        (path.parent / f"{index}.png").write_bytes(picture(index))
    return path


def found(path: Path, role: Any = "train", **more: Any) -> OwnFiles:
    return find_own_files(path, role, columns=more.pop("columns", {}), **more)


def names(own: OwnFiles) -> list[str]:
    return [path.relative_to(own.root).as_posix() for path in own.files]


def test_a_file_is_read_from_its_own_folder(tmp_path: Path) -> None:
    own = found(written(tmp_path / "set" / "mine.txt", rows(3)))
    source = own.source("train", held_out_share=0.25)
    assert (own.root, own.form, names(own)) == (tmp_path / "set", "lines", ["mine.txt"])
    assert (source.adapter, source.path, source.held_out_share) == ("jsonl", str(tmp_path / "set"), 0.25)
    assert source.options["files"] == ["mine.txt"]
    assert source.options["mapping"]["question"] == "problem"
    assert source.options["mapping"]["answer"] == "answer"


def test_a_name_with_signs_of_patterns_is_one_file(tmp_path: Path) -> None:
    written(tmp_path / "rows1.jsonl", rows(2))
    own = found(written(tmp_path / "rows[1].jsonl", rows(3)))
    assert [path.name for path in tmp_path.glob(own.source("train").options["files"][0])] == ["rows[1].jsonl"]


@pytest.mark.parametrize(
    ("files", "train", "held_out"),
    [
        (["a.jsonl"], ["a.jsonl"], ["a.jsonl"]),
        (["train.jsonl", "test.jsonl"], ["train.jsonl"], ["test.jsonl"]),
        (["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl", "data/validation-00000-of-00001.jsonl"],
         ["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl"],
         ["data/validation-00000-of-00001.jsonl"]),
        (["train/a.jsonl", "val/a.jsonl", "test/a.jsonl"], ["train/a.jsonl"], ["val/a.jsonl"]),
        (["my_train.jsonl", "my_test.jsonl"], ["my_train.jsonl"], ["my_test.jsonl"]),
        (["training_of_trains.jsonl", "contest.jsonl"], ["training_of_trains.jsonl"], None),
        (["latest.jsonl", "contest.jsonl"], ["contest.jsonl", "latest.jsonl"], ["contest.jsonl", "latest.jsonl"]),
    ],
)  # fmt: skip
def test_of_a_folder_the_files_of_a_split_are_read(
    tmp_path: Path, files: list[str], train: list[str], held_out: list[str] | None
) -> None:
    for name in files:
        written(tmp_path / name, rows(2))
    (tmp_path / "dataset_info.json").write_text('{"features": {}}')
    (tmp_path / "notes.md").write_text("# no rows\n")
    own = found(tmp_path)
    assert names(own) == train
    assert bool(own.notes) == (len(train) < len(files))
    if held_out is None:
        with pytest.raises(ConfigError, match="none of which is for evaluation; name one behind the folder"):
            found(tmp_path, "held_out")
    else:
        assert names(found(tmp_path, "held_out")) == held_out


def test_a_split_is_named(tmp_path: Path) -> None:
    for name in ("train.jsonl", "test.jsonl"):
        written(tmp_path / name, rows(2))
    assert names(found(tmp_path, split="test")) == ["test.jsonl"]
    with pytest.raises(ConfigError, match="holds no split dev; there are test, train"):
        found(tmp_path, split="dev")


def test_files_with_other_columns_are_not_read_as_one(tmp_path: Path) -> None:
    written(tmp_path / "a.jsonl", rows(2))
    written(tmp_path / "b.jsonl", rows(2, level="hard"))
    assert names(found(tmp_path)) == ["a.jsonl", "b.jsonl"]
    (tmp_path / "c.jsonl").write_text(json.dumps({"query": "Why?", "solution": "Because.", "images": ["0.png"]}) + "\n")
    with pytest.raises(ConfigError, match=r"a\.jsonl has image, problem, answer, c\.jsonl has query, solution, images"):
        found(tmp_path)


def test_a_folder_of_save_to_disk(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([{"image": {"bytes": picture(1), "path": None}, "problem": "?", "answer": "1"}])
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        with (
            pa.OSFile(str(tmp_path / split / "data-0.arrow"), "wb") as sink,
            pa.ipc.new_stream(sink, table.schema) as out,
        ):
            out.write_table(table)
        (tmp_path / split / "cache-1.arrow").write_bytes(b"left from map()")
        (tmp_path / split / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-0.arrow"}]}))
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert names(found(tmp_path)) == ["train/data-0.arrow"]
    assert names(found(tmp_path, "held_out")) == ["test/data-0.arrow"]
    assert names(found(tmp_path / "test")) == ["data-0.arrow"]


@pytest.mark.parametrize("place", ["images", "pictures/all"])
def test_the_folder_of_images_is_found(tmp_path: Path, place: str) -> None:
    written(tmp_path / place / "x.jsonl", rows(3)).unlink()
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(3)))
    assert found(tmp_path / "rows.jsonl").source("train").options["images"] == place


def test_images_of_a_root_elsewhere(tmp_path: Path) -> None:
    written(tmp_path / "elsewhere" / "x.jsonl", rows(3)).unlink()
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(3)))
    own = found(tmp_path / "set" / "rows.jsonl", image_roots=[str(tmp_path / "elsewhere")])
    assert own.source("train").options["images"] == str(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "a.jsonl has no row that can be read: .*is empty"),
        ("a.jsonl", '{"q": "?"}'.encode("utf-16"), "UTF-16"),
        ("a.jsonl", b"PK\x03\x04 and more", "zip archive"),
        ("a.jsonl", b"[1, 2, 3]", "has no row that can be read"),
        ("a.bin", b"\x00" * 300, "has no row that can be read"),
    ],
)
def test_what_holds_no_rows_is_said(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        found(tmp_path / name)


def test_rows_of_several_folders_and_pictures_that_no_row_names_are_said(tmp_path: Path) -> None:
    written(tmp_path / "one" / "train.jsonl", rows(2))
    assert found(tmp_path).notes == ()
    written(tmp_path / "two" / "train.jsonl", rows(2))
    assert found(tmp_path).notes == ("rows of 2 folders are read together: one, two; name one of them",)
    (tmp_path / "one" / "train.jsonl").write_text('{"problem": "How many?", "answer": "3"}\n')
    assert found(tmp_path / "one").notes == (
        "rows name no pictures, and are asked without; there are some, such as 0.png; data.columns.images names them",
    )


def test_an_empty_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no file of rows"):
        found(tmp_path)


def test_a_dataset_of_ours_is_known(tmp_path: Path) -> None:
    sample = Sample(sample_id="1", source="s", task="math", question="?", answer="1")
    for role in ("train", "held_out"):
        (tmp_path / "built" / role).mkdir(parents=True)
        write_samples(tmp_path / "built" / role / "train-0.parquet", [sample])
    train = tmp_path / "built" / "train"
    assert built_rows(tmp_path / "built", "train") == train
    assert built_rows(train, "held_out") == train
    assert built_rows(train / "train-0.parquet", "train") == train / "train-0.parquet"
    pq.write_table(pa.Table.from_pylist([{"a": 1}]), tmp_path / "own.parquet")
    assert built_rows(tmp_path / "own.parquet", "train") is None
    assert built_rows(tmp_path / "not there", "train") is None
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    assert built_rows(tmp_path / "broken.parquet", "train") is None


def test_images_are_read_from_the_folder_that_the_user_names(tmp_path: Path) -> None:
    file = written(tmp_path / "set" / "mine.jsonl", rows(2))
    (tmp_path / "scans").mkdir()
    for folder in ("../scans", str(tmp_path / "scans")):
        own = found(file, columns={"images_from": folder})
        assert (own.recognised.images, own.image_roots) == (folder, [str(tmp_path / "scans")])
    (tmp_path / "set" / "scans").mkdir()
    assert found(file, columns={"images_from": "scans"}).image_roots == []
    assert found(file, columns={"images_from": "https://host/scans"}).image_roots == []
    with pytest.raises(
        ConfigError, match=rf"images_from is 'scan', and {tmp_path}/set/scan is no folder; name one from"
    ):
        found(file, columns={"images_from": "scan"})


def test_the_first_rows_of_small_files_are_recognised_together(tmp_path: Path) -> None:
    for index in range(3):
        row = {"image": f"{index}.png", "question": "A dog?", "answer": "no", "id": 7 if index else 8}
        (tmp_path / f"{index}.json").write_text(json.dumps(row))
    own = found(tmp_path)
    assert [row["image"] for row in own.rows] == ["0.png", "1.png", "2.png"]
    assert "id" not in own.recognised.mapping  # 7 twice


def test_a_path_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^{tmp_path}/rows.jsonl does not exist"):
        found(tmp_path / "rows.jsonl")
