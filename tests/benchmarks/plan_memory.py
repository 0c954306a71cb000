"""Planned memory of learner ranks against real ones on a CPU, each in processes of their own.

    python -m tests.benchmarks.plan_memory [--cases all] [--large]

Two measures of a rank, from loading to the end of its second step. Tensors: the most bytes that torch's allocator held
at once. Process, with --large: the growth of anonymous resident memory to its peak, of a model of 80 million parameters
beside which what libraries allocate is small. glibc is told to give freed memory back at once; --default-malloc leaves
it as it is, and then a process holds more than its tensors.
"""

import argparse
import importlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from learner.config import DeepSpeedConfig
from tests.benchmarks.hardware import describe_hardware
from tests.benchmarks.live_bytes import anonymous_bytes, peak_live_bytes, reset_peak_rss
from tests.benchmarks.memory_cases import Case, demo_case, fullest, plan, trainer_of, write_model
from tests.tiny_models import TINY_MODELS

MIB = 2**20
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""Of glibc: an allocation of 64 KiB is a mapping of its own, gone when it is freed."""
SMALL = Case()
TALL = Case(vocab_size=8192, prompt_tokens=40, image_side=56)
LARGE = Case(width=768, layers=8, vision_width=384, vision_layers=4, vocab_size=16384, prompts=1, completion_tokens=60)


def zero(stage: int, **changes: Any) -> dict[str, Any]:
    """Settings of a ZeRO stage."""
    return {"backend": "deepspeed", "deepspeed": DeepSpeedConfig(zero_stage=stage, **changes), "dtype": "float32"}  # type: ignore[arg-type]


CASES: dict[str, tuple[Case, int]] = {
    "fsdp": (SMALL, 1),
    **{f"fsdp, tiny {name}": (demo_case(name), 1) for name in TINY_MODELS},
    "fsdp, 2 ranks": (SMALL, 2),
    "fsdp, 2 ranks, bfloat16, recomputation": (
        replace(SMALL, learner={"dtype": "bfloat16", "activation_checkpointing": True}), 2,
    ),
    "fsdp, 2 ranks, wide vocabulary": (TALL, 2),
    "fsdp, 2 ranks, InternVL, frozen tower": (
        replace(SMALL, family="internvl", learner={"freeze": ("vision_tower",)}), 2,
    ),
    **{
        f"zero {stage}, {ranks} rank{'s' if ranks > 1 else ''}, {dtype}": (
            replace(TALL, learner={**zero(stage), "dtype": dtype}), ranks,
        )
        for stage in (1, 2, 3)
        for ranks in (1, 2)
        for dtype in ("float32", "bfloat16")
    },
    "zero 2, InternVL, frozen tower": (
        replace(TALL, family="internvl", learner={**zero(2), "freeze": ("vision_tower",)}), 1,
    ),
    "zero 2, optimiser offloaded": (replace(TALL, learner=zero(2, offload_optimizer=True)), 1),
}  # fmt: skip
LARGE_CASES: dict[str, tuple[Case, int]] = {
    "fsdp": (LARGE, 1),
    "fsdp, recomputation": (replace(LARGE, learner={"activation_checkpointing": True}), 1),
    "fsdp, InternVL": (replace(LARGE, family="internvl"), 1),
    "fsdp, 2 ranks": (LARGE, 2),
    "zero 2": (replace(LARGE, learner=zero(2)), 1),
    "zero 3": (replace(LARGE, learner=zero(3)), 1),
}


def main() -> None:
    """Measure and print a line a case; a rank's own process is started with --rank."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="all", help="beginnings of names, semicolons between them")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--default-malloc", action="store_true")
    parser.add_argument("--rank", type=int)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--folder")
    options = parser.parse_args()
    cases = LARGE_CASES if options.large else CASES
    if options.rank is not None:
        case, num_ranks = cases[options.cases]
        print(json.dumps(run_rank(case, Path(options.folder), options.rank, num_ranks, options.port, options.large)))
        return
    print(describe_hardware())
    print(
        f"{'case':<42} {'planned':>9} {'measured':>9} {'ratio':>6}   MiB of "
        + ("the process" if options.large else "tensors")
    )
    wanted = [n for n in cases if options.cases == "all" or any(n.startswith(w) for w in options.cases.split(";"))]
    ratios = []
    for name in wanted:
        planned, measured = compare(name, *cases[name], is_large=options.large, is_eager=not options.default_malloc)
        ratios.append(planned / measured)
        print(f"{name:<42} {planned / MIB:9.1f} {measured / MIB:9.1f} {ratios[-1]:6.2f}", flush=True)
    print(f"planned / measured: {min(ratios):.2f} to {max(ratios):.2f}")


def compare(name: str, case: Case, num_ranks: int, *, is_large: bool, is_eager: bool) -> tuple[int, int]:
    """Return (planned, measured) bytes of rank 0."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_model(case, folder)
        parts, pictures = plan(case, folder, num_ranks)
        kept = sum(item.bytes for item in (*parts.kept, *parts.host_kept))
        planned = kept + fullest(parts) + sum(item.bytes for item in parts.host_phases) + pictures
        return planned, start_ranks(name, num_ranks, folder, is_large=is_large, is_eager=is_eager)[0]["peak"]


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_ranks(name: str, num_ranks: int, folder: Path, *, is_large: bool, is_eager: bool) -> Sequence[dict[str, int]]:
    """Run every rank of a case in a fresh process; give what each measured."""
    port = 0 if num_ranks == 1 else free_port()
    command = [sys.executable, "-m", "tests.benchmarks.plan_memory", "--cases", name, "--folder", str(folder)]
    command += ["--port", str(port), *(["--large"] if is_large else [])]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", **(GIVE_BACK if is_eager else {})}
    ranks = [
        subprocess.Popen(
            [*command, "--rank", str(rank)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(num_ranks)
    ]
    outputs = [rank.communicate() for rank in ranks]
    for rank, (_, errors) in zip(ranks, outputs, strict=True):
        if rank.returncode:
            raise SystemExit(errors)
    return [json.loads(output.splitlines()[-1]) for output, _ in outputs]


def run_rank(case: Case, folder: Path, rank: int, num_ranks: int, port: int, is_large: bool) -> dict[str, int]:
    """Measure one rank in this process, loading included."""
    torch.set_num_threads(1)
    where = {"rank": rank, "num_ranks": num_ranks, "port": port}

    def train() -> None:
        with trainer_of(case, folder, **where) as trainer:
            trainer.train_step(case.groups(folder, rank), step=1)

    if not is_large:
        return {"peak": peak_live_bytes(train)}
    imported(case)
    before = anonymous_bytes(peak=False)
    reset_peak_rss()
    train()
    return {"peak": anonymous_bytes(peak=True) - before}


def imported(case: Case) -> None:
    """Import what a rank imports, and let every library allocate what it keeps: a step of a tiny model.

    Under FSDP2 whatever the case: DeepSpeed works once in a process.
    """
    if case.learner.get("backend") == "deepspeed":
        os.environ["DS_ACCELERATOR"] = "cpu"
        importlib.import_module("deepspeed")
    tiny = Case(family=case.family, layers=1, vision_layers=1, completion_tokens=4)
    with tempfile.TemporaryDirectory() as place:
        write_model(tiny, Path(place))
        with trainer_of(tiny, Path(place)):
            pass


if __name__ == "__main__":
    main()
