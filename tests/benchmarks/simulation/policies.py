"""The policies that are compared: how far rollout runs ahead, what becomes of stragglers and groups without signal."""

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from orchestration.settings.experiment import TrainingConfig
from tests.benchmarks.simulation.settings import FailureRates


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A choice of `training` settings, and whether actors die."""

    name: str
    max_staleness: int
    run_ahead: int | None = None
    straggler_deadline_s: float | None = None
    oversampling: float = 1.0
    in_flight: Literal["keep", "keep_cache"] = "keep"
    """`rollout.weight_channel.in_flight`."""
    layout: Literal["disaggregated", "colocated"] = "disaggregated"
    checkpoint_every: int | None = None
    """Steps; None saves the last one alone."""
    failures: FailureRates = field(default_factory=FailureRates)

    def training(self, base: TrainingConfig, *, groups_per_step: int, num_steps: int) -> TrainingConfig:
        """The settings of a run."""
        return dataclasses.replace(
            base,
            num_steps=num_steps,
            groups_per_step=groups_per_step,
            max_staleness=self.max_staleness,
            run_ahead=self.run_ahead,
            straggler_deadline_s=self.straggler_deadline_s,
            oversampling=self.oversampling,
            checkpoint_every=self.checkpoint_every or num_steps,
            recorded_groups_per_step=0,
            weight_check_every=5,
        )


DYING = FailureRates(engine_per_hour=4.0, reward_per_hour=4.0)
"""An engine dies every quarter of an hour, on average: far worse than any machine room."""

POLICIES = {
    policy.name: policy
    for policy in (
        Policy(name="sync", max_staleness=0),
        Policy(name="sync_dynamic", max_staleness=0, oversampling=2.0),
        Policy(name="ahead_1", max_staleness=1),
        Policy(name="ahead_2", max_staleness=2),
        Policy(name="ahead_4", max_staleness=4),
        Policy(name="ahead_8", max_staleness=8),
        Policy(name="ahead_2_cache", max_staleness=2, in_flight="keep_cache"),
        Policy(name="ahead_4_cache", max_staleness=4, in_flight="keep_cache"),
        Policy(name="ahead_1_tail_4", max_staleness=4, run_ahead=1, straggler_deadline_s=1.0),
        Policy(name="ahead_2_tail_4", max_staleness=4, run_ahead=2, straggler_deadline_s=1.0),
        Policy(name="ahead_4_dynamic", max_staleness=4, oversampling=2.0),
        Policy(name="ahead_4_dying", max_staleness=4, failures=DYING),
        Policy(name="ahead_2_tail_dying", max_staleness=4, run_ahead=2, straggler_deadline_s=1.0, failures=DYING),
    )
}
