"""Splits of a dataset's folder, by its card or its names, and the folder that its pictures may lie in."""

from pathlib import Path

import pytest

from orchestration.data.read import read_image
from orchestration.data.sources.files import records
from orchestration.data.sources.references import field_value
from orchestration.data.sources.rows import RawImage, Refused, RejectReason
from orchestration.data.sources.splits import card_splits, files_of_split, image_root, named_split, path_of_split
from orchestration.data.sources.streams import Record
from orchestration.settings.errors import ConfigError
from tests.unit.data.own_forms import hub_folder, json_lines, saved_dataset, saved_dict
from tests.unit.data.own_questions import NUM_ROWS, counted

CARD = """---
configs:
- config_name: other
  data_files:
  - split: test
    path: other/*.parquet
- config_name: default
  data_files:
  - split: test
    path: [data/a-*.parquet, data/b.parquet]
- config_name: pair
  data_files:
  - {split: test, path: [data/a-0.parquet, data/c.parquet]}
- config_name: lines
  data_files: rows/*.jsonl
---
# A dataset
"""


def made(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}", encoding="utf-8")
    return folder


def found(folder: Path, split: str, inside: str = "") -> list[str]:
    return [path.relative_to(folder).as_posix() for path in files_of_split(folder, split, inside)]


@pytest.mark.parametrize(
    ("names", "split", "files"),
    [
        (["data/train-00000-of-00002-1a2b.parquet", "data/test-00000-of-00001.parquet"], "test", 1),
        (
            ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/testA-0.parquet"],
            "train",
            2,
        ),
        (["train.jsonl", "val.jsonl", "images/train.png"], "train", 1),
        (["train/0.tar", "train/1.tar", "test/0.tar"], "train", 2),
        (["sub/data/test/0000.parquet", "sub/data/train/0000.parquet"], "test", 1),
        (["qa_train_v1.jsonl.gz", "qa_test_v1.jsonl.gz"], "test", 1),
        (["train.csv", "train_extra.csv"], "train", 1),
    ],
)
def test_a_split_is_found_by_the_names_of_its_files(names: list[str], split: str, files: int, tmp_path: Path) -> None:
    got = found(made(tmp_path, *names), split)
    assert len(got) == files
    assert all(split in name for name in got)


def test_a_split_that_is_not_there_or_there_twice_is_refused_with_what_there_is(tmp_path: Path) -> None:
    made(tmp_path, "data/train-0-of-1.parquet", "data/testA-0-of-1.parquet", "state.txt", "images/test.png")
    with pytest.raises(ConfigError, match=r"holds no split test; there are testA, train$"):
        files_of_split(tmp_path, "test")
    with pytest.raises(ConfigError, match=r"holds no split train, nor any file of rows"):
        files_of_split(tmp_path / "images", "train")
    made(tmp_path, "other/train-0-of-1.parquet")
    with pytest.raises(ConfigError, match=r"the split train several times, in data/\*.parquet, other/\*.parquet; name"):
        files_of_split(tmp_path, "train")
    assert found(tmp_path, "train", "other") == ["other/train-0-of-1.parquet"]
    made(tmp_path / "two", "train.json", "train.csv")
    with pytest.raises(ConfigError, match=r"several times, in \./\*.csv, \./\*.json|several times"):
        files_of_split(tmp_path / "two", "train")


def test_the_card_of_a_dataset_says_which_files_are_a_split(tmp_path: Path) -> None:
    made(tmp_path, "data/a-0.parquet", "data/b.parquet", "data/b/c.parquet", "data/c.parquet", "other/test.parquet")
    made(tmp_path, "rows/own.jsonl")
    (tmp_path / "README.md").write_text(CARD, encoding="utf-8")
    assert found(tmp_path, "test") == ["data/a-0.parquet", "data/b.parquet"]
    assert found(tmp_path, "test", "other") == ["other/test.parquet"]
    assert found(tmp_path, "train", "lines") == ["rows/own.jsonl"]
    assert path_of_split(tmp_path, "test") == f"{tmp_path}:test"
    with pytest.raises(ConfigError, match=r"no path names test of .*/pair alone; name its files in a recipe"):
        path_of_split(tmp_path, "test", "pair")


SILENT = [
    "",
    "# A dataset\n",
    "---\nconfigs: [1, {data_files: 3}]\n---\n",
    "---\n{\n---\n",
    "---\nday: 2026-13-45\n---\n",
]


@pytest.mark.parametrize("text", SILENT)
def test_a_card_that_says_nothing_of_splits_names_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    assert card_splits(tmp_path) == []
    assert card_splits(tmp_path / "nowhere") == []


