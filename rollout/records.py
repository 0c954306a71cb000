"""Inputs and outputs of the rollout: Sample, Turn, Difficulty, SamplingSpec, Generation, RolloutGroup.

Axes: P prompt tokens (image tokens expanded), T completion tokens, G completions of a group.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rollout.errors import RolloutError

IMAGE_PLACE = "\ufffc"
"""Stands in a question, or in a turn of the history, where an image belongs (U+FFFC, Unicode's object replacement
character); images without a place come first in the question."""
Speaker = Literal["user", "assistant"]
FinishReason = Literal["stop", "length", "abort"]
Fingerprint = tuple[int, int, int]
"""Of a tensor: (number of elements, sum of their bits, sum of bits times position), both sums modulo 2**64 as int64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageBytes:
    """One encoded image with its original size.

    Example:
        >>> ImageBytes(data=b"...png...", width=112, height=112).size
        (112, 112)
    """

    data: bytes
    """The encoded file (PNG, JPEG, WebP), never pixels."""
    width: int
    """Original width in pixels."""
    height: int
    """Original height in pixels."""

    def __post_init__(self) -> None:
        if not self.data:
            raise RolloutError("ImageBytes.data is empty; store the encoded image file")
        if self.width < 1 or self.height < 1:
            raise RolloutError(f"ImageBytes size is {self.width} x {self.height}; both sides must be at least 1 pixel")

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in original pixels."""
        return self.width, self.height


@dataclass(frozen=True, slots=True, kw_only=True)
class Difficulty:
    """Difficulty of one row for a policy: statistics of the task reward over a few sampled completions.

    Example:
        >>> Difficulty(num_completions=4, mean=0.5, std=0.5, min=0.0, max=1.0, pass_rate=0.5, format_rate=1.0,
        ...            agreement=0.5).num_completions
        4
    """

    num_completions: int
    mean: float
    """Of the task reward, without format, in [0, 1]."""
    std: float
    """Population standard deviation over the completions."""
    min: float
    max: float
    pass_rate: float
    """Share of completions whose task reward is 1."""
    format_rate: float
    """Mean format reward."""
    agreement: float
    """Share of the completions that give the most frequent answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One turn of a conversation before the question.

    Example:
        >>> Turn(role="user", text="What is this?").role
        'user'
    """

    role: Speaker
    text: str
    """With an IMAGE_PLACE for each image that it shows."""

    def __post_init__(self) -> None:
        if self.role not in get_args(Speaker):
            raise RolloutError(f"Turn.role is {self.role!r}; use one of {', '.join(get_args(Speaker))}")


def readable(text: str) -> str:
    """Return a text of a sample with `<image>` where an image stands: as rewards, judges and reports get it.

    Example:
        >>> readable("Compare \ufffc with \ufffc.")
        'Compare <image> with <image>.'
    """
    return text.replace(IMAGE_PLACE, "<image>")


def readable_turns(turns: Iterable[Turn]) -> tuple[tuple[str, str], ...]:
    """Return (role, text) of each turn, with `<image>` where an image stands.

    Example:
        >>> readable_turns([Turn(role="user", text="\ufffcWhat is this?")])
        (('user', '<image>What is this?'),)
    """
    return tuple((turn.role, readable(turn.text)) for turn in turns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One task row: a question about images, with its reference answer.

    Example:
        >>> Sample(sample_id="7f", source="demo/bar", task="chart", question="How tall is red?", answer="4").images
        ()
    """

    sample_id: str
    """Unique within a dataset; the identity that metrics and resume use."""
    source: str
    """Dataset that the row comes from, for per-source metrics."""
    task: str
    """Task, which chooses the reward: match_yesno | match_mcq | match_text | chart | counting | ocr | iou | pointing |
    open | math."""
    question: str
    """The last user turn, options included; holds no placeholder tokens, and no IMAGE_PLACE or one for each image that
    the history does not show."""
    answer: str
    """The reference: text, a letter, a number, or boxes as JSON in original pixels."""
    system: str = ""
    """The row's own system text; follows rollout.system_prompt in the system turn. Empty for none."""
    history: tuple[Turn, ...] = ()
    """Turns before the question, oldest first."""
    images: tuple[ImageBytes, ...] = ()
    """In the order of their places in history and question."""
    options: tuple[str, ...] = ()
    """Option texts of a multiple-choice row, in the order A, B, C, ..."""
    answer_type: str = ""
    """Type of the reference where the task leaves it open (number, year, text, list, ...)."""
    source_id: str = ""
    """The row's name inside its source, so that it can be found there again."""
    license: str = ""
    """Licence of the source, as its recipe states it."""
    stratum: str = ""
    """Difficulty class that the data engine put the row in (easy, medium, ...); empty where it was not measured."""
    prompt_tokens: int | None = None
    """Tokens of the whole prompt, image tokens included; None where it was not measured."""
    image_tokens: int | None = None
    """Tokens that the images take of it."""
    difficulty: Difficulty | None = None
    """None where no completions were sampled when the data was built."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Further fields of the source: question template, category, original image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSpec:
    """Sampling settings of one group.

    Example:
        >>> SamplingSpec(group_size=8, temperature=1.0, max_completion_tokens=64, seed=3).greedy
        False
    """

    group_size: int
    """G, completions per prompt."""
    temperature: float
    """0 is greedy decoding."""
    max_completion_tokens: int
    top_p: float = 1.0
    """Share of the probability that is sampled from; 1 is all."""
    top_k: int = 0
    """Most likely tokens that are sampled from; 0 is all."""
    min_p: float = 0.0
    """Least probability of a token that is sampled from, in units of the most likely one's."""
    stop: tuple[str, ...] = ()
    """Texts that end a completion."""
    keeps_stop: bool = False
    """Whether the text that ended a completion is a part of it."""
    seed: int = 0
    """Of the whole group; completion i samples with seed + i."""

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is taken at every step."""
        return self.temperature == 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One completion as the engine sampled it.

    Example:
        >>> Generation(token_ids=[5, 2], logprobs=[-0.1, -0.2], finish_reason="stop", weight_version_start=3,
        ...            weight_version_end=3).token_ids.dtype
        dtype('int32')
    """

    token_ids: NDArray[np.int32]
    """[T] with the end-of-turn token when finish_reason is stop."""
    logprobs: NDArray[np.float32]
    """[T] log-probabilities under the behaviour policy, at the sampling temperature."""
    finish_reason: FinishReason
    weight_version_start: int
    """Weight version that sampled the first token."""
    weight_version_end: int
    """Weight version that sampled the last token."""
    stop: str = ""
    """Text of SamplingSpec.stop that ended it and is no part of it, although its tokens are; empty for none."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "token_ids", read_only(self.token_ids, np.int32))
        object.__setattr__(self, "logprobs", read_only(self.logprobs, np.float32))
        if self.token_ids.shape != self.logprobs.shape or self.token_ids.ndim != 1:
            raise RolloutError(
                f"Generation needs token_ids and logprobs of one length [T]; got {self.token_ids.shape} and "
                f"{self.logprobs.shape}"
            )

    def without_stop(self, text: str) -> str:
        """Return the decoded text up to the stop that ended it.

        Example:
            >>> ended = Generation(token_ids=[5], logprobs=[-0.1], finish_reason="stop", weight_version_start=0,
            ...                    weight_version_end=0, stop="Question:")
            >>> ended.without_stop("Paris. Question: W")
            'Paris. '
        """
        end = text.rfind(self.stop) if self.stop else -1
        return text[:end] if end >= 0 else text


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutGroup:
    """G completions of one prompt; prompt and images are stored once.

    Example:
        >>> RolloutGroup(group_id="0-0", sample=sample, prompt_token_ids=[1, 2], generations=(generation,),
        ...              image_input_sizes=(), seconds=0.2)  # doctest: +SKIP
    """

    group_id: str
    """Explicit identity from row to gradient; two groups of one question never share it."""
    sample: Sample
    prompt_token_ids: NDArray[np.int32]
    """[P] with every image token in place."""
    generations: tuple[Generation, ...]
    """The G completions, in seed order."""
    image_input_sizes: tuple[tuple[int, int], ...] = field(default=())
    """(width, height) of each image as the model sees it, after the processor's resize."""
    seconds: float = 0.0
    """Wall time from request to last token."""
    num_aborted_tokens: int = 0
    """Sampled and thrown away, because new weights arrived first (`in_flight: abort`)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompt_token_ids", read_only(self.prompt_token_ids, np.int32))
        if not self.generations:
            raise RolloutError(f"RolloutGroup {self.group_id} holds no generation")
        if len(self.image_input_sizes) != len(self.sample.images):
            raise RolloutError(
                f"RolloutGroup {self.group_id} has {len(self.sample.images)} images and "
                f"{len(self.image_input_sizes)} input sizes"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedPicture:
    """One picture as a vision tower gets it.

    Example:
        >>> EncodedPicture(grid=(1, 8, 8), pixels=(75264, 12, 34), num_values=200).grid
        (1, 8, 8)
    """

    grid: tuple[int, ...]
    """Its shape in rows of the family's tower: (frames, patch rows, patch columns), or (tiles,)."""
    pixels: Fingerprint
    """Of its rows as integers 0 to 255, before normalisation: some families normalise on the GPU."""
    num_values: int
    """Number of distinct values among them; very few if pixels were lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedPrompt:
    """One prompt as a model gets it, whichever side has encoded it.

    Example:
        >>> EncodedPrompt(token_ids=(5, 7, 7, 6), pictures=(), input_sizes=(), template="9f").token_ids
        (5, 7, 7, 6)
    """

    token_ids: tuple[int, ...]
    """[P] with every image token in place."""
    pictures: tuple[EncodedPicture, ...]
    """In the order of their tokens in the prompt."""
    input_sizes: tuple[tuple[int, int], ...]
    """(width, height) of each picture in which boxes are read; see `EnginePrompt`."""
    template: str
    """Digest of the chat template."""


def read_only(values: object, dtype: type[np.generic]) -> NDArray[np.generic]:
    """Return a read-only array of `dtype`; copies only when the input is writable or of another type."""
    array = np.asarray(values, dtype=dtype)
    if array.flags.writeable:
        array = array.copy()
        array.flags.writeable = False
    return array


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """Request counts of an engine; two equal records mean that it was idle in between.

    Example:
        >>> Activity(num_requests=12, num_unfinished=0) == Activity(num_requests=12, num_unfinished=0)
        True
    """

    num_requests: int
    """Groups and probes that came in, since the engine was built."""
    num_unfinished: int
    """Requests among them that are not answered."""
