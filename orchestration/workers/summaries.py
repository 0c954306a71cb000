"""Groups of which only the summary is needed: sampled, scored, and their tokens discarded."""

from typing import TYPE_CHECKING

from orchestration.settings.errors import PayloadLostError, ScoringError
from orchestration.workers.tickets import GroupSummary
from rollout.records import Sample, SamplingSpec

if TYPE_CHECKING:
    from orchestration.workers.engine_pool import EnginePool
    from orchestration.workers.reward_pool import RewardPool

TRIES = 3
"""A group that vanishes with a node is sampled again; one that vanishes so often finds no room anywhere."""


async def summary_of(
    engines: "EnginePool", rewards: "RewardPool", group_id: str, sample: Sample, spec: SamplingSpec
) -> GroupSummary:
    """Sample and score one group, and return its summary with its texts; its tokens are discarded.

    Raises:
        RolloutError: the sample cannot be a prompt.
        ScoringError: no reward actor could score the group, or it was lost `TRIES` times.
    """
    for _ in range(TRIES):
        try:
            group = await engines.generate_group(group_id, sample, spec)
            return (await rewards.score(group, keep_texts=True))[1]
        except PayloadLostError as error:
            lost = error
    raise ScoringError(f"the group was lost {TRIES} times: {lost}")
