"""A share of a source held out through a whole build: rows, ids, the manifest, losses, what is refused."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from orchestration.data.losses import find_losses, read_manifest, source_table
from orchestration.data.manifest import rejection_lines
from orchestration.data.normalise import sample_id_of
from orchestration.data.plan import BuildJob
from orchestration.inputs.machine import build_config
from orchestration.settings.composition import compose
from orchestration.settings.errors import ConfigError, DataError
from orchestration.settings.recipe import RecipeConfig, SourceConfig
from tests.tiny_models import make_tiny_model
from tests.unit.data.building import build, content, plan
from tests.unit.data.faults import encoded, picture
from tests.unit.data.test_hold_out import raw_rows, write_bytes, write_paths


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    make_tiny_model(folder, corpus=["which word is number 3?"] * 3)
    return folder


def overrides(root: Path, model: Path, share: float) -> list[str]:
    mapping = "{id: id, question: q, answer: a, images: image, task: {constant: match_text}}"
    return [
        f"model.path={model}",
        f"data.recipe.raw={root / 'raw'}",
        "rollout.engine.max_model_len=512",
        "+data.recipe.sources.own={adapter: jsonl, path: own, "
        f"held_out_share: {share}, options: {{files: ['part*'], mapping: {mapping}}}}}",
        "~data.recipe.sources.demo",
        "~data.recipe.sources.demo_held_out",
    ]


def planned(root: Path, model: Path, share: float, *more: str) -> BuildJob:
    return plan(model, root, *overrides(root, model, share), *more)


@pytest.mark.parametrize("write", [write_paths, write_bytes])
def test_a_build_writes_both_sides_with_the_ids_of_the_source(tmp_path: Path, model: Path, write: Any) -> None:
    write(tmp_path, raw_rows())
    build(planned(tmp_path, model, 0.25), is_tried=False)
    found = {role: pq.read_table(tmp_path / "out" / role).to_pylist() for role in ("train", "held_out")}
    digests = {role: {row["images"][0]["sha256"] for row in rows} for role, rows in found.items()}
    assert len(found["held_out"]) == 15
    assert len(found["train"]) == 45
    assert not digests["train"] & digests["held_out"]
    assert {row["source"] for rows in found.values() for row in rows} == {"own"}
    ids = {sample_id_of("own", row["id"], row["q"]) for row in raw_rows()}
    assert {row["sample_id"] for rows in found.values() for row in rows} == ids, "as without a share"

    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    assert find_losses(manifest) == []
    lines = [line.split() for line in source_table(manifest)[1:]]
    assert lines == [["own", "train", "45", "45"], ["own", "held_out", "15", "15"]]
    funnel = {(entry["source"], entry["role"]): entry["stages"][0]["in"] for entry in manifest["funnel"]}
    assert funnel == {("own", "train"): 45, ("own", "held_out"): 15}


def test_two_builds_are_equal_to_the_byte_and_near_pictures_across_the_sides_leave_training(
    tmp_path: Path, model: Path
) -> None:
    write_paths(tmp_path, raw_rows(8, 1), num_files=1)
    for image in range(1, 8):  # a lighter copy of the first: another file, nearly the same picture
        copy = picture(0, (64, 48)).point(lambda value, step=image: min(255, value + step))
        (tmp_path / "raw" / "own" / "p" / f"{image}.png").write_bytes(encoded(copy))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "raw").symlink_to(tmp_path / "raw")
    more = ["data.recipe.deduplicate.perceptual=false"]
    for name in ("one", "two"):
        build(planned(tmp_path / name, model, 0.2, *more), is_tried=False)
    assert content(tmp_path / "one" / "out") == content(tmp_path / "two" / "out")

    manifest = read_manifest(tmp_path / "one" / "out")
    assert manifest is not None
    assert manifest["by_source"]["own"]["held_out"]["read"] == 2
    with pytest.raises(DataError, match="no training row is left; most were rejected for leaked_image"):
        build(planned(tmp_path / "one", model, 0.2, f"data.recipe.out={tmp_path / 'x'}"), is_tried=False)


def test_lines_of_reasons_count_both_sides(tmp_path: Path, model: Path) -> None:
    write_paths(tmp_path, raw_rows(), num_files=1)
    for file in (tmp_path / "raw" / "own" / "p").glob("1*.png"):
        file.write_bytes(b"no picture")
    build(planned(tmp_path, model, 0.5), is_tried=False)
    lines = rejection_lines(tmp_path / "out")
    assert [line.split(" (")[0] for line in lines] == ["own: 33 rows at validate, image_corrupt"]
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    (loss,) = find_losses(manifest)
    assert loss.message.startswith("own (train): 33 of 60 rows (55%) cannot be used, most as image_corrupt")
    assert find_losses(manifest, ["own"]) == []


def entry(read: int, kept: int, held_out: tuple[int, int], reason: str = "image_corrupt") -> dict[str, Any]:
    def half(role: str, read: int, kept: int) -> dict[str, Any]:
        one = {"stage": "validate", "reason": reason, "meaning": "m", "count": read - kept, "example": "7: x"}
        return {"role": role, "read": read, "kept": kept, "refused": [one] if read > kept else []}

    return {**half("train", read, kept), "held_out": half("held_out", *held_out)}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (entry(98, 98, (2, 2)), ""),
        (entry(98, 95, (5, 3)), ""),  # 2 of 5, and 5 of all
        (entry(90, 70, (10, 9)), "21 of 100 rows (21%) cannot be used"),
        (entry(98, 98, (2, 0)), "none of its 2 held-out rows is left, most went as image_corrupt"),
        (entry(2, 0, (98, 98)), "none of its 2 rows is left, most went as image_corrupt"),
        (entry(9, 9, (0, 0)), "none of its 9 rows is held out: held_out_share needs rows with two different images"),
        (entry(0, 0, (0, 0)), "no row was read, so it adds nothing"),
    ],
)
def test_losses_are_those_of_the_whole_source_and_either_side_may_not_be_empty(
    rows: dict[str, Any], message: str
) -> None:
    found = find_losses({"by_source": {"own": rows}})
    assert [loss.message.partition(": ")[2][: len(message)] for loss in found] == ([message] if message else [])
    assert not find_losses({"by_source": {"own": rows}}, ["own"])


@pytest.mark.parametrize("role", ["held_out", "guard"])
def test_a_share_of_rows_that_are_not_trained_on_is_refused(role: Any) -> None:
    source = SourceConfig(adapter="drawn", role=role, held_out_share=0.1)
    with pytest.raises(ConfigError, match=rf"data.recipe.sources.a.held_out_share is 0.1, and its role is {role}: "):
        RecipeConfig(name="own", seed=0, sources={"a": source, "b": SourceConfig(adapter="drawn")})


@pytest.mark.parametrize("share", [1, 1.5, -0.1])
def test_a_share_is_below_one(tmp_path: Path, model: Path, share: float) -> None:
    with pytest.raises(ConfigError, match="held_out_share"):
        planned(tmp_path, model, share)


def test_a_share_is_what_a_run_is_scored_on(tmp_path: Path, model: Path) -> None:
    assert build_config(compose(overrides(tmp_path, model, 0.02))).data.recipe is not None
    with pytest.raises(ConfigError, match=r"hold out rows of one with held_out_share: 0\.02"):
        build_config(compose(overrides(tmp_path, model, 0.0)))
