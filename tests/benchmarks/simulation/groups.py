"""What a simulated group holds; lengths and rewards are drawn from its seed alone, so that policies compare."""

import math
import random
from dataclasses import dataclass
from pathlib import Path

from orchestration.workers.tickets import GroupSummary
from rollout.dataset import write_samples
from rollout.records import ImageBytes, Sample, SamplingSpec
from tests.benchmarks.simulation.batch_server import GroupRequest
from tests.benchmarks.simulation.settings import Workload

FAMILIES = {
    "match_mcq": "matching",
    "iou": "grounding",
    "chart": "chart",
    "open": "open_ended",
    "math": "math",
}
"""Task -> reward function."""
NUM_ROWS = 1024


@dataclass(slots=True, eq=False)
class SimulatedGroup:
    """A group on its way: what the object store would hold."""

    group_id: str
    sample: Sample
    request: GroupRequest
    rewards: tuple[float, ...]
    max_completion_tokens: int
    version_end: int = -1
    rollout_s: float = 0.0

    @property
    def has_signal(self) -> bool:
        """Whether the rewards differ."""
        return max(self.rewards) > min(self.rewards)

    @property
    def num_tokens(self) -> int:
        """Prompt once, and completions."""
        return self.request.prompt_tokens + sum(self.request.lengths)

    def summary(self, score_s: float) -> GroupSummary:
        """What the reward actor tells the driver."""
        lengths, start = self.request.lengths, self.request.version_start
        return GroupSummary(
            function=FAMILIES[self.sample.task],
            source=self.sample.source,
            rewards=self.rewards,
            task_rewards=self.rewards,
            format_rewards=(1.0,) * len(lengths),
            num_prompt_tokens=self.request.prompt_tokens,
            num_completion_tokens=sum(lengths),
            num_truncated=sum(length == self.max_completion_tokens for length in lengths),
            failures=(),
            reasons=("ok",) * len(lengths),
            weight_version=start,
            num_spanning=len(lengths) if self.version_end > start else 0,
            rollout_s=self.rollout_s,
            score_s=score_s,
        )


def draw_group(group_id: str, sample: Sample, spec: SamplingSpec, workload: Workload) -> SimulatedGroup:
    """Draw lengths and rewards of one group."""
    generator = random.Random(spec.seed)
    median = workload.median_tokens * workload.task_scales[sample.task]
    median *= math.exp(workload.sigma_prompt * generator.gauss(0.0, 1.0))
    lengths = [
        min(
            spec.max_completion_tokens,
            max(1, round(median * math.exp(workload.sigma_completion * generator.gauss(0.0, 1.0)))),
        )
        for _ in range(spec.group_size)
    ]
    rewards = [float(generator.random() < 0.5) for _ in range(spec.group_size)]
    if generator.random() < workload.zero_signal_frac:
        rewards = rewards[:1] * spec.group_size
    elif len(set(rewards)) == 1:
        rewards[0] = 1.0 - rewards[0]
    return SimulatedGroup(
        group_id=group_id,
        sample=sample,
        request=GroupRequest(lengths=lengths, prompt_tokens=sample.prompt_tokens or 0),
        rewards=tuple(rewards),
        max_completion_tokens=spec.max_completion_tokens,
    )


def write_prompts(path: Path, workload: Workload, *, seed: int) -> None:
    """Write a dataset of the tasks in turn, with prompts of random lengths and a small image each."""
    generator = random.Random(seed)
    image = ImageBytes(data=b"\x89PNG" + bytes(200), width=640, height=480)
    tasks = list(workload.task_scales)
    write_samples(
        path,
        (
            Sample(
                sample_id=f"s{row}",
                source=f"simulated/{tasks[row % len(tasks)]}",
                task=tasks[row % len(tasks)],
                question="What is it?",
                answer="A",
                images=(image,),
                prompt_tokens=generator.randint(*workload.prompt_tokens),
            )
            for row in range(NUM_ROWS)
        ),
    )
