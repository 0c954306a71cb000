"""What to prove first where a GPU is lent for minutes: three calls, a table each, whatever fails.

    python -m tests.gpu.first_device 1        # the learner; needs torch, transformers and pytest
    python -m tests.gpu.first_device 2        # unpacks more of what the third call needs
    python -m tests.gpu.first_device 3        # engines: real vLLM beside a learner

Each check is a process of its own with a limit, so a crash or a hang costs that check alone; one that a missing package
(Ray, flash-attn, DeepSpeed, vLLM) makes impossible is skipped by its name. A machine without vLLM gets it from archives
that `tests/gpu/payload.sh` packs: they are looked for in `.payload/1` to `.payload/3` and unpacked beside. What a check
prints after `found:` is shown under the table. The exit code is 0 if nothing failed.
"""

import argparse
import contextlib
import importlib.util
import os
import platform
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from conf.gpu_driver import driver_fault, driver_version

ROOT = Path(__file__).parents[2]
PAYLOAD = ROOT / ".payload"
UNPACKED = PAYLOAD / "unpacked"
SECONDS = {1: 420.0, 2: 60.0, 3: 540.0}
"""Of a whole call, unless `--seconds` says otherwise; a check that would begin later is not run."""
OPTIONAL = ("vllm", "ray", "flash_attn", "deepspeed")
TAIL_CHARS = 160
"""Shown of a failure."""
SPEED_OPTIONS = ("--shapes", "3b", "--kernels", "sdpa,flash", "--groups", "8", "--steps", "1")
PYTEST = (sys.executable, "-m", "pytest", "-m", "gpu", "-s", "-rs", "-x", "-p", "no:cacheprovider")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the table."""

    name: str
    command: tuple[str, ...]
    limit_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a check."""

    name: str
    result: str
    """ok, failed, skipped, time limit or not run, and why."""
    seconds: float
    found: tuple[str, ...] = ()
    """What it printed after `found:`."""

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong by this check."""
        return self.result == "ok" or self.result.startswith("skipped")


def selected(name: str, file: str, limit_s: float, *words: str) -> Check:
    """Return the check that runs tests of a file of tests/gpu, those whose names have all of `words`."""
    return Check(name=name, command=(*PYTEST, f"tests/gpu/{file}", "-k", " and ".join(words)), limit_s=limit_s)


LEARNER, WEIGHTS, ENGINE = "test_learner_on_gpu.py", "test_weights_on_gpu.py", "test_engine_on_gpu.py"
CHECKS: dict[int, tuple[Check, ...]] = {
    1: (
        selected("kernel sdpa", LEARNER, 60, "kernel_equals", "sdpa"),
        selected("kernel flash by torch", LEARNER, 60, "kernel_equals", "torch"),
        selected("kernel flash by flash-attn", LEARNER, 60, "kernel_equals", "attn"),
        selected("kernel flex", LEARNER, 90, "kernel_equals", "flex"),
        selected("vision tower in one call", LEARNER, 60, "tower_of_windows"),
        selected("float32 step equals the CPU's", LEARNER, 60, "float32_step"),
        selected("bfloat16 steps", LEARNER, 120, "bfloat16_step"),
        selected("memory after a step", WEIGHTS, 60, "given_back"),
        selected("fingerprint of the largest tensor", WEIGHTS, 60, "fingerprint"),
        selected("learner leaves the GPU and comes back", "test_colocated.py", 60, "offloaded_trainer"),
        selected("peak memory as planned", "test_planned_memory.py", 120, "planned"),
    ),
    2: (),
    3: (
        Check(name="vLLM loads", command=(sys.executable, "-c", "import rollout.engine"), limit_s=90),
        selected("tensors packed beside a slow gather", WEIGHTS, 90, "slow_gather"),
        selected("colocated steps over CUDA IPC", "test_colocated.py", 180, "memory_changes_hands"),
        selected("graphs, 20 pauses, logprobs", ENGINE, 240, "graphs"),
        selected("production's client over CUDA IPC", ENGINE, 180, "production"),
        Check(
            name="speed of 3B steps",
            command=(sys.executable, "-m", "tests.benchmarks.gpu_learner", *SPEED_OPTIONS),
            limit_s=240,
        ),
    ),
}


def environment() -> dict[str, str]:
    """Return the environment of a check: this repository and what was unpacked on the path, CUDA's libraries found."""
    spec = importlib.util.find_spec("nvidia")
    folders = [f"{place}/cu13/lib" for place in (spec.submodule_search_locations or ())] if spec else []
    extended = {
        "PYTHONPATH": [str(ROOT), str(UNPACKED), os.environ.get("PYTHONPATH", "")],
        "LD_LIBRARY_PATH": [*folders, os.environ.get("LD_LIBRARY_PATH", "")],
    }
    paths = {name: os.pathsep.join(filter(None, parts)) for name, parts in extended.items()}
    return {**os.environ, **paths, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "PYTHONUNBUFFERED": "1"}


