"""A share of a source held out: by image, whatever the order of rows, and through a whole build."""

import itertools
import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestration.data.chunks import Chunk
from orchestration.data.hold_out import NO_NAME, contains, held_out_keys, image_keys
from orchestration.data.plan import FileDigests, plan_sources
from orchestration.data.read import read_part, read_sources
from orchestration.data.sources.rows import RawImage, RawRow
from orchestration.settings.recipe import RecipeConfig, SourceConfig
from tests.unit.data.faults import encoded, picture

ROOT = Path("/raw/own")
MAPPING = {"id": "id", "question": "q", "answer": "a", "images": "image?", "task": {"constant": "match_text"}}


def keys_of(*images: RawImage, question: str = "What is it?", seed: int = 0, root: Path = ROOT) -> tuple[int, int]:
    row = RawRow(source_id="1", task="chart", question=question, images=images)
    return image_keys(row, root, seed)


def held(images: Sequence[int], share: float, names: Sequence[int] | None = None) -> list[int]:
    given = names if names is not None else [NO_NAME] * len(images)
    return held_out_keys(np.array(images, np.uint64), np.array(given, np.uint64), share).tolist()


def test_an_image_has_one_key_however_it_is_written() -> None:
    a = keys_of(RawImage(path="pictures/a.png"))
    assert a[1] == NO_NAME
    for path in ("./pictures/a.png", "pictures/../pictures/a.png", "/raw/own/pictures/a.png", "pictures//a.png"):
        assert keys_of(RawImage(path=path)) == a, path
    moved = Path("/elsewhere/own")
    assert keys_of(RawImage(path="pictures/a.png"), root=moved) == a
    assert keys_of(RawImage(path="/elsewhere/own/pictures/a.png"), root=moved) == a
    assert keys_of(RawImage(path="../own2/a.png")) == keys_of(RawImage(path="/raw/own2/a.png"))
    assert keys_of(RawImage(path="pictures/a.png"), RawImage(path="b.png"), question="other?") == a, "the first counts"
    others = [keys_of(RawImage(path="pictures/b.png")), keys_of(RawImage(path="pictures/a.png"), seed=1)]
    others += [keys_of(RawImage(data=b"pictures/a.png")), keys_of(RawImage(path="/raw/own2/pictures/a.png"))]
    assert len({a, *others}) == 5


def test_every_link_is_an_image_of_its_own() -> None:
    links = ["https://host/a.png", "https://host/b.png", "https://host/a.png?id=1", "http://host/a.png"]
    keys = [keys_of(RawImage(link=link))[0] for link in links]
    assert len({*keys, keys_of(RawImage(path="a.png"))[0]}) == 5
    assert keys_of(RawImage(link=links[0]), question="other?")[0] == keys[0]
    named = [keys_of(RawImage(link=links[0], image_id="coco/9")), keys_of(RawImage(path="9.png", image_id="coco/9"))]
    assert named[0][1] == named[1][1]


def test_names_join_images_and_questions_stand_for_rows_without() -> None:
    first, second = (keys_of(RawImage(path=path, image_id="coco/9")) for path in ("train2014/9.jpg", "val2014/9.jpg"))
    assert first[0] != second[0]
    assert first[1] == second[1] != NO_NAME
    assert keys_of(question="What  is it?\n") == keys_of(question="what is it?")
    assert keys_of(question="What is it?") != keys_of(question="What is that?")
    assert keys_of(question="lone \ud800 surrogate") != keys_of(question="")


