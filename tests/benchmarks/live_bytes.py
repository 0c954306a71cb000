"""How many bytes of tensors are alive at the fullest moment of a call, and how much memory the process has."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile


def peak_live_bytes(run: Callable[[], object]) -> int:
    """Give the most bytes that torch's CPU allocator held at once beyond what it held before `run`.

    Every allocation counts, temporaries inside of operations and collectives included. What `run` frees of memory that
    was there before does not count, so it should leave as much as it finds: a step that is not the first.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run()
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def storage_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Add up storages, each once however many tensors look at it."""
    found = {}
    for tensor in tensors:
        local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
        storage = local.untyped_storage()
        found[storage._cdata] = storage.nbytes()
    return sum(found.values())


def reset_peak_rss() -> None:
    """Begin to look for this process's largest resident set anew."""
    Path("/proc/self/clear_refs").write_text("5")


def anonymous_bytes(*, peak: bool) -> int:
    """Give the memory of this process that is no file's: now, or the most since `reset_peak_rss`.

    The kernel keeps the peak of the whole resident set only; mapped files are taken to be as large then as now.
    """
    status = dict(re.findall(r"^(\w+):\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE))
    if not peak:
        return 1024 * int(status["RssAnon"])
    return 1024 * (int(status["VmHWM"]) - int(status["RssFile"]) - int(status["RssShmem"]))
