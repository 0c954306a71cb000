"""vLLM's scheduler, with the vision inputs left in every request.

vLLM 0.32 does not send a request's image data to the worker when the prompt is found in the prefix cache: all
completions of a group but the first. A pause for new weights clears that cache and starts the running requests over;
the worker then has to encode an image that it was never given, and the whole engine dies. The scheduler still has the
data, so it is put back here. Cost: image features travel once a completion instead of once a group, from the engine's
core to its workers on the same machine.
"""

import atexit
import gc
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler

from rollout.core_watch import die_with_parent


class _KeepsVisionInputs:
    """Mixin over a scheduler: requests reach the worker with their images."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Build the scheduler; vLLM does so once, in the engine's core process, which is to go when the engine goes."""
        die_with_parent()
        atexit.register(gc.freeze)  # a process that ends need not look for cycles, which takes it seconds
        super().__init__(*arguments, **options)

    def schedule(self, *arguments: Any, **options: Any) -> SchedulerOutput:
        output: SchedulerOutput = super().schedule(*arguments, **options)  # type: ignore[misc]
        for request in output.scheduled_new_reqs:
            request.mm_features = self.requests[request.req_id].mm_features  # type: ignore[attr-defined]
        return output


class KeepVisionScheduler(_KeepsVisionInputs, Scheduler):
    """For engines that schedule step by step (CPU)."""


class KeepVisionAsyncScheduler(_KeepsVisionInputs, AsyncScheduler):
    """For engines that schedule the next step while the device works on this one (GPU)."""
