"""What the simulated machines cost: seconds of engines, reward actors, learner and transfer; lengths; failure rates.

The numbers describe a 7B model on one GPU an engine, to the accuracy of a guess: a decoding step of 8 to 11 ms,
answers of a few hundred tokens with a heavy tail, a learner about as fast as the engines. Policies are compared on
them; they predict no machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCosts:
    """An engine that batches continuously: every running sequence gets one token a step."""

    max_num_seqs: int = 32
    step_s: float = 0.008
    """Of one decoding step, whatever runs."""
    step_s_per_sequence: float = 0.0001
    prefill_s_per_token: float = 0.000025
    """Of a prompt, once a group; the step that admits the group is longer by that."""
    keeps_cache: bool = False
    """Whether completions go on after a pause from what was computed before it. Else prompts, once a group, and tokens
    so far are computed again at the price of a prompt, in the first step after it."""
    start_s: float = 60.0
    """From the actor's start until the engine stands."""
    probe_s: float = 0.1
    """To score one completion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerCosts:
    """A training step takes step_s + s_per_token * tokens of the rank that has most; the rest as it says."""

    step_s: float = 1.0
    s_per_token: float = 0.00003
    """Prompt once a group, and completions; groups without a signal are left out, as the learner does."""
    fetch_s: float = 0.1
    transfer_s: float = 0.6
    """Weights to all engines: 15 GB at 25 GB a second."""
    transfer_s_per_doubling: float = 0.05
    """More for every doubling of the engines: a broadcast tree."""
    probe_s: float = 0.3
    """Logprobs of one group, and the same for fingerprints."""
    process_s: float = 10.0
    """Until a rank can say where to meet."""
    start_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardCosts:
    """Seconds to score one group are log-normal."""

    median_s: float = 0.02
    sigma: float = 1.0
    start_s: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Prompts, completions and rewards. Lengths are log-normal: of the prompt's own kind, and around it."""

    group_size: int = 8
    median_tokens: float = 220.0
    sigma_prompt: float = 0.5
    """Of the median length of a prompt's completions."""
    sigma_completion: float = 0.5
    """Of completions around their prompt's median."""
    max_completion_tokens: int = 2048
    task_scales: Mapping[str, float] = field(
        default_factory=lambda: {"match_mcq": 0.6, "iou": 0.8, "chart": 1.0, "open": 1.5, "math": 2.5}
    )
    """Factor on the length, by task; tasks are equally frequent."""
    prompt_tokens: tuple[int, int] = (300, 1200)
    """Least and most, evenly spread."""
    zero_signal_frac: float = 0.4
    """Share of the groups whose completions all earn the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRates:
    """Deaths come as Poisson processes, of every actor on its own."""

    engine_per_hour: float = 0.0
    reward_per_hour: float = 0.0
    learner_per_hour: float = 0.0
    """Of each rank; with one go all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Everything that the simulated parts are made from."""

    engine: EngineCosts = EngineCosts()
    learner: LearnerCosts = LearnerCosts()
    reward: RewardCosts = RewardCosts()
    workload: Workload = field(default_factory=Workload)
    failures: FailureRates = FailureRates()