def test_the_smallest_keys_are_held_out_until_the_share_is_nearest() -> None:
    images = [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    assert held(images, 0.3) == [10, 20, 30]
    assert held(images, 0.34) == [10, 20, 30]
    assert held(images, 0.36) == [10, 20, 30, 40]
    assert held(images, 0.001) == [10], "one at least"
    assert held(images, 0.999) == images[:-1], "one stays"
    assert held([1, 1, 2, 3, 3, 3, 4, 4], 0.5) == [1, 2], "3 rows, where 6 would be as far from 4"
    assert held([7, 9], 0.02) == [7]
    assert held([7, 7, 7], 0.5) == []
    assert held([], 0.5) == []


def test_an_image_of_more_rows_than_are_wanted_stays() -> None:
    blank = [1] * 600
    others = list(range(2, 402))
    assert held(blank + others, 0.02) == list(range(2, 22))
    assert held([1] * 99 + [2], 0.02) == [2]
    assert held([1] * 9 + [2] * 8, 0.02) == [2], "all have more: the one of the fewest rows"
    assert held([1] * 9 + [2] * 8, 0.9) == [1], "none has more, and one stays"


def test_images_of_one_name_are_held_out_together() -> None:
    # 1-2 by name 100, 2-3 by name 101: one image of three files. 4 has no name.
    images, names = [1, 2, 2, 3, 4, 5, 6], [100, 100, 101, 101, NO_NAME, 102, 103]
    assert held(images, 0.6, names) == [1, 2, 3]
    assert held(images, 0.1, names) == [4]
    chain = 2000  # each name is on two files, in random places
    files = random.Random(0).sample(range(1, chain + 1), chain)
    images = [file for pair in itertools.pairwise(files) for file in pair]
    names = [name for name in range(1, chain) for _ in range(2)]
    assert held([*images, chain + 1], 0.9999, [*names, NO_NAME]) == sorted(files)


@pytest.mark.parametrize("share", [0.01, 0.02, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(4))
def test_any_rows_are_divided_by_image_near_the_share_in_any_order(share: float, seed: int) -> None:
    draw = random.Random(seed)
    images = [draw.getrandbits(64) for _ in range(300)]
    rows = [image for image in images for _ in range(draw.choice([1, 1, 2, 5]))]
    found = held(rows, share)
    num_held = sum(row in set(found) for row in rows)
    assert abs(num_held - share * len(rows)) <= 2.5, "half of the largest image"
    draw.shuffle(rows)
    assert held(rows, share) == found


def test_sorted_keys_are_searched_to_their_ends() -> None:
    keys = np.array([3, 2**63 + 5, 2**64 - 1], np.uint64)
    assert [contains(keys, key) for key in (3, 2**63 + 5, 2**64 - 1)] == [True] * 3
    assert not any(contains(keys, key) for key in (0, 4, 2**63 + 4, 2**64 - 2))
    assert not contains(keys[:0], 3)


# Through stage read.


def raw_rows(num_images: int = 20, per_image: int = 3) -> list[dict[str, Any]]:
    return [
        {
            "id": f"r{image}.{number}",
            "q": f"Colour of {['part', 'side', 'edge'][number]} {image}?",
            "a": "red",
            "image": image,
        }
        for number in range(per_image)
        for image in range(num_images)
    ]


def write_paths(root: Path, rows: list[dict[str, Any]], num_files: int = 2) -> None:
    """As JSON lines with paths, in two spellings."""
    folder = root / "raw" / "own"
    (folder / "p").mkdir(parents=True)
    for image in {row["image"] for row in rows}:
        (folder / "p" / f"{image}.png").write_bytes(encoded(picture(image, (64, 48))))
    for part in range(num_files):
        lines = [
            json.dumps({**row, "image": f"{'./' * (place % 2)}p/{row['image']}.png"})
            for place, row in enumerate(rows[part::num_files])
        ]
        (folder / f"part{part}.jsonl").write_text("".join(line + "\n" for line in lines))


def write_bytes(root: Path, rows: list[dict[str, Any]]) -> None:
    """As Parquet with the structs of Hugging Face."""
    (root / "raw" / "own").mkdir(parents=True)
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = [{"bytes": encoded(picture(row["image"], (64, 48))), "path": f"{row['id']}.png"} for row in rows]
    columns = {key: [row[key] for row in rows] for key in ("id", "q", "a")}
    table = pa.table({**columns, "image": pa.array(images, struct)})
    pq.write_table(table, root / "raw" / "own" / "part0.parquet")


def recipe(root: Path, *, chunk_rows: int = 7, seed: int = 0, **settings: Any) -> RecipeConfig:
    options = {"files": ["part*"], "mapping": MAPPING}
    source = SourceConfig(adapter="jsonl", path="own", options=options, **settings)
    return RecipeConfig(name="own", seed=seed, sources={"own": source}, raw=str(root / "raw"), chunk_rows=chunk_rows)


def read(root: Path, **settings: Any) -> list[Chunk]:
    plans = plan_sources(recipe(root, **settings), root / "store", FileDigests(root / "store" / "files.json"))
    return read_sources([one.tasks for one in plans], map, lambda rows: None)


def divided(chunks: list[Chunk]) -> tuple[set[str], set[str]]:
    """Ids of the rows that are held out, and of the others."""
    found: dict[str, set[str]] = {"held_out": set(), "train": set()}
    for chunk in chunks:
        for row in chunk.rows():
            assert row["role"] == chunk.origin["role"]
            assert row["row"]["source_id"] not in found["held_out"] | found["train"], "every row is read once"
            found[row["role"]].add(row["row"]["source_id"])
    return found["held_out"], found["train"]


def images_of(ids: set[str]) -> Counter[str]:
    return Counter(one.split(".")[0] for one in ids)


@pytest.mark.parametrize("write", [write_paths, write_bytes])
def test_a_share_of_the_images_is_held_out_with_all_their_rows(tmp_path: Path, write: Any) -> None:
    write(tmp_path, raw_rows())
    held_out, train = divided(read(tmp_path, held_out_share=0.1))
    assert len(held_out) == 6
    assert len(train) == 54
    assert set(images_of(held_out).values()) == {3}
    assert not images_of(held_out).keys() & images_of(train).keys()
    # Neither the order of rows, nor files and chunks, nor where the folder lies change it.
    other = tmp_path / "other"
    write(other, random.Random(0).sample(raw_rows(), 60))
    assert divided(read(other, held_out_share=0.1, chunk_rows=256)) == (held_out, train)
    assert divided(read(other, held_out_share=0.1, seed=1)) != (held_out, train)


def test_rows_are_drawn_first_and_then_held_out(tmp_path: Path) -> None:
    write_paths(tmp_path, raw_rows())
    drawn = {row["row"]["source_id"] for chunk in read(tmp_path, max_rows=20) for row in chunk.rows()}
    held_out, train = divided(read(tmp_path, max_rows=20, held_out_share=0.25))
    assert held_out | train == drawn
    assert 4 <= len(held_out) <= 6
    assert not images_of(held_out).keys() & images_of(train).keys()


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_of_two_rows_one_is_held_out_and_of_one_image_none(tmp_path: Path, share: float) -> None:
    write_paths(tmp_path, raw_rows(2, 1), num_files=1)
    held_out, train = divided(read(tmp_path, held_out_share=share))
    assert (len(held_out), len(train)) == (1, 1)
    write_paths(tmp_path / "one", raw_rows(1, 2), num_files=1)
    assert divided(read(tmp_path / "one", held_out_share=share)) == (set(), {"r0.0", "r0.1"})


def test_rows_that_cannot_be_read_and_broken_files_are_told_once_on_the_side_of_training(tmp_path: Path) -> None:
    write_paths(tmp_path, raw_rows(), num_files=1)
    with (tmp_path / "raw" / "own" / "part0.jsonl").open("a") as file:
        file.write('{"id": "bad"}\n{"id": "cut')
    rejected = [row for chunk in read(tmp_path, held_out_share=0.1) for row in chunk.rejected()]
    assert [(row["reason"], row["role"]) for row in rejected] == [("missing_field", "train"), ("broken_file", "train")]


def test_an_interrupted_reading_goes_on_where_it_stopped_and_another_share_reads_anew(tmp_path: Path) -> None:
    write_paths(tmp_path, raw_rows())
    settings = recipe(tmp_path, held_out_share=0.2)

    def dying(function: Any, items: Any) -> Any:
        """The draw, and then the first two tasks."""
        for number, item in enumerate(items):
            if function is read_part and number == 2:
                raise KeyboardInterrupt
            yield function(item)

    def read_by(run: Any) -> list[Chunk]:
        plans = plan_sources(settings, tmp_path / "store", FileDigests(tmp_path / "store" / "files.json"))
        return read_sources([one.tasks for one in plans], run, lambda rows: None)

    with pytest.raises(KeyboardInterrupt):
        read_by(dying)
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "store" / "read").glob("*/info.json")}
    assert done
    chunks = read_by(map)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    names = {chunk.folder.name for chunk in chunks}
    assert names > {path.parent.name for path in done}
    assert names == {chunk.folder.name for chunk in read(tmp_path, held_out_share=0.2)}
    assert not names & {chunk.folder.name for chunk in read(tmp_path, held_out_share=0.3)}
