"""Records of a check: facts that `probes` collects, and rows with a verdict that `verdicts` makes of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from learner.records import RankMemory
from rewards.core.config import GroundingConfig
from rollout.records import EncodedPrompt

TIMES_SLOWER = 3.0
"""Than the median of the others: a link or an engine that counts as slow. Healthy ones differ by a third."""
SLOW_S = 0.5
"""By which it must be slower as well: smaller differences come from the machine's other work."""
SHOWN = 3
"""Names in a row; the JSON file has all."""
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.05}
"""Mean |difference| of logprobs over a completion, at the median of all completions; in bfloat16 two kernels round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """One machine, as seen by a process on it."""

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
    """Whether the file that the command has just written into run_dir is there."""
    is_seen: bool = False
    """Whether the command sees the file that this machine has written there."""


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
    """One prompt, as engines and ranks process the same text and images."""

    name: str
    image_sizes: tuple[tuple[int, int], ...]
    """(width, height) of the images as they were drawn."""
    engines: tuple[EncodedPrompt, ...]
    ranks: tuple[EncodedPrompt, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledFacts:
    """Completions of one engine for one prompt."""

    prompt: str
    engine: int
    num_tokens: int
    banned: tuple[str, ...]
    """Placeholders of images that were sampled."""
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
    """Engine from the learner under possible causes of a fault: `stale` weights, `swapped` or `blank` images."""
    effects: Mapping[str, tuple[float, ...]]
    """The learner from itself under each of these; a small effect means that the fault would not be detected."""


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
    """Everything that was found; parts that were not reached are empty."""

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
    """The part of the check that an error ended, and the error."""


Verdict = Literal["ok", "fault", "open"]
"""open: the check could not tell, and says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    what: str
    found: str
    expected: str
    verdict: Verdict
    remedy: str = ""


def judged(what: str, fault: str, *, otherwise: str, expected: str, remedy: str) -> Row:
    """Return a row that says `fault` and the remedy, or, where that is empty, `otherwise` and that all is right."""
    if fault:
        return Row(what=what, found=fault, expected=expected, verdict="fault", remedy=remedy)
    return Row(what=what, found=otherwise, expected=expected, verdict="ok")


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectations:
    """What should be found, by the settings."""

    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    """The less exact one of engines and learner."""
    coord_mode: str
    family_frame: str
    """In which models of this family answer boxes."""
    patch_side: int | None
    """Pixels of a row of the vision tower; None for towers that take whole tiles."""
    grounding: GroundingConfig
    learns: bool
    """Whether a training step is to move weights."""


def shortened(names: Iterable[str]) -> str:
    """Return the first names of a list, and how many more there are; check.json has all."""
    known = list(names)
    more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
    return ", ".join(known[:SHOWN]) + more


def outliers(seconds: Mapping[int, float]) -> list[int]:
    """Return those that take much longer than the median of the others.

    Example:
        >>> outliers({0: 1.0, 1: 1.1, 2: 0.9, 3: 6.0})
        [3]
        >>> outliers({0: 0.01, 1: 0.05})
        []
    """
    slow = []
    for index, value in seconds.items():
        others = [other for place, other in seconds.items() if place != index]
        if others and value > TIMES_SLOWER * median(others) and value > median(others) + SLOW_S:
            slow.append(index)
    return slow


def placed(kind: str, index: int, places: Mapping[str, str]) -> str:
    """Return an actor's name, with its machine where that is known."""
    name = f"{kind} {index}"
    return f"{name} on {places[name]}" if name in places else name
