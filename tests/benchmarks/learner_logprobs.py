"""Chunked logprobs against logits of all positions: time and peak memory beyond the inputs, at a real vocabulary.

    python -m tests.benchmarks.learner_logprobs [--positions 4096] [--width 256] [--vocabulary 151936]

Each way runs in a process of its own, which reports the growth of its largest resident set.
"""

import argparse
import subprocess
import sys
import time

import torch

from learner.algorithms.logprobs import token_logprobs
from tests.benchmarks.learner_batch import resident_mib


def naive_logprobs(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The formula as it reads: logits of all positions, log-softmax, gather."""
    return torch.log_softmax(hidden @ weight.t(), -1).gather(-1, targets[:, None])[:, 0]


def measure(way: str, positions: int, width: int, vocabulary: int) -> None:
    """Run one way forward and backward; print seconds, MiB, and a sum by which the ways can be compared."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(positions, width, generator=generator, requires_grad=True)
    weight = (torch.randn(vocabulary, width, generator=generator) / width**0.5).requires_grad_()
    targets = torch.randint(0, vocabulary, (positions,), generator=generator)
    # Its gradient belongs to the optimiser in both ways, so it is there before the measurement.
    weight.grad, hidden.grad = torch.zeros_like(weight), torch.zeros_like(hidden)
    before, started = resident_mib(), time.perf_counter()
    if way == "chunked":
        logprobs, _ = token_logprobs(hidden, weight, targets)
    else:
        logprobs = naive_logprobs(hidden, weight, targets)
    logprobs.sum().backward()
    seconds, peak = time.perf_counter() - started, resident_mib() - before
    print(f"{seconds} {peak} {float(logprobs.detach().double().sum())} {float(hidden.grad.double().abs().sum())}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--positions", type=int, default=4096)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--way", choices=["chunked", "naive"])
    options = parser.parse_args()
    sizes = [options.positions, options.width, options.vocabulary]
    if options.way:
        measure(options.way, *sizes)
        return
    print(f"{sizes[0]} positions, width {sizes[1]}, vocabulary {sizes[2]}, float32, one thread, forward and backward")
    found = {}
    for way in ("naive", "chunked"):
        arguments = [f"--{name}={size}" for name, size in zip(("positions", "width", "vocabulary"), sizes, strict=True)]
        command = [sys.executable, "-m", "tests.benchmarks.learner_logprobs", f"--way={way}", *arguments]
        found[way] = [float(word) for word in subprocess.check_output(command, text=True).split()]
        seconds, peak, total, gradient = found[way]
        print(f"{way:<8} {seconds:6.2f} s  {peak:8.0f} MiB beyond the inputs   sums {total:.3f}, {gradient:.3f}")
    print(f"ratio    {found['naive'][0] / found['chunked'][0]:6.2f}    {found['naive'][1] / found['chunked'][1]:8.1f}")


if __name__ == "__main__":
    main()
