"""The driver's face of checkpoints: staged, then beside training; failures surface; what stays; kills."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from pyarrow import fs

from learner import checkpoint
from learner.errors import CheckpointError
from learner.store import FileStore, StagingArea, open_store
from orchestration.cli import compose
from orchestration.inputs.machine import build_config
from orchestration.storage.checkpoints import config_digest, newest_step, store_of
from orchestration.storage.run_folder import RunFolder, settle_config
from tests.unit.memory_store import CutShortError, MemoryHandler
from tests.unit.storage import checkpoint_learner
from tests.unit.storage.checkpoint_learner import FileLearner, check, content, manage, write


@pytest.fixture
def area(tmp_path):
    area = StagingArea(tmp_path / "staging")
    yield area
    area.close()


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "kept")


async def save(checkpoints, step, scores=None):
    checkpoints.learner.state = step
    await checkpoints.begin(step, extra={"cursor": step}, scores=scores)
    await checkpoints.settle()


class GatedLearner(FileLearner):
    """Copies when it is allowed to."""

    def __init__(self, area):
        super().__init__(area)
        self.may_copy = asyncio.Event()
        self.staged = []

    async def stage(self, step):
        self.staged.append(step)
        return await super().stage(step)

    async def upload(self, store, step):
        await self.may_copy.wait()
        return await super().upload(store, step)


def test_begin_returns_once_staged_and_the_checkpoint_holds_the_state_of_then(store, area):
    async def live():
        checkpoints = manage(store, area)
        checkpoints.learner = gated = GatedLearner(area)
        gated.state = 1
        await checkpoints.begin(1, extra={"cursor": 1})
        gated.state = 99
        assert newest_step(store) is None

        gated.may_copy.set()
        await checkpoints.settle()
        assert check(store) == 1
        assert store.read("step_00000001/weights/part_0") == content(1, 0).encode()

    asyncio.run(live())


def test_the_next_begin_waits_for_the_one_before(store, area):
    async def live():
        checkpoints = manage(store, area)
        checkpoints.learner = gated = GatedLearner(area)
        await checkpoints.begin(1, extra={"cursor": 1})
        second = asyncio.create_task(checkpoints.begin(2, extra={"cursor": 2}))
        for _ in range(100):
            await asyncio.sleep(0)
        assert gated.staged == [1]

        gated.may_copy.set()
        await second
        assert gated.staged == [1, 2]
        await checkpoints.settle()
        assert newest_step(store) == 2

    asyncio.run(live())


def test_whoever_waits_may_be_cancelled_and_the_checkpoint_still_becomes_whole(store, area):
    async def live():
        checkpoints = manage(store, area)
        checkpoints.learner = gated = GatedLearner(area)
        await checkpoints.begin(1, extra={"cursor": 1})
        waiting = asyncio.create_task(checkpoints.settle())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

        gated.may_copy.set()
        await checkpoints.settle()
        assert newest_step(store) == 1

    asyncio.run(live())


@pytest.mark.parametrize("verb", ["begin", "settle"])
def test_a_full_store_surfaces_at_the_next_call_and_leaves_the_older_checkpoint(verb, area):
    handler = MemoryHandler()
    store = FileStore(fs.PyFileSystem(handler), "bucket/run")

    async def live():
        checkpoints = manage(store, area)
        await save(checkpoints, 1)
        handler.capacity = sum(map(len, handler.objects.values())) + 100
        await checkpoints.begin(2, extra={})
        with pytest.raises(
            CheckpointError, match=r"checkpoint of step 2 in py::memory:bucket/run failed.*No space left"
        ):
            await (checkpoints.begin(3, extra={}) if verb == "begin" else checkpoints.settle())

        assert [info for info in handler.objects if "step_00000001" not in info] == []
        assert checkpoints.latest().step == 1
        handler.capacity = None
        await checkpoints.settle()
        await save(checkpoints, 3)
        assert checkpoints.latest().step == 3

    asyncio.run(live())


def test_the_death_of_the_learner_surfaces_as_it_is_or_is_abandoned(store, area):
    class DyingLearner(FileLearner):
        async def upload(self, store, step):
            raise ConnectionError("the actor died")

    async def live():
        checkpoints = manage(store, area)
        checkpoints.learner = DyingLearner(area)
        await checkpoints.begin(1, extra={})
        with pytest.raises(ConnectionError, match="the actor died"):
            await checkpoints.settle()
        await checkpoints.begin(2, extra={})
        await checkpoints.abandon()
        await checkpoints.settle()
        assert newest_step(store) is None

    asyncio.run(live())


def test_the_newest_and_the_best_stay_and_the_best_are_found(store, area):
    async def live():
        checkpoints = manage(store, area)
        for step, chart, grounding in [(1, 0.9, 0.0), (2, 0.5, 0.7), (3, 0.1, 0.8), (4, 0.2, 0.2), (5, 0.2, 0.3)]:
            await save(checkpoints, step, {"chart": chart, "grounding": grounding})
        assert checkpoint.steps(store) == [1, 2, 3, 5]
        best = {name: one.step for name, one in checkpoints.best().items()}
        assert best == {"chart": 1, "macro": 2, "grounding": 3}

        await save(checkpoints, 6, {"chart": 0.95, "grounding": 0.1})
        assert checkpoint.steps(store) == [2, 3, 6]
        assert checkpoints.best()["chart"].scores == {"chart": 0.95, "grounding": 0.1}

    asyncio.run(live())


def test_a_damaged_checkpoint_is_passed_over_with_a_word_and_never_pushes_a_whole_one_out(store, area):
    said = []

    async def live():
        checkpoints = manage(store, area, said.append)
        await save(checkpoints, 10)
        checkpoints._keep_last = 2
        await save(checkpoints, 20)
        store.put_bytes(b"not what was written", "step_00000020/weights/part_1")

        resumed = manage(store, area, said.append)
        assert resumed.latest().step == 10
        [line] = said
        assert "skipped the checkpoint of step 20" in line
        assert "weights/part_1 has 20 bytes" in line
        # keep_last is 1: of the steps 10, 15 and the damaged 20, the one just written stays.
        await save(resumed, 15)
        assert checkpoint.steps(store) == [15]

    asyncio.run(live())


def test_a_checkpoint_whose_marker_was_cut_short_is_not_the_newest(store, area):
    async def live():
        checkpoints = manage(store, area)
        checkpoints._keep_last = 2
        await save(checkpoints, 1)
        await save(checkpoints, 2)
        store.put_bytes(store.read("step_00000002/complete")[:50], "step_00000002/complete")
        assert newest_step(store) == 1

        await save(checkpoints, 3)
        assert checkpoint.steps(store) == [1, 3]

    asyncio.run(live())


def test_a_damaged_only_checkpoint_is_told_from_one_that_never_was_complete(store, area):
    async def scenario():
        checkpoints = manage(store, area)
        assert not checkpoints.has_any()
        store.put_bytes(b"", f"{checkpoint.step_name(1)}/{checkpoint.COMPLETE_MARKER}")
        assert not checkpoints.has_any()
        await save(checkpoints, 2)
        return checkpoints

    checkpoints = asyncio.run(scenario())
    damaged = next(entry for entry in checkpoints.latest().files if entry.num_bytes)
    store.put_bytes(b"x" * damaged.num_bytes, f"{checkpoint.step_name(2)}/{damaged.name}")
    assert checkpoints.latest() is None
    assert checkpoints.has_any()


def test_what_an_unfinished_checkpoint_left_goes_with_the_next_whole_one(store, area):
    store.put_bytes(b"x", "step_00000007/weights/part_0")
    store.put_bytes(b"x", "notes/of_someone_else")

    asyncio.run(save(manage(store, area), 3))

    assert checkpoint.steps(store) == [3]
    assert store.read("notes/of_someone_else") == b"x"


def test_a_writer_killed_at_any_moment_leaves_a_whole_checkpoint_to_resume_from(tmp_path):
    """30 moments, at seeded lines of the code that stages, copies, marks and deletes."""
    done = subprocess.run(
        [sys.executable, checkpoint_learner.__file__, tmp_path, "30", "7"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
        env={"PYTHONPATH": ".", "PATH": ""},
    )

    assert done.returncode == 0, done.stderr
    found = [int(line.split()[-3]) for line in done.stdout.splitlines() if "was whole" in line]
    assert len(found) == 30
    assert len(set(found)) > 2


def test_object_storage_cut_off_after_any_operation_keeps_a_whole_checkpoint(area):
    """Every operation of writing steps 2 to 4 once."""
    complete = MemoryHandler()
    asyncio.run(write(FileStore(fs.PyFileSystem(complete), "bucket/run"), area, 1))
    start, first = dict(complete.objects), complete.num_operations
    asyncio.run(write(FileStore(fs.PyFileSystem(complete), "bucket/run"), area, 4))

    for dies_at in range(1, complete.num_operations - first + 1):
        handler = MemoryHandler()
        store = FileStore(fs.PyFileSystem(handler), "bucket/run")
        handler.objects, handler.dies_at = dict(start), dies_at
        with pytest.raises(CutShortError):
            asyncio.run(write(store, area, 4))
        handler.dies_at = None
        # Markers appear whole here, so whatever is marked is whole: also what was being deleted or replaced.
        for step in checkpoint.marked_steps(store):
            checkpoint.verify(store, checkpoint.read(store, step))
        found = check(store)
        asyncio.run(write(store, area, found + 1))
        assert check(store) == found + 1


def test_the_run_folder_says_where_its_checkpoints_are(tmp_path):
    values = [f"run_dir={tmp_path / 'run'}", f"cache_dir={tmp_path}"]
    for directory, expected in ((None, tmp_path / "run" / "checkpoints"), (tmp_path / "far", tmp_path / "far")):
        config = build_config(compose([*values, *([f"training.checkpoint_dir={directory}"] if directory else [])]))
        folder = RunFolder(config.run_path)
        folder.config.unlink(missing_ok=True)
        settle_config(folder, config)
        assert str(store_of(folder)) == str(expected)


def test_a_config_digest_changes_with_any_setting_and_with_nothing_else(tmp_path):
    values = [f"run_dir={tmp_path / 'run'}", f"cache_dir={tmp_path}"]
    digest = config_digest(build_config(compose(values)))

    assert digest == config_digest(build_config(json.loads(json.dumps(compose(values)))))
    assert digest != config_digest(build_config(compose([*values, "seed=1"])))
