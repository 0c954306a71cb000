"""Reading: rows in chunks, a fixed draw, files that change between builds, image paths that leave their source."""

import json
import os
from pathlib import Path

import pytest

from orchestration.data.chunks import Chunk, ImageReader
from orchestration.data.plan import FileDigests, plan_sources
from orchestration.data.read import is_unchanged, read_image, read_sources
from orchestration.data.sources.rows import RawImage, Refused
from orchestration.settings.recipe import RecipeConfig, SourceConfig
from tests.unit.data.faults import encoded, picture

MAPPING = {"id": "id", "question": "q", "answer": "a", "images": "image", "task": {"constant": "chart"}}


def write_raw(root: Path, num_rows: int = 10, num_files: int = 2) -> None:
    folder = root / "raw" / "own"
    folder.mkdir(parents=True)
    for number in range(num_rows):
        (folder / f"{number}.png").write_bytes(encoded(picture(number, (32, 32))))
    for part in range(num_files):
        rows = [
            {"id": f"r{number}", "q": f"How tall is {number}?", "a": str(number), "image": f"{number}.png"}
            for number in range(part, num_rows, num_files)
        ]
        (folder / f"part{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def read(root: Path, *, chunk_rows: int = 3, seed: int = 0, max_rows: int | None = None) -> list[Chunk]:
    source = SourceConfig(
        adapter="jsonl", path="own", max_rows=max_rows, options={"files": ["*.jsonl"], "mapping": MAPPING}
    )
    recipe = RecipeConfig(name="own", seed=seed, sources={"own": source}, raw=str(root / "raw"), chunk_rows=chunk_rows)
    store = root / "store"
    plans = plan_sources(recipe, store, FileDigests(store / "files.json"))
    return read_sources([plan.tasks for plan in plans], map, lambda rows: None)


def ids(chunks: list[Chunk]) -> list[str]:
    return [values["row"]["source_id"] for chunk in chunks for values in chunk.rows()]


def stamps(chunks: list[Chunk]) -> dict[str, int]:
    return {chunk.folder.name: (chunk.folder / "info.json").stat().st_mtime_ns for chunk in chunks}


def test_every_row_is_read_once_with_its_image_in_chunks_of_one_part(tmp_path: Path) -> None:
    write_raw(tmp_path)
    chunks = read(tmp_path)
    assert ids(chunks) == [f"r{number}" for number in (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)]
    assert [chunk.num_rows for chunk in chunks] == [3, 2, 3, 2]
    reader = ImageReader(tmp_path / "store")
    values = list(chunks[1].rows())[1]
    place = values["row"]["images"][0]["index"]
    assert reader.read(chunks[1].address, place) == (tmp_path / "raw" / "own" / "8.png").read_bytes()


@pytest.mark.parametrize("max_rows", [1, 4, 9, 10, 50])
def test_a_draw_has_the_wished_size_and_does_not_depend_on_chunks(tmp_path: Path, max_rows: int) -> None:
    write_raw(tmp_path)
    drawn = ids(read(tmp_path, max_rows=max_rows))
    assert len(drawn) == min(10, max_rows)
    assert set(ids(read(tmp_path, max_rows=max_rows, chunk_rows=1))) == set(drawn)


def test_another_seed_draws_other_rows_and_a_larger_draw_holds_the_smaller(tmp_path: Path) -> None:
    write_raw(tmp_path)
    draws = {frozenset(ids(read(tmp_path, max_rows=4, seed=seed))) for seed in range(5)}
    assert len(draws) > 1
    assert set(ids(read(tmp_path, max_rows=4))) < set(ids(read(tmp_path, max_rows=7)))


def test_the_driver_keeps_no_list_of_the_files_that_were_read(tmp_path: Path) -> None:
    write_raw(tmp_path)
    chunks = read(tmp_path)
    assert {tuple(chunk.facts.items()) for chunk in chunks} == {(("source", "own"), ("role", "train"))}
    assert [path for path, *_ in Chunk.of(chunks[0].folder).facts["files"]] == ["0.png", "2.png", "4.png"]


def test_a_second_reading_makes_nothing_anew(tmp_path: Path) -> None:
    write_raw(tmp_path)
    before = stamps(read(tmp_path))
    assert stamps(read(tmp_path)) == before


def test_an_image_that_changed_is_read_again_and_the_other_chunks_stay(tmp_path: Path) -> None:
    write_raw(tmp_path)
    first = read(tmp_path)
    changed = tmp_path / "raw" / "own" / "3.png"
    changed.write_bytes(encoded(picture(99, (40, 40))))
    os.utime(changed, ns=(1, 1))
    second = read(tmp_path)

    digests = [(a.digest, b.digest) for a, b in zip(first, second, strict=True)]
    assert [a == b for a, b in digests] == [True, True, False, True]
    assert ids(second) == ids(first)


def test_an_annotation_file_that_changed_is_another_part(tmp_path: Path) -> None:
    write_raw(tmp_path)
    before = {chunk.folder.name for chunk in read(tmp_path)}
    file = tmp_path / "raw" / "own" / "part0.jsonl"
    file.write_text(file.read_text().replace("How tall", "How long"))
    after = {chunk.folder.name for chunk in read(tmp_path)}
    assert len(before & after) == 2
    assert len(after - before) == 2


def test_a_row_whose_image_is_gone_is_quarantined_and_the_rest_is_read(tmp_path: Path) -> None:
    write_raw(tmp_path)
    (tmp_path / "raw" / "own" / "4.png").unlink()
    chunks = read(tmp_path)
    assert "r4" not in ids(chunks)
    assert len(ids(chunks)) == 9
    gone = [row for chunk in chunks for row in chunk.rejected()]
    assert [(row["source_id"], row["reason"]) for row in gone] == [("r4", "image_missing")]


def test_a_draw_follows_every_file_of_its_source(tmp_path: Path) -> None:
    write_raw(tmp_path)
    read(tmp_path, max_rows=4)
    file = tmp_path / "raw" / "own" / "part1.jsonl"
    more = [{"id": f"m{number}", "q": f"How wide is {number}?", "a": "1", "image": "1.png"} for number in range(40)]
    file.write_text(file.read_text() + "".join(json.dumps(row) + "\n" for row in more))

    again = ids(read(tmp_path, max_rows=4))
    (tmp_path / "store").rename(tmp_path / "old store")
    assert again == ids(read(tmp_path, max_rows=4))
    assert len(again) == 4


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "source" / "images").mkdir(parents=True)
    (tmp_path / "source" / "images" / "a.png").write_bytes(b"12345")
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "source" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "source" / "inner.png").symlink_to(tmp_path / "source" / "images" / "a.png")
    return tmp_path / "source"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../secret.png", "path_outside_root"),
        ("images/../../secret.png", "path_outside_root"),
        ("/etc/passwd", "path_outside_root"),
        ("link.png", "path_outside_root"),
        ("images/b.png", "image_missing"),
        ("images", "image_missing"),
        ("a\0b.png", "image_missing"),
        ("x" * 5000, "image_missing"),
        ("", "image_missing"),
    ],
)
def test_a_path_that_leads_elsewhere_or_nowhere_is_refused(root: Path, path: str, reason: str) -> None:
    with pytest.raises(Refused) as refusal:
        read_image(root, RawImage(path=path), max_bytes=100)
    assert refusal.value.reason == reason


