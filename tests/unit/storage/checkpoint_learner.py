"""A learner of small files, and runs of it that die at a chosen line; a fresh process runs this file."""

import asyncio
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import learner.store
from learner import checkpoint
from learner.checkpoint import StagedShare
from learner.store import FileEntry, FileStore, StagingArea, open_store
from orchestration.storage.checkpoints import Checkpoints

NUM_RANKS = 2
WATCHED = (
    "learner/checkpoint.py", "learner/store.py", "orchestration/storage/checkpoints.py",
    "orchestration/checkpoint_learner.py",
)  # fmt: skip
"""A process may die before any line of these."""


class FileLearner:
    """Stages and uploads as PolicyTrainer does, for all ranks in one process; its state is one number."""

    def __init__(self, staging: StagingArea) -> None:
        self.state = 0
        self._staging = staging

    async def stage(self, step: int) -> StagedShare:
        for rank in range(NUM_RANKS):
            folder = self._staging.folder(f"rank_{rank}")
            (folder / "weights").mkdir()
            (folder / "weights" / f"part_{rank}").write_text(content(self.state, rank))
            (folder / f"random_{rank}").write_text(f"{rank}")
        return StagedShare(step=step, weight_version=self.state, num_ranks=NUM_RANKS)

    async def upload(self, store: FileStore, step: int) -> list[FileEntry]:
        copies = (asyncio.to_thread(self._put, store, step, rank) for rank in range(NUM_RANKS))
        return [entry for entries in await asyncio.gather(*copies) for entry in entries]

    def _put(self, store: FileStore, step: int, rank: int) -> tuple[FileEntry, ...]:
        try:
            return checkpoint.put_share(store, step, self._staging.path(f"rank_{rank}"))
        finally:
            self._staging.remove(f"rank_{rank}")


def content(state: int, rank: int) -> str:
    return f"state {state} of rank {rank}. " * 3


def manage(store: FileStore, area: StagingArea, say: Callable[[str], None] = print) -> Checkpoints:
    return Checkpoints(store, FileLearner(area), keep_last=1, keep_best=True, say=say)


def scores_of(step: int) -> dict[str, float]:
    return {"chart": [0.5, 0.2, 0.9, 0.1][step % 4], "grounding": step / 100}


async def write(store: FileStore, area: StagingArea, last: int) -> None:
    """Go on from the newest checkpoint to step `last`; step 3 is saved twice."""
    checkpoints = manage(store, area)
    found = checkpoints.latest()
    for step in range(found.step + 1 if found else 1, last + 1):
        for _ in range(2 if step == 3 else 1):
            checkpoints.learner.state = step
            await checkpoints.begin(step, extra={"cursor": step}, scores=scores_of(step))
    await checkpoints.settle()


def check(store: FileStore) -> int:
    """Give the step of the newest whole checkpoint, whose files must be those of its step."""
    found = checkpoint.newest_whole(store, pass_over=lambda *_: None)
    assert found is not None, "nothing whole is left"
    for rank in range(NUM_RANKS):
        part = store.read(f"{found.name}/weights/part_{rank}")
        assert part == content(found.step, rank).encode(), f"step {found.step} holds {part!r}"
    assert found.extra == {"cursor": found.step}
    return found.step


class Reaper:
    """Counts lines of the watched files in all threads, and kills this process before a chosen one."""

    def __init__(self, dies_at: int | None) -> None:
        self.num_lines = 0
        self._dies_at = dies_at

    def __enter__(self) -> "Reaper":
        threading.settrace(self._trace)
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.endswith(WATCHED):
            return None
        if event == "line":
            self.num_lines += 1
            if self.num_lines == self._dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
        return self._trace


def live(root: Path, dies_at: int | None, last: int) -> int:
    """Write in a process of its own; gives its exit status."""
    child = os.fork()
    if child == 0:
        area = StagingArea(root / "staging")
        with Reaper(dies_at) as reaper:
            asyncio.run(write(open_store(root / "kept"), area, last))
        area.close()
        (root / "num_lines").write_text(str(reaper.num_lines))
        os._exit(0)
    return os.waitpid(child, 0)[1]


def main(root: Path, num_kills: int, seed: int) -> None:
    """Kill a writer of steps 2 to 6 at seeded lines; each time look, resume and look again."""
    learner.store.CHUNK_BYTES = 16
    (root / "dry").mkdir()
    assert live(root / "dry", None, 1) == 0
    assert live(root / "dry", None, 6) == 0
    num_lines = int((root / "dry" / "num_lines").read_text())
    for dies_at in random.Random(seed).sample(range(1, num_lines + 1), num_kills):
        place = root / str(dies_at)
        place.mkdir()
        assert live(place, None, 1) == 0
        assert live(place, dies_at, 6) == signal.SIGKILL, "threads take turns, but the number of lines is the same"
        store = open_store(place / "kept")
        found = check(store)
        assert live(place, None, found + 1) == 0
        assert check(store) == found + 1
        assert list((place / "staging").iterdir()) == [], "what the dead one had staged is still there"
        print(f"line {dies_at} of {num_lines}: step {found} was whole")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
