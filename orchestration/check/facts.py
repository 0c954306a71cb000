"""What a check has found, as plain records: `probes` fills them in, `verdicts` judges them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from learner.records import RankMemory
from rollout.records import EncodedPrompt


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """One machine, as a process on it sees it."""

    node: str
    versions: Mapping[str, str]
    """Package -> version; `code` is the project's commit."""
    driver: str | None
    """Of NVIDIA's kernel module; None without one."""
    driver_fault: str | None
    """What is wrong with it."""
    model_files: Mapping[str, str]
    """File of the model folder -> digest; of weights the size alone."""
    sees_run_dir: bool
    """Whether what the command has just written into run_dir is there."""
    is_seen: bool = False
    """Whether what this machine has written there is seen by the command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFacts:
    """One publication of weights."""

    version: int
    seconds: float
    """Pause, transfer and resume."""
    num_bytes: int
    """That one engine receives."""
    num_sent: int
    num_moved: int | None
    """Tensors that the learner changed since the publication before; None of the first."""
    compared: Mapping[int, int]
    """Engine -> tensors of it that could be compared with the learner's."""
    wrong: Mapping[int, tuple[str, ...]]
    """Engine -> its tensors that are not the learner's."""
    stale: Mapping[int, tuple[str, ...]]
    """Engine -> those of them that are as the publication before left them."""
    unsent: Mapping[int, tuple[str, ...]]
    """Engine -> its tensors for which nothing is sent."""
    unread: Mapping[int, tuple[str, ...]]
    """Engine -> names that were sent and cannot be read back: on CPU, vLLM keeps matrices packed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptFacts:
    """One prompt, as both sides make it of the same text and files."""

    name: str
    image_sizes: tuple[tuple[int, int], ...]
    """(width, height) of the pictures as they were drawn."""
    engines: tuple[EncodedPrompt, ...]
    ranks: tuple[EncodedPrompt, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledFacts:
    """What one engine has answered to one prompt."""

    prompt: str
    engine: int
    num_tokens: int
    banned: tuple[str, ...]
    """Placeholders of pictures that were sampled."""
    versions: tuple[int, ...]
    """Of the weights that sampled."""
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreFacts:
    """Logprobs of the same completions of one prompt by one engine and by the learner.

    All are means of |difference| over the tokens of a completion, one value a completion.
    """

    prompt: str
    engine: int
    version: int
    """Of the weights."""
    difference: tuple[float, ...]
    """Engine from learner."""
    to_others: Mapping[str, tuple[float, ...]]
    """Engine from the learner under what would explain a fault: `stale` weights, `swapped` or `blank` pictures."""
    effects: Mapping[str, tuple[float, ...]]
    """The learner from itself under each of these: a fault that moves it by less would not be seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFacts:
    """One training step."""

    seconds: float
    num_groups: int
    num_tokens: int
    metrics: Mapping[str, float]
    before: tuple[RankMemory, ...]
    """By rank, right before the step."""
    after: tuple[RankMemory, ...]
    """By rank, with the peak of the step."""
    planned_bytes: int
    """Of a rank, by `mixed-r1 plan`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFacts:
    """One checkpoint, written and deleted."""

    place: str
    num_bytes: int
    stage_s: float
    """While which training waits."""
    upload_s: float


@dataclass(slots=True, kw_only=True)
class Facts:
    """Everything that was found; what was not reached is empty."""

    nodes: list[NodeFacts] = field(default_factory=list)
    rank_links_s: Mapping[int, float] = field(default_factory=dict)
    """Rank -> seconds of `link_bytes` from rank 0 to it and back."""
    link_bytes: int = 0
    engine_links_s: Mapping[int, float] = field(default_factory=dict)
    """Engine -> seconds of all weights to it alone."""
    places: Mapping[str, str] = field(default_factory=dict)
    """`engine 0`, `rank 0`, ... -> machine."""
    prompts: list[PromptFacts] = field(default_factory=list)
    sampled: list[SampledFacts] = field(default_factory=list)
    weights: list[WeightFacts] = field(default_factory=list)
    scores: list[ScoreFacts] = field(default_factory=list)
    turn_s: Mapping[str, float] = field(default_factory=dict)
    """Colocated: seconds by turn."""
    is_idle_in_turn: bool | None = None
    """Colocated: whether no engine was asked anything while it was the learner's turn."""
    step: StepFacts | None = None
    checkpoint: CheckpointFacts | None = None
    failure: tuple[str, str] | None = None
    """What was being looked at when an error ended the check, and the error."""