@pytest.mark.parametrize("path", ["../secret.png", "link.png", "ROOT/../secret.png"])
def test_links_and_absolute_paths_lead_into_folders_that_the_recipe_names(root: Path, path: str) -> None:
    image = RawImage(path=path.replace("ROOT", str(root)))
    with pytest.raises(Refused, match=rf"leads to .*; data.recipe.image_roots=\[{root.parent}\] allows"):
        read_image(root, image, max_bytes=100)
    data, stamp = read_image(root, image, 100, [str(root.parent)])
    assert data == b"secret"
    assert stamp is not None
    assert is_unchanged(root, stamp)
    with pytest.raises(Refused, match="leads to"):
        read_image(root, image, 100, [str(root / "images")])


def test_an_absolute_path_into_the_source_is_read(root: Path) -> None:
    assert read_image(root, RawImage(path=str(root / "images" / "a.png")), max_bytes=100)[0] == b"12345"


@pytest.mark.parametrize("path", ["images/a.png", "inner.png", "./images/a.png", "images/../images/a.png"])
def test_a_path_inside_gives_bytes_and_a_stamp(root: Path, path: str) -> None:
    data, stamp = read_image(root, RawImage(path=path), max_bytes=5)
    assert data == b"12345"
    assert stamp is not None
    assert is_unchanged(root, stamp)
    (root / "images" / "a.png").write_bytes(b"123456")
    assert not is_unchanged(root, stamp)


def test_an_image_file_above_the_limit_is_never_read(root: Path) -> None:
    for image in (RawImage(path="images/a.png"), RawImage(data=b"12345")):
        with pytest.raises(Refused) as refusal:
            read_image(root, image, max_bytes=4)
        assert refusal.value.reason == "image_file_too_large"


def test_a_digest_is_remembered_until_size_or_time_change(tmp_path: Path) -> None:
    file, memory = tmp_path / "a.json", tmp_path / "memory" / "files.json"
    file.write_text("one")
    digests = FileDigests(memory)
    first = digests.of(file)
    digests.save()
    assert first == "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"  # SHA-256 of "one"

    state = file.stat()
    file.write_text("two")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert FileDigests(memory).of(file) == first  # same size, same time: taken as read
    file.write_text("other")
    assert FileDigests(memory).of(file) != first
