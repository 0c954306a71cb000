"""A build: the same bytes whoever stops it and wherever, and a result that a run can read."""

import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from orchestration.data import publish
from orchestration.data.chunks import Chunk, ChunkWriter
from orchestration.data.measure import Ruler, prompt_builder
from orchestration.settings.errors import DataError
from rollout.conversation import PromptSpec
from rollout.dataset import SampleTable
from tests.tiny_models import make_tiny_model
from tests.unit.data.building import build, content, plan
from tests.unit.data.faults import encoded, picture

FORK = multiprocessing.get_context("fork")
BANDS = (
    "data.recipe.difficulty.enabled=true",
    "+data.recipe.select.bands={matching: {}, chart: {}, grounding: {}, open_ended: {}}",
    "+data.recipe.select.strata={hard: [0.0, 0.5], easy: [0.5, 1.0]}",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    make_tiny_model(folder, corpus=["where is the red oval?"] * 3)
    prompt_builder(Ruler(model=folder, spec=PromptSpec(), max_images=1, max_prompt_tokens=192))  # before any fork
    return folder


@pytest.fixture(scope="module")
def reference(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("reference")
    build(plan(model, root, *BANDS))
    return content(root / "out")


def test_two_builds_from_nothing_are_byte_identical(model: Path, reference: Any, tmp_path: Path) -> None:
    build(plan(model, tmp_path, *BANDS))
    assert content(tmp_path / "out") == reference
    assert set(reference) == {
        "manifest.json",
        "page.html",
        "held_out/held_out-00000-of-00001.parquet",
        *(name for name in reference if name.startswith("train/train-0000")),
    }


@pytest.mark.parametrize("num_done", [0, 1])
@pytest.mark.parametrize(
    "stage", ["read", "validate", "normalise", "deduplicate", "measure", "sample", "select", "write"]
)
def test_a_build_that_is_killed_in_a_stage_ends_with_the_same_bytes(
    stage: str, num_done: int, model: Path, reference: Any, tmp_path: Path
) -> None:
    killed = FORK.Process(target=build_until, args=(stage, num_done, model, tmp_path))
    killed.start()
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "data").glob("*/*/info.json")}
    assert not (tmp_path / "out").exists()

    build(plan(model, tmp_path, *BANDS))
    assert content(tmp_path / "out") == reference
    assert {path: path.stat().st_mtime_ns for path in before} == before, "finished chunks are not made again"


def build_until(stage: str, num_done: int, model: Path, root: Path) -> None:
    """Build, and die without a word after so many chunks of a stage, in the middle of the next."""
    left = [num_done]

    def die_at(finish: Any, is_stage: Any) -> Any:
        def counted(*arguments: Any, **more: Any) -> Any:
            if is_stage(*arguments):
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
            return finish(*arguments, **more)

        return counted

    ChunkWriter.finish = die_at(  # type: ignore[method-assign]
        ChunkWriter.finish, lambda writer, *_: writer.address.startswith(f"{stage}/")
    )
    if stage == "write":
        publish.write_rows = die_at(publish.write_rows, lambda *_: True)
    build(plan(model, root, *BANDS))


def test_the_result_is_what_the_manifest_says(model: Path, tmp_path: Path) -> None:
    job = plan(model, tmp_path, *BANDS)
    build(job)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    train, held_out = SampleTable(tmp_path / "out" / "train"), SampleTable(tmp_path / "out" / "held_out")

    assert manifest["key"] == job.key
    assert (len(train), len(held_out)) == (
        manifest["result"]["train"]["num_rows"],
        manifest["result"]["held_out"]["num_rows"],
    )
    reasons = {row["reason"]: row["count"] for row in manifest["rejected"] if row["source"].startswith("demo/")}
    assert {"all_right", "all_wrong"} <= set(reasons)
    assert len({train[index].sample_id for index in range(len(train))}) == len(train) > 20  # more than one shard
    for index in range(len(train)):
        sample = train[index]
        assert sample.difficulty is not None
        assert 0.0 < sample.difficulty.pass_rate < 1.0
        assert sample.stratum == ("hard" if sample.difficulty.mean < 0.5 else "easy")
        assert sample.prompt_tokens is not None
        assert sample.image_tokens == 16
        assert sample.license == "Apache-2.0"
    assert held_out[0].difficulty is None


@pytest.mark.parametrize(
    ("change", "is_new"),
    [
        ("rollout.sampling.temperature=0.5", True),
        ("reward.chart.tolerance=0.01", True),
        ("data.recipe.difficulty.num_completions=3", True),
        ("data.recipe.seed=5", True),
        ("data.recipe.num_workers=7", False),
        ("training.num_steps=9", False),
    ],
)
def test_what_was_tried_is_tried_again_only_where_it_could_come_out_otherwise(
    model: Path, tmp_path: Path, change: str, is_new: bool
) -> None:
    before, after = plan(model, tmp_path, *BANDS), plan(model, tmp_path, *BANDS, change)
    assert (before.policy != after.policy) == is_new
    assert (before.key != after.key) == is_new


