"""RewardInput: what a reward function of the user's is given of a completion."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from rewards.core.base import RewardRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardInput:
    """One completion with the question and the reference that belong to it.

    Example:
        >>> request = RewardRequest(task="chart", question="How tall is red?", answer="45",
        ...                         response="<think>The axis says 45.</think><answer>47</answer>")
        >>> given = RewardInput.of(request, "47")
        >>> given.parsed_answer, given.reference
        ('47', '45')
    """

    task: str
    source: str
    """The dataset that the row comes from."""
    question: str
    """The last user turn, with `<image>` where an image stands that does not come first."""
    history: tuple[tuple[str, str], ...]
    """(role, text) of the turns before the question; role is user or assistant."""
    response: str
    """The completion as text, tags included."""
    parsed_answer: str | None
    """Body of the answer block; None where there is none that counts."""
    reference: str
    """A label, a number, text, or boxes as JSON in original pixels."""
    options: tuple[str, ...]
    """Option texts in the order A, B, C, ..."""
    answer_type: str
    """number | year | text | list | bool, or empty."""
    truncated: bool
    """Whether sampling stopped without an end-of-turn token."""
    image_sizes: tuple[tuple[int, int], ...]
    """(width, height) of each image in original pixels."""
    image_input_sizes: tuple[tuple[int, int], ...]
    """(width, height) of each image as the model sees it."""
    coord_mode: str
    """Frame of the model's boxes: pixel (original), pixel_resized (as the model sees it), norm1000, norm1."""
    metadata: Mapping[str, str]
    """Further fields of the row's source."""

    @classmethod
    def of(cls, request: RewardRequest, parsed_answer: str | None) -> Self:
        """Return what a function sees of a request."""
        return cls(
            task=request.task,
            source=request.source,
            question=request.question,
            history=request.history,
            response=request.response,
            parsed_answer=parsed_answer,
            reference=request.answer,
            options=request.options,
            answer_type=request.answer_type,
            truncated=request.truncated,
            image_sizes=request.image_sizes,
            image_input_sizes=request.image_input_sizes,
            coord_mode=request.coord_mode,
            metadata=dict(request.metadata),
        )

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return what `dataclasses.asdict` and JSON made of one."""
        pairs = {name: tuple(map(tuple, values[name])) for name in ("image_sizes", "image_input_sizes", "history")}
        metadata = dict(values["metadata"])  # of this completion alone, whatever a function does to it
        return cls(**{**values, **pairs, "options": tuple(values["options"]), "metadata": metadata})
