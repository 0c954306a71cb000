"""Marker, manifest and verification, on a local file system and on object storage."""

import json
import math

import pytest
from pyarrow import fs

from learner import checkpoint
from learner.checkpoint import StagedShare, best_steps, steps_to_keep, with_macro
from learner.errors import CheckpointError, DamagedCheckpointError
from learner.store import FileStore, open_store
from tests.unit.memory_store import MemoryHandler


@pytest.fixture(params=["local", "object storage"])
def store(request, tmp_path):
    if request.param == "local":
        return open_store(tmp_path / "kept")
    return FileStore(fs.PyFileSystem(MemoryHandler()), "bucket/run")


def write(store, folder, step, *, content="weights", extra=None):
    """A checkpoint of two ranks."""
    files = []
    for rank in range(2):
        share = folder / f"rank_{rank}" / "weights"
        share.mkdir(parents=True, exist_ok=True)
        (share / f"part_{rank}").write_text(f"{content} {rank}")
        files += checkpoint.put_share(store, step, share.parent)
    staged = StagedShare(step=step, weight_version=step, num_ranks=2)
    return checkpoint.mark(store, staged, files, extra=extra or {}, scores={"chart": 0.5})


def newest(store):
    passed_over = []
    found = checkpoint.newest_whole(store, pass_over=lambda step, reason: passed_over.append((step, reason)))
    return found.step if found else None, passed_over


def test_a_checkpoint_says_what_it_holds(store, tmp_path):
    written = write(store, tmp_path, 3, extra={"cursor": 7})

    found = checkpoint.read(store, 3)

    assert found == written
    assert (found.step, found.weight_version, found.num_ranks) == (3, 3, 2)
    assert (found.extra, found.scores) == ({"cursor": 7}, {"chart": 0.5})
    assert [entry.name for entry in found.files] == ["weights/part_0", "weights/part_1", "meta.json"]
    checkpoint.verify(store, found)


def test_without_a_marker_nothing_counts(store, tmp_path):
    write(store, tmp_path, 3)
    write(store, tmp_path, 4)
    store.delete("step_00000004/complete")
    store.put_bytes(b"x", "something_else/file")

    assert checkpoint.steps(store) == [3, 4]
    assert checkpoint.marked_steps(store) == [3]
    assert newest(store) == (3, [])
    with pytest.raises(CheckpointError, match="step_00000004 is no complete checkpoint"):
        checkpoint.read(store, 4)


def test_no_directory_means_no_checkpoint(store):
    assert newest(store) == (None, [])


def test_a_marker_that_was_cut_short_marks_nothing(store, tmp_path):
    write(store, tmp_path, 1)
    write(store, tmp_path, 2)
    marker = store.read("step_00000002/complete")

    for length in (0, 1, len(marker) // 2, len(marker) - 3):
        store.put_bytes(marker[:length], "step_00000002/complete")
        step, [(passed_over, reason)] = newest(store)
        assert (step, passed_over) == (1, 2)
        assert "step_00000002/complete is broken" in reason


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("weights/part_1", b"weights 0", "weights/part_1 has another checksum"),
        ("weights/part_1", b"weights", "weights/part_1 has 7 bytes, and 9 were written"),
        ("weights/part_1", None, "weights/part_1 is missing, and 9 were written"),
        ("meta.json", b"{}", "meta.json is not what was written"),
        ("meta.json", None, "meta.json is not what was written"),
    ],
)
def test_a_damaged_file_is_named_and_the_next_older_whole_checkpoint_counts(store, name, content, message, tmp_path):
    for step in (1, 2):
        write(store, tmp_path, step)
    store.delete(f"step_00000002/{name}")
    if content is not None:
        store.put_bytes(content, f"step_00000002/{name}")

    step, [(passed_over, reason)] = newest(store)

    assert (step, passed_over) == (1, 2)
    assert f"step_00000002/{message}" in reason


def test_a_file_that_the_manifest_does_not_name_disturbs_nothing(store, tmp_path):
    write(store, tmp_path, 1)
    store.put_bytes(b"x", "step_00000001/weights/universal/part")

    assert newest(store) == (1, [])