def test_what_was_tried_is_tried_again_with_changed_code_of_a_reward_wherever_it_lies(
    model: Path, tmp_path: Path
) -> None:
    code = "def score(request, least=0):\n    return 1.0\n"
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(code)

    def planned(folder: str, *more: str) -> Any:
        own = f"reward.functions.mine.path={tmp_path / folder / 'mine.py'}:score"
        return plan(model, tmp_path, own, "reward.routes.chart=mine", *more)

    first, plain = planned("here", *BANDS), planned("here")
    assert planned("there", *BANDS).key == first.key
    assert planned("there", *BANDS).policy == first.policy
    least = planned("here", "+reward.functions.mine.parameters.least=1", *BANDS)
    assert least.policy != first.policy
    (tmp_path / "here" / "mine.py").write_text(code.replace("1.0", "0.5"))
    assert planned("here", *BANDS).policy != first.policy
    assert planned("here", *BANDS).key != first.key
    assert planned("here").key == plain.key, "without a try no function of one's own is asked"
    (tmp_path / "here" / "mine.py").unlink()
    build(first)
    assert (tmp_path / "out" / "manifest.json").is_file()


def test_images_can_lie_in_files_beside_the_shards(model: Path, tmp_path: Path) -> None:
    build(plan(model, tmp_path, "data.recipe.shards.images=paths"), is_tried=False)
    train = SampleTable(tmp_path / "out" / "train")
    files = {path.read_bytes() for path in (tmp_path / "out" / "train" / "images").glob("*/*.png")}
    assert {train[index].images[0].data for index in range(len(train))} == files


def test_a_recipe_that_keeps_nothing_says_what_became_of_its_rows(model: Path, tmp_path: Path) -> None:
    job = plan(model, tmp_path, "data.recipe.measure.max_prompt_tokens=5")
    with pytest.raises(
        DataError, match=r"no training row is left; most were rejected for prompt_too_long \(measure\) x"
    ):
        build(job, is_tried=False)


def test_a_changed_setting_makes_its_stage_and_those_behind_it_anew_and_no_other(model: Path, tmp_path: Path) -> None:
    build(plan(model, tmp_path, "data.recipe.out=" + str(tmp_path / "one")), is_tried=False)
    count = {stage: len(chunks_of(tmp_path, stage)) for stage in ("read", "validate", "deduplicate", "measure")}
    changed = f"data.recipe.out={tmp_path / 'two'}", "data.recipe.deduplicate.max_rows_per_image=1"
    build(plan(model, tmp_path, *changed), is_tried=False)

    assert {stage: len(chunks_of(tmp_path, stage)) for stage in ("read", "validate")} == {
        stage: count[stage] for stage in ("read", "validate")
    }
    assert len(chunks_of(tmp_path, "deduplicate")) == 2 * count["deduplicate"]


def chunks_of(root: Path, stage: str) -> list[Chunk]:
    found = [Chunk.open(folder) for folder in (root / "cache" / "data" / stage).iterdir() if folder.is_dir()]
    return [chunk for chunk in found if chunk is not None]


def test_rows_of_several_files_and_sources_with_one_id_are_distinct(model: Path, tmp_path: Path) -> None:
    """Ids of two files, of two sources with one label, and one that looks as if it had been numbered."""
    for folder, file, rows in (
        ("one", "a", [("7", "red"), ("7", "green"), ("7#2", "grey")]), ("one", "b", [("7", "blue")]),
        ("two", "a", [("7", "pink")]),
    ):  # fmt: skip
        (tmp_path / "raw" / folder).mkdir(parents=True, exist_ok=True)
        for number in range(len(rows)):
            drawn = encoded(picture(len(list(tmp_path.rglob("*.png"))), (56, 56)))
            (tmp_path / "raw" / folder / f"{file}{number}.png").write_bytes(drawn)
        lines = [
            json.dumps({"id": own, "q": "Which colour?", "a": answer, "image": f"{file}{number}.png"})
            for number, (own, answer) in enumerate(rows)
        ]
        (tmp_path / "raw" / folder / f"{file}.jsonl").write_text("\n".join(lines) + "\n")
    mapping = "{id: id, question: q, answer: a, images: image, task: {constant: match_text}}"
    sources = [
        f"+data.recipe.sources.{name}={{adapter: jsonl, path: {name}, label: colours, "
        f"options: {{files: ['*.jsonl'], mapping: {mapping}}}}}"
        for name in ("one", "two")
    ]
    raw = (f"model.path={model}", f"data.recipe.raw={tmp_path / 'raw'}")
    job = plan(model, tmp_path, *raw, "rollout.engine.max_model_len=512", *sources)
    build(job, is_tried=False)
    table = SampleTable(job.out / "train")
    found = [sample for sample in map(table.__getitem__, range(len(table))) if sample.source == "colours"]
    assert {sample.answer: sample.source_id for sample in found} == {
        "red": "7", "green": "7#2", "grey": "7#2#2", "blue": "7#3", "pink": "7#4",
    }  # fmt: skip
    assert len({sample.sample_id for sample in found}) == 5