def test_own_forms_with_splits_are_found(tmp_path: Path) -> None:
    hub, both, one = hub_folder(tmp_path / "hub"), saved_dict(tmp_path / "dict"), saved_dataset(tmp_path / "one")
    for own in (hub, both):
        assert files_of_split(own.path, "train") == list(own.files)
        assert files_of_split(own.path, "test") == list(own.held_out)
    made(both.path / "test", "cache-1a2b.arrow")  # what `map` of `datasets` leaves behind
    assert files_of_split(both.path, "test") == list(both.held_out)
    assert files_of_split(one.path, "train") == list(one.files)
    assert path_of_split(hub.path, "test") == str(hub.held_out[0])
    assert path_of_split(both.path, "test") == str(both.path / "test")
    with pytest.raises(ConfigError, match=r"there are test, train$"):
        files_of_split(both.path, "validation")


def test_shards_beside_those_of_other_splits_are_named_with_the_split(tmp_path: Path) -> None:
    made(tmp_path, *(f"data/{split}-0000{shard}-of-00002.parquet" for split in ("train", "test") for shard in (0, 1)))
    value = path_of_split(tmp_path, "test")
    assert value == f"{tmp_path}:test"
    folder, split = named_split(value)
    assert found(Path(folder), split) == ["data/test-00000-of-00002.parquet", "data/test-00001-of-00002.parquet"]


def test_a_split_behind_a_path_is_told_from_a_name_with_a_colon(tmp_path: Path) -> None:
    made(tmp_path, "saved/train.jsonl", "odd:name/train.jsonl")
    for value in (*(f"{tmp_path}/{name}" for name in ("saved", "odd:name", "saved/train.jsonl:test")), "x:test", ":"):
        assert named_split(value) == (value, "")
    assert named_split(f"{tmp_path}/odd:name:test") == (f"{tmp_path}/odd:name", "test")
    assert named_split(f"{tmp_path}/saved:a/b") == (f"{tmp_path}/saved:a/b", "")


def linked(cache: Path, source: Path) -> Path:
    """Lay out a folder as the hub's cache does: a snapshot of links into `blobs`."""
    repository = cache / "datasets--ORG--NAME"
    snapshot = repository / "snapshots" / "1a2b"
    (repository / "blobs").mkdir(parents=True)
    for number, path in enumerate(sorted(path for path in source.rglob("*") if path.is_file())):
        (repository / "blobs" / f"{number:040x}").write_bytes(path.read_bytes())
        link = snapshot / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        up = "../" * (len(path.relative_to(source).parts) + 1)
        link.symlink_to(f"{up}blobs/{number:040x}")
    return snapshot


def test_pictures_of_a_snapshot_are_read_through_its_links_and_no_others(tmp_path: Path) -> None:
    own = json_lines(tmp_path / "own")
    snapshot = linked(tmp_path / "hub", own.path.parent)
    (rows,) = files_of_split(snapshot, "own")
    assert rows.is_symlink()
    root = image_root(rows)
    assert root == tmp_path / "hub" / "datasets--ORG--NAME" == image_root(snapshot) == image_root(snapshot / "pictures")
    images = [field_value(record.value, ["image"]) for record in records(rows) if isinstance(record, Record)]
    assert len(images) == NUM_ROWS
    read = [read_image(snapshot, RawImage(path=str(path)), 10_000, [str(root)])[0] for path in images]
    assert read == [row.images[0] for row in counted()]

    with pytest.raises(Refused) as caught:
        read_image(snapshot, RawImage(path=str(images[0])), 10_000)
    assert caught.value.reason is RejectReason.PATH_OUTSIDE_ROOT
    (tmp_path / "secret.png").write_bytes(read[0])
    for path in ("../../../../secret.png", "out.png", str(tmp_path / "secret.png")):
        if path == "out.png":
            (snapshot / path).symlink_to(tmp_path / "secret.png")
        with pytest.raises(Refused) as caught:
            read_image(snapshot, RawImage(path=path), 10_000, [str(root)])
        assert caught.value.reason is RejectReason.PATH_OUTSIDE_ROOT


def test_the_pictures_of_other_datasets_lie_in_their_own_folder(tmp_path: Path) -> None:
    made(tmp_path, "a/snapshots/1/rows.jsonl")
    assert image_root(tmp_path / "a" / "snapshots" / "1") == tmp_path / "a" / "snapshots" / "1"
    assert image_root(tmp_path / "a" / "snapshots" / "1" / "rows.jsonl") == tmp_path / "a" / "snapshots" / "1"
