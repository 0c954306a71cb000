"""The data engine over drawn rows or rows of one's own Parquet, sampling left out: rows a second by stage, and memory.

    python -m tests.benchmarks.data_engine [--rows 50000] [--workers 2]
    python -m tests.benchmarks.data_engine --source own --rows 100000
    python -m tests.benchmarks.data_engine --source light --rows 1000000

Each size is built from nothing through real Ray tasks. `own` writes Parquet first (see own_rows.py) and reads it by a
mapping; `yes_no` is the same with yes-or-no questions alone, the most rows of one answer; `light` are short rows that
share few pictures by path, through the stages that take one row at a time up to normalise.

Memory is the highest seen of the driver and of any one worker, twice a second: what the process holds for itself, and
with it the pages of mapped files, which the system takes back when it needs them. To compare sizes, run one a call: a
process keeps what an earlier size made it hold.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from orchestration.cli import compose
from orchestration.cluster.found import map_in_tasks
from orchestration.cluster.session import ray_session
from orchestration.data.build import build_from_config
from orchestration.data.normalise import normalise_stage
from orchestration.data.plan import plan_build
from orchestration.data.read import read_sources
from orchestration.data.stages import run_stage
from orchestration.data.validate import validate_stage
from orchestration.inputs.machine import build_config
from orchestration.settings.experiment import ExperimentConfig
from tests.benchmarks.hardware import describe_hardware
from tests.benchmarks.own_rows import LIGHT_MAPPING, OWN_MAPPING, TASKS, write_light, write_own

LOOK_EVERY_S = 0.5
MEMORY = ("RssAnon", "VmRSS")
STAGES = ("read", "validate", "normalise", "deduplicate", "measure", "select", "write")


def main() -> None:
    """Build every size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--source", choices=("drawn", "own", "yes_no", "light"), default="drawn")
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
            print(run(model, Path(folder) / str(num_rows), num_rows, chosen.workers, chosen.source), flush=True)


def make_model(folder: Path) -> None:
    """Write a tiny model, for its processor."""
    from tests.tiny_models import make_tiny_model

    make_tiny_model(folder, corpus=["how high is the red bar?"] * 3)


def run(model: Path, root: Path, num_rows: int, num_workers: int, source: str) -> str:
    """Build one size from nothing and give its line of the table."""
    making = multiprocessing.get_context("spawn").Process(
        target=write_raw, args=(root / "raw" / "own", num_rows, source)
    )
    making.start()
    making.join()
    if source == "drawn":
        sources = [
            f"data.recipe.sources.demo.options.num_rows={num_rows * 9 // 10}",
            f"data.recipe.sources.demo_held_out.options.num_rows={num_rows // 10}",
        ]
    else:
        mapping = LIGHT_MAPPING if source == "light" else OWN_MAPPING
        own = f"{{adapter: parquet, path: own, options: {{files: ['*.parquet'], mapping: {mapping}}}}}"
        sources = [
            f"model.path={model}",
            f"data.recipe.raw={root / 'raw'}",
            f"+data.recipe.sources.own={own}",
            "~data.recipe.sources.demo",
            "~data.recipe.sources.demo_held_out",
            "rollout.engine.max_model_len=512",
        ]
    common = [f"run_dir={root / 'run'}", f"cache_dir={root / 'cache'}", f"data.recipe.num_workers={num_workers}"]
    config = build_config(compose([*common, *sources]), is_for_training=False)
    with highest_memory() as memory:
        if source == "light":
            kept, times = run_to_normalise(config, model)
        else:
            dataset = build_from_config(config, model, lambda line: None)
            manifest = json.loads(dataset.manifest.read_text())
            kept, times = sum(content["num_rows"] for content in manifest["result"].values()), manifest["times"]
    rates = [f"{num_rows / times[stage]:>10.0f}/s" if stage in times else " " * 12 for stage in STAGES]
    return (
        f"{num_rows:>8} {kept:>8} "
        + " ".join(rates)
        + f"   {memory['driver', 'RssAnon'] / 1024:>10.0f} {memory['driver', 'VmRSS'] / 1024:>12.0f}"
        + f"  {memory['worker', 'RssAnon'] / 1024:>10.0f} {memory['worker', 'VmRSS'] / 1024:>12.0f}"
    )


def write_raw(folder: Path, num_rows: int, source: str) -> None:
    """Write the Parquet files of a source; drawn rows have none."""
    if source == "light":
        write_light(folder, num_rows)
    elif source != "drawn":
        write_own(folder, num_rows, ("match_yesno",) if source == "yes_no" else TASKS)


def run_to_normalise(config: ExperimentConfig, model: Path) -> tuple[int, Mapping[str, float]]:
    """Run the first three stages; return the rows that are left, and seconds by stage."""
    job = plan_build(config, model)
    recipe, store = job.recipe, job.store
    stages = [
        validate_stage(recipe.limits, store),
        normalise_stage(recipe.normalise, recipe.limits, job.reward, recipe.seed),
    ]
    with ray_session(config.cluster, 0, store / "logs"):
        in_workers = partial(map_in_tasks, num_workers=recipe.num_workers)
        started = time.perf_counter()
        chunks = read_sources([plan.tasks for plan in job.plans], in_workers, lambda rows: None)
        times = {"read": time.perf_counter() - started}
        for stage in stages:
            started = time.perf_counter()
            chunks = run_stage(stage, chunks, store, in_workers, lambda rows: None)
            times[stage.name] = time.perf_counter() - started
    return sum(chunk.num_rows for chunk in chunks), times


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
