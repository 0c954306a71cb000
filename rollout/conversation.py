"""Conversation: the texts of a prompt, and the messages that a chat template renders."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from rollout.records import IMAGE_PLACE, Sample, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSpec:
    """What a run adds to the texts of its rows, and how it calls the chat template.

    Example:
        >>> PromptSpec(task_prompts={"iou": "Write boxes as [x1, y1, x2, y2]."}).system_prompt
        ''
    """

    system_prompt: str = ""
    """Comes first in the system turn, before the row's own; empty for none."""
    task_prompts: Mapping[str, str] = field(default_factory=dict)
    """Task -> text that follows the question of its rows on a line of its own."""
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Further variables of the chat template, such as enable_thinking."""

    @property
    def record(self) -> str:
        """JSON text; equal for equal specs."""
        values = {
            "system_prompt": self.system_prompt,
            "task_prompts": dict(self.task_prompts),
            "template_kwargs": dict(self.template_kwargs),
        }
        return json.dumps(values, sort_keys=True)

    def __hash__(self) -> int:
        return hash(self.record)


@dataclass(frozen=True, slots=True)
class Conversation:
    """The texts of one row that its prompt holds.

    Example:
        >>> Conversation("Where?").messages(num_images=1, spec=PromptSpec())
        [{'role': 'user', 'content': [{'type': 'image'}, {'type': 'text', 'text': 'Where?'}]}]
    """

    question: str
    """The last user turn."""
    system: str = ""
    """The row's own system text; empty for none."""
    history: tuple[Turn, ...] = ()
    """Turns before the question."""
    task: str = ""
    """Of the row; some tasks have a prompt of their own."""

    @classmethod
    def of(cls, sample: Sample) -> Self:
        """Return the texts of a sample."""
        return cls(sample.question, sample.system, sample.history, sample.task)

    def messages(self, *, num_images: int, spec: PromptSpec, in_parts: bool = True) -> list[dict[str, Any]]:
        """Return the messages, each with a list of content parts.

        Args:
            num_images: Of history and question. Images without a place come first in the question.
            spec: Of the run. Its system prompt comes first in the system turn, and the row's system text follows after
                a blank line; its text for the row's task follows the question.
            in_parts: False makes the content of a turn without images its text: chat templates of language models know
                no parts.
        """
        question = self.asked(spec)
        if IMAGE_PLACE not in question:
            question = IMAGE_PLACE * (num_images - self._num_places_in_history) + question
        turns: list[tuple[str, str]] = [*((turn.role, turn.text) for turn in self.history), ("user", question)]
        system = "\n\n".join(text for text in (spec.system_prompt, self.system) if text)
        if system:
            turns.insert(0, ("system", system))
        return [
            {"role": role, "content": _parts(text) if in_parts or IMAGE_PLACE in text else text} for role, text in turns
        ]

    def asked(self, spec: PromptSpec) -> str:
        r"""Return the question with what the run adds for the row's task.

        Example:
            >>> Conversation("Where?", task="iou").asked(PromptSpec(task_prompts={"iou": "In pixels."}))
            'Where?\\nIn pixels.'
        """
        return "\n".join(text for text in (self.question, spec.task_prompts.get(self.task, "")) if text)

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield (name, text) of each text."""
        yield "the question", self.question
        yield "the system turn", self.system
        for number, turn in enumerate(self.history, start=1):
            yield f"turn {number} of the history", turn.text

    @property
    def num_places(self) -> int:
        """Places of images in question and history."""
        return self.question.count(IMAGE_PLACE) + self._num_places_in_history

    def has_places_for(self, num_images: int) -> bool:
        r"""Return whether the places fit a number of images: each has one, or the question has none.

        Example:
            >>> Conversation("Where?").has_places_for(2), Conversation("Is \ufffc like \ufffc?").has_places_for(1)
            (True, False)
        """
        in_question = self.question.count(IMAGE_PLACE)
        return (
            in_question in (0, num_images - self._num_places_in_history) and num_images >= self._num_places_in_history
        )

    @property
    def _num_places_in_history(self) -> int:
        return sum(turn.text.count(IMAGE_PLACE) for turn in self.history)


def _parts(text: str) -> list[dict[str, str]]:
    parts: list[dict[str, str]] = []
    for place, piece in enumerate(text.split(IMAGE_PLACE)):
        parts += [{"type": "image"}] * bool(place) + [{"type": "text", "text": piece}] * bool(piece)
    return parts
