"""Inputs and outputs of the learner: ScoredSequence, ScoredGroup, StepReport, RankMemory.

Axes: P prompt tokens (image tokens expanded), T completion tokens, G completions of a group.
"""

import math
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from learner.errors import LearnerError

ScalarT = TypeVar("ScalarT", bound=np.generic)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredSequence:
    """One completion with its reward.

    Example:
        >>> sequence = ScoredSequence(completion_token_ids=[7, 8, 2], behaviour_logprobs=[-0.1, -1.2, -0.3], reward=1.0,
        ...                           truncated=False)
        >>> sequence.num_tokens, sequence.behaviour_logprobs.dtype
        (3, dtype('float32'))
    """

    completion_token_ids: NDArray[np.int32]
    """[T] with the end-of-turn token when the completion was not truncated; T >= 1."""
    behaviour_logprobs: NDArray[np.float32]
    """[T] log-probabilities under the weights that sampled, at the sampling temperature."""
    reward: float
    truncated: bool
    """Whether the completion hit the length limit."""
    masked: bool = False
    """Whether the grader failed: the sequence is left out of group statistics and of the loss."""
    parts: tuple[float, ...] = ()
    """Unweighted values of the reward's parts, in the order of ScoredGroup.parts; empty where they are not kept."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "completion_token_ids", read_only(self.completion_token_ids, np.int32))
        object.__setattr__(self, "behaviour_logprobs", read_only(self.behaviour_logprobs, np.float32))
        tokens, logprobs = self.completion_token_ids.shape, self.behaviour_logprobs.shape
        if tokens != logprobs or len(tokens) != 1 or tokens[0] == 0:
            raise LearnerError(
                f"ScoredSequence needs completion_token_ids and behaviour_logprobs of one length [T], T >= 1; got "
                f"{tokens} and {logprobs}"
            )
        if not math.isfinite(self.reward):
            raise LearnerError(
                f"ScoredSequence.reward is {self.reward}; give a finite number, or masked=True when grading failed"
            )
        if not all(math.isfinite(value) for value in self.parts):
            raise LearnerError(
                f"ScoredSequence.parts is {self.parts}; give finite numbers, or none and masked=True if grading failed"
            )

    @property
    def num_tokens(self) -> int:
        """T, the completion's length."""
        return len(self.completion_token_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredGroup:
    """G scored completions of one prompt; prompt and images are stored once.

    Example:
        >>> group = ScoredGroup(group_id="0-17", task="chart", prompt_token_ids=[5, 6], images=(),
        ...                     sequences=(sequence,))  # doctest: +SKIP
        >>> group.num_completion_tokens  # doctest: +SKIP
        3
    """

    group_id: str
    """Explicit identity from row to gradient; two groups of one question never share it."""
    task: str
    """Whose rewards are scaled together, with `scale: task`."""
    prompt_token_ids: NDArray[np.int32]
    """[P] with every image token in place; P >= 1."""
    images: tuple[bytes, ...]
    """Encoded files (PNG, JPEG, WebP), in the order of their tokens in the prompt."""
    sequences: tuple[ScoredSequence, ...]
    """The G completions."""
    parts: tuple[tuple[str, float], ...] = ()
    """Name and weight of each part of the reward, no name twice; empty where parts are not kept."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompt_token_ids", read_only(self.prompt_token_ids, np.int32))
        if self.prompt_token_ids.ndim != 1 or len(self.prompt_token_ids) == 0:
            raise LearnerError(
                f"ScoredGroup {self.group_id}: prompt_token_ids must be [P] with P >= 1; got shape "
                f"{self.prompt_token_ids.shape}"
            )
        if not self.sequences:
            raise LearnerError(f"ScoredGroup {self.group_id} holds no sequence; drop the group instead")
        self._check_parts()

    @property
    def num_completion_tokens(self) -> int:
        """Completion tokens of all sequences, masked ones included."""
        return sum(sequence.num_tokens for sequence in self.sequences)

    def _check_parts(self) -> None:
        names = [name for name, _ in self.parts]
        if len(set(names)) < len(names) or not all(math.isfinite(weight) for _, weight in self.parts):
            raise LearnerError(
                f"ScoredGroup {self.group_id}: parts is {self.parts}; name each part once, with a finite weight"
            )
        for index, sequence in enumerate(self.sequences):
            if len(sequence.parts) != len(names) and (sequence.parts or not sequence.masked):
                raise LearnerError(
                    f"ScoredGroup {self.group_id}: sequence {index} has {len(sequence.parts)} parts, the group names "
                    f"{len(names)}; give a value for each, or none to a masked sequence"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """Report of one training step; the same on every rank.

    Example:
        >>> StepReport(step=0, weight_version=1, metrics={"policy/loss": 0.01}, seconds={"forward_backward": 0.4}).step
        0
    """

    step: int
    """Training step, counted from 0."""
    weight_version: int
    """Training steps taken so far, this one included."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Path-like name -> value; defined in learner/README.md."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Phase -> wall time on rank 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankMemory:
    """Memory of a rank on its device: its GPU, or this machine.

    Example:
        >>> RankMemory(device="cpu", peak_bytes=20, total_bytes=100).peak_bytes
        20
    """

    device: str
    """Name of the GPU, or cpu."""
    peak_bytes: int
    """Highest since the last reset: reserved by torch on a GPU, resident of the process on a CPU."""
    total_bytes: int
    """Of the whole device."""


def read_only(values: object, dtype: type[ScalarT]) -> NDArray[ScalarT]:
    """Return a read-only array of `dtype`; copies only when the input is writable or of another type."""
    array: NDArray[ScalarT] = np.asarray(values, dtype=dtype)
    if array.flags.writeable:
        array = array.copy()
        array.flags.writeable = False
    return array
