"""Bytes and seconds of a publication over gloo, whole and as differences, of matrices that AdamW has moved one step.

python -m tests.benchmarks.wire_differences
"""

import argparse
import os
import sys
import time
from collections.abc import Collection, Iterator
from statistics import median
from typing import Any

import torch

from tests.benchmarks.hardware import describe_hardware
from tests.unit.wire_worker import Worker, connect

WIDTH, MLP_WIDTH, STD = 2048, 11008, 0.02
"""Of Qwen2.5-VL-3B; weights are normal, with transformers' initial deviation."""


def main() -> None:
    """Print one line for each type and learning rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--matrices", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    # vLLM silences gloo by closing stdout while a group is joined; both ends do so at once here, and it stays closed.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    print(describe_hardware(), file=out, flush=True)
    for dtype in (torch.bfloat16, torch.float32):
        for rate in (1e-6, 1e-5):
            print(measure(dtype, rate, options.matrices, options.steps), file=out, flush=True)


def measure(dtype: torch.dtype, rate: float, matrices: int, steps: int) -> str:
    """Train on noise with a direction, and publish every step to two workers in turn."""
    torch.manual_seed(0)
    shapes = {f"{i}.up": (MLP_WIDTH, WIDTH) for i in range(matrices)}
    masters = {name: torch.nn.Parameter(torch.randn(shape) * STD) for name, shape in shapes.items()}
    pull = {name: torch.randn(shape) * 0.3 for name, shape in shapes.items()}
    optimizer = torch.optim.AdamW(masters.values(), lr=rate, weight_decay=0.0, fused=True)

    def read(names: Collection[str]) -> Iterator[tuple[str, torch.Tensor]]:
        return ((name, tensor.detach().to(dtype)) for name, tensor in masters.items() if name in names)

    workers = {way: Worker() for way in (False, True)}
    senders = {
        way: connect(worker, dict(read(shapes)), read, bucket_bytes=64 << 20, sends_differences=way)
        for way, worker in workers.items()
    }
    found: dict[bool, list[tuple[int, float]]] = {False: [], True: []}
    for step in range(steps + 1):
        for way, sender in senders.items():
            started = time.perf_counter()
            num_bytes = sender.send()
            if step:
                found[way].append((num_bytes, time.perf_counter() - started))
        for name, parameter in masters.items():
            parameter.grad = torch.randn(parameter.shape).add_(pull[name])
        optimizer.step()
    assert workers[False].held == workers[True].held
    for way, sender in senders.items():
        sender.close()
        workers[way].end.shutdown()

    def middle(way: bool) -> Any:
        sizes, seconds = zip(*found[way], strict=True)
        return median(sizes) / 2**20, median(seconds)

    whole, less = middle(False), middle(True)
    return (
        f"{dtype} lr {rate:g}: whole {whole[0]:.1f} MiB in {whole[1]:.2f} s, differences {less[0]:.1f} MiB "
        f"({less[0] / whole[0]:.1%}) in {less[1]:.2f} s"
    )


if __name__ == "__main__":
    main()
