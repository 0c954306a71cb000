"""The data engine over drawn rows, sampling left out: rows a second by stage, and memory.

    python -m tests.benchmarks.data_engine [--rows 50000] [--workers 2]

Each size is built from nothing through real Ray tasks. Memory is the highest seen of the driver and of any one worker,
twice a second: what the process holds for itself, and with it the pages of mapped files, which the system takes back
when it needs them. To compare sizes, run one a call: a process keeps what an earlier size made it hold.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestration.cli import compose
from orchestration.data.build import build_from_config
from orchestration.inputs.machine import build_config
from tests.benchmarks.hardware import describe_hardware

LOOK_EVERY_S = 0.5
MEMORY = ("RssAnon", "VmRSS")
STAGES = ("read", "validate", "normalise", "deduplicate", "measure", "select", "write")


def main() -> None:
    """Build every size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000])
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args()
    print(describe_hardware())
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        making = multiprocessing.get_context("spawn").Process(target=make_model, args=(model,))
        making.start()  # torch must not count as the driver's memory
        making.join()
        print(
            f"{'rows':>8} {'kept':>8} "
            + " ".join(f"{stage:>12}" for stage in STAGES)
            + "   driver MiB (mapped too)  worker MiB (mapped too)"
        )
        for num_rows in chosen.rows:
            print(run(model, Path(folder) / str(num_rows), num_rows, chosen.workers), flush=True)


def make_model(folder: Path) -> None:
    """Write a tiny model, for its processor."""
    from orchestration.demo.tiny_model import FAMILIES, make_tiny_model

    make_tiny_model(folder, FAMILIES["qwen2_5_vl"], corpus=["how high is the red bar?"] * 3, seed=0)


def run(model: Path, root: Path, num_rows: int, num_workers: int) -> str:
    """Build one size from nothing and give its line of the table."""
    config = build_config(
        compose(
            [
                f"run_dir={root / 'run'}",
                f"cache_dir={root / 'cache'}",
                f"data.recipe.sources.demo.options.num_rows={num_rows * 9 // 10}",
                f"data.recipe.sources.demo_held_out.options.num_rows={num_rows // 10}",
                f"data.recipe.num_workers={num_workers}",
            ]
        )
    )
    with highest_memory() as memory:
        dataset = build_from_config(config, model, print)
    manifest = json.loads(dataset.manifest.read_text())
    kept = sum(content["num_rows"] for content in manifest["result"].values())
    rates = [num_rows / manifest["times"][stage] for stage in STAGES]
    return (
        f"{num_rows:>8} {kept:>8} "
        + " ".join(f"{rate:>10.0f}/s" for rate in rates)
        + f"   {memory['driver', 'RssAnon'] / 1024:>10.0f} {memory['driver', 'VmRSS'] / 1024:>12.0f}"
        + f"  {memory['worker', 'RssAnon'] / 1024:>10.0f} {memory['worker', 'VmRSS'] / 1024:>12.0f}"
    )


@contextmanager
def highest_memory() -> Iterator[dict[tuple[str, str], int]]:
    """Watch the memory of this process and of Ray's workers below it; (process, kind of memory) -> KiB."""
    seen = dict.fromkeys(itertools.product(("driver", "worker"), MEMORY), 0)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_EVERY_S):
            for path in Path("/proc").glob("[0-9]*"):
                kind = _kind(path)
                for name, size in _memory(path).items() if kind else ():
                    seen[kind, name] = max(seen[kind, name], size)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def _kind(path: Path) -> str | None:
    if path.name == str(os.getpid()):
        return "driver"
    try:
        is_worker = (path / "cmdline").read_bytes().startswith(b"ray::")
        return "worker" if is_worker and os.getsid(int(path.name)) == os.getsid(0) else None
    except OSError:
        return None


def _memory(path: Path) -> dict[str, int]:
    try:
        lines = (path / "status").read_text().splitlines()
    except OSError:
        return {}
    values = (line.split(":", 1) for line in lines)
    return {name: int(value.split()[0]) for name, value in values if name in MEMORY}


if __name__ == "__main__":
    main()
