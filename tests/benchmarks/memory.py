"""Memory of every process of a run, step after step: it must not grow.

    python -m tests.benchmarks.memory [--steps 300] [key=value ...]

Runs the main job with short completions and prints, every 50 steps, the anonymous memory of driver, engine (front end
and core), reward actor and learner rank in MiB, and what of the object store is in memory: medians over the last ten
steps, because a step's own tensors come and go. The last line gives the growth from a third of the run to its end.
"""

import argparse
import re
import tempfile
from pathlib import Path
from statistics import median

from tests.benchmarks.hardware import describe_hardware
from tests.integration import chaos
from tests.integration.driver import Driver

SETTINGS = [
    "evaluation.enabled=false",
    "rollout.sampling.max_completion_tokens=32",
    "training.groups_per_step=16",
    "training.checkpoint_every=50",
    "demo.warm_start_steps=40",
]


def watch(driver: Driver, metrics: Path, step: int) -> dict[str, float]:
    """Medians by role until the step has ended."""
    seen: list[dict[str, float]] = []

    def ended() -> bool:
        seen.append(measure(driver))
        return metrics.read_text().count("\n") >= step

    driver.poll(ended, 1800.0)
    return {role: median(row[role] for row in seen) for role in seen[0]}


def measure(driver: Driver) -> dict[str, float]:
    """MiB by role."""
    found = {"driver": _mib(driver.process.pid, "RssAnon")}
    for role in chaos.TITLES:
        found[role] = sum(_mib(pid, "RssAnon") for pid in chaos.processes_of(driver, role))
    raylets = [p for p in chaos.descendants(driver.process.pid) if b"raylet/raylet" in _read(p, "cmdline")]
    # The store's pages are shared memory, which the raylet maps.
    found["object store"] = sum(_mib(pid, "RssShmem") for pid in raylets)
    return found


def _mib(pid: int, field: str) -> float:
    match = re.search(rf"^{field}:\s+(\d+) kB", _read(pid, "status").decode(), re.MULTILINE)
    return int(match.group(1)) / 1024 if match else 0.0


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    asked, overrides = parser.parse_known_args()
    print(describe_hardware())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_dir = folder / "run"
        cache = [] if any(item.startswith("cache_dir=") for item in overrides) else [f"cache_dir={folder / 'cache'}"]
        steps = f"training.num_steps={asked.steps + 1}"
        driver = Driver(folder, "train", f"run_dir={run_dir}", *cache, *SETTINGS, steps, *overrides)
        rows = {}
        for step in range(50, asked.steps + 1, 50):
            driver.wait_for(run_dir / "metrics.jsonl", step - 10, timeout_s=1800.0)
            rows[step] = watch(driver, run_dir / "metrics.jsonl", step)
            if step == 50:
                print("  step " + " ".join(f"{role:>12}" for role in rows[step]))
            print(f"{step:6d} " + " ".join(f"{mib:12.0f}" for mib in rows[step].values()), flush=True)
        assert driver.finish(600.0) == 0, driver.output
        middle = max(50, asked.steps // 3 // 50 * 50)
        growth = {role: rows[asked.steps // 50 * 50][role] - rows[middle][role] for role in rows[middle]}
        print("growth " + " ".join(f"{mib:12.0f}" for mib in growth.values()) + f"   MiB since step {middle}")


if __name__ == "__main__":
    main()