def unpack(call: int) -> Outcome:
    """Unpack the archives of a call, where there are any."""
    started = time.perf_counter()
    archives = sorted((PAYLOAD / str(call)).glob("*.tgz"))
    for archive in archives:
        with tarfile.open(archive) as packed:
            packed.extractall(UNPACKED, filter="data")
    names = ", ".join(archive.name for archive in archives)
    result = "ok" if archives else f"skipped: nothing in {PAYLOAD.name}/{call}"
    return Outcome(name=f"unpack {names}".strip(), result=result, seconds=time.perf_counter() - started)


def run_check(check: Check, limit_s: float) -> Outcome:
    """Run one check in processes of its own, which are ended with it."""
    started = time.perf_counter()
    process = subprocess.Popen(
        check.command, cwd=ROOT, env=environment(), text=True, errors="replace", start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=limit_s)
        result = judge(process.returncode, output)
    except subprocess.TimeoutExpired:
        end_group(process.pid)
        output, _ = process.communicate()
        result = f"time limit of {limit_s:g} s; last line: {last_line(output)}"
    end_group(process.pid)  # a crash leaves an engine's own processes behind
    found = tuple(line.partition("found:")[2].strip() for line in output.splitlines() if "found:" in line)
    return Outcome(name=check.name, result=result, seconds=time.perf_counter() - started, found=found)


def end_group(group: int) -> None:
    """Kill what is left of a check's processes."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def judge(code: int, output: str) -> str:
    """Return the result of a check that ended by itself.

    Example:
        >>> judge(0, "SKIPPED [6] tests/gpu/a.py:42: No module named 'flash_attn'\n6 skipped in 0.1s")
        "skipped: No module named 'flash_attn'"
        >>> judge(1, "E   AssertionError: 3 wrong\nFAILED tests/gpu/a.py\n1 failed in 2s")
        'failed: AssertionError: 3 wrong'
    """
    if code != 0:
        errors = re.findall(r"^E +(\S.*)$", output, re.MULTILINE)
        return f"failed: {errors[0][:TAIL_CHARS] if errors else last_line(output)}"
    reasons = re.findall(r"^SKIPPED \[\d+\] [^:]+:\d+: (.*)$", output, re.MULTILINE)
    if reasons and not re.search(r"\d+ passed", output):
        return f"skipped: {reasons[0][:TAIL_CHARS]}"
    return "ok"


def last_line(output: str) -> str:
    """Return the last line that says something."""
    return next((line.strip()[-TAIL_CHARS:] for line in reversed(output.splitlines()) if line.strip()), "no output")


def run_checks(checks: Sequence[Check], seconds: float) -> list[Outcome]:
    """Run checks one after the other; those that would begin when the time is up are not run."""
    ends, outcomes = time.perf_counter() + seconds, []
    for check in checks:
        left = ends - time.perf_counter()
        if left <= 0:
            outcomes.append(Outcome(name=check.name, result="not run: no time left", seconds=0.0))
            continue
        outcomes.append(run_check(check, min(check.limit_s, left)))
        print(f"  {check.name}: {outcomes[-1].result}", flush=True)
    return outcomes


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the table, and under it what checks found."""
    lines = ["", "| check | result | s |", "|---|---|---|"]
    lines += [f"| {outcome.name} | {outcome.result} | {outcome.seconds:.1f} |" for outcome in outcomes]
    lines += [f"{outcome.name}: {line}" for outcome in outcomes for line in outcome.found]
    return "\n".join(lines)


def device() -> tuple[str | None, str]:
    """Return what GPU torch sees, asked in a process of its own, and without one the reason."""
    program = (
        "import torch\n"
        "if torch.cuda.is_available():\n"
        "    print('device:', torch.cuda.get_device_name(), '| torch', torch.__version__)"
    )
    asked = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=False
    )
    found = re.search(r"^device: (.*)$", asked.stdout, re.MULTILINE)
    if found:
        return found[1], ""
    return None, driver_fault() or ("torch sees none" if asked.returncode == 0 else last_line(asked.stderr))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one call and print its table; 0 if nothing failed, 1 otherwise or without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("call", type=int, choices=sorted(CHECKS))
    parser.add_argument("--seconds", type=float, help="for the whole call")
    told = parser.parse_args(arguments)
    started = time.perf_counter()
    unpacked = unpack(told.call)
    name, reason = device()
    if name is None:
        print(f"no GPU here: {reason}; nothing was checked")
        return 1
    sys.path.append(str(UNPACKED))
    missing = [package for package in OPTIONAL if importlib.util.find_spec(package) is None]
    print(f"{name} | driver {driver_version() or 'unknown'} | Python {platform.python_version()}")
    print(f"not installed here: {', '.join(missing) or 'nothing'}")
    seconds = (told.seconds or SECONDS[told.call]) - (time.perf_counter() - started)
    outcomes = [unpacked, *run_checks(CHECKS[told.call], seconds)]
    print(table(outcomes))
    return 0 if all(outcome.is_good for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