def test_a_format_of_another_version_is_refused(store, tmp_path):
    write(store, tmp_path, 1)
    meta = json.dumps({**json.loads(store.read("step_00000001/meta.json")), "format": 99}).encode()
    entry = store.put_bytes(meta, "step_00000001/meta.json")
    marker = json.loads(store.read("step_00000001/complete"))
    marker["files"][-1].update(num_bytes=entry.num_bytes, blake2b=entry.blake2b)
    store.put_bytes(json.dumps(marker).encode(), "step_00000001/complete")

    with pytest.raises(CheckpointError, match="has format 99, and this version reads 2"):
        checkpoint.read(store, 1)


def test_a_step_saved_twice_holds_the_second(store, tmp_path):
    write(store, tmp_path, 1, extra={"try": 1})
    checkpoint.remove(store, 1)
    assert checkpoint.steps(store) == []

    write(store, tmp_path, 1, content="other", extra={"try": 2})

    assert newest(store) == (1, [])
    assert checkpoint.read(store, 1).extra == {"try": 2}


def test_a_copy_is_checked_as_it_arrives(tmp_path):
    remote = FileStore(fs.PyFileSystem(handler := MemoryHandler()), "bucket/run")
    write(remote, tmp_path, 1)

    folder = checkpoint.fetch(remote, 1, tmp_path / "fetched")
    assert (folder / "weights" / "part_1").read_text() == "weights 1"

    handler.objects["bucket/run/step_00000001/weights/part_1"] = b"weights 0"
    with pytest.raises(DamagedCheckpointError, match="weights/part_1 has another checksum"):
        checkpoint.fetch(remote, 1, tmp_path / "again")


def test_a_local_checkpoint_is_read_where_it_lies(tmp_path):
    store = open_store(tmp_path / "kept")
    write(store, tmp_path, 1)

    assert checkpoint.fetch(store, 1, tmp_path / "unused") == tmp_path / "kept" / "step_00000001"
    assert not (tmp_path / "unused").exists()


SCORES = {
    1: {"chart": 0.9, "grounding": 0.0},  # best chart
    2: {"chart": 0.5, "grounding": 0.7},  # best macro: 0.6
    3: {"chart": 0.1, "grounding": 0.8},  # best grounding
    4: {"chart": 0.2, "grounding": 0.2},
    5: {},
}


def test_the_best_by_each_function_and_by_the_macro_mean_stay_beside_the_newest():
    assert best_steps(SCORES) == {"chart": 1, "macro": 2, "grounding": 3}
    assert steps_to_keep(SCORES, keep_last=1, keep_best=True) == {1, 2, 3, 5}
    assert steps_to_keep(SCORES, keep_last=2, keep_best=False) == {4, 5}


def test_the_best_by_a_named_metric_stays_alone_and_counts_in_no_mean():
    metric = "held_out/set/charts/mean/greedy"
    scores = {step: {**of_step, metric: step % 3} for step, of_step in SCORES.items()}
    assert best_steps(scores, metric=metric) == {metric: 5}
    assert steps_to_keep(scores | {6: {}}, keep_last=1, keep_best=metric) == {5, 6}
    assert best_steps(scores) == best_steps(SCORES)


def test_a_best_that_is_beaten_goes():
    scores = SCORES | {6: {"chart": 0.95, "grounding": 0.75}}

    assert steps_to_keep(scores, keep_last=1, keep_best=True) == {3, 6}


def test_of_equal_scores_the_newest_is_best():
    assert best_steps({1: {"chart": 0.5}, 2: {"chart": 0.5}}) == {"chart": 2, "macro": 2}


def test_a_score_that_is_not_finite_is_best_at_nothing():
    assert with_macro({"chart": math.nan, "grounding": 0.5}) == {"grounding": 0.5, "macro": 0.5}
    assert best_steps({1: {"chart": 0.1}, 2: {"chart": math.nan}}) == {"chart": 1, "macro": 1}
    assert with_macro({}) == {}


def test_keeping_none_is_refused():
    with pytest.raises(CheckpointError, match=r"training\.keep_last is 0"):
        steps_to_keep(SCORES, keep_last=0, keep_best=False)
