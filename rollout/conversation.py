"""Conversation: the texts of a prompt, and the messages that a chat template renders."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from rollout.records import IMAGE_PLACE, Sample, Turn


@dataclass(frozen=True, slots=True)
class Conversation:
    """The texts of one row that its prompt holds.

    Example:
        >>> Conversation("Where?").messages(num_images=1, system_prompt="")
        [{'role': 'user', 'content': [{'type': 'image'}, {'type': 'text', 'text': 'Where?'}]}]
    """

    question: str
    """The last user turn."""
    system: str = ""
    """The row's own system text; empty for none."""
    history: tuple[Turn, ...] = ()
    """Turns before the question."""

    @classmethod
    def of(cls, sample: Sample) -> Self:
        """Return the texts of a sample."""
        return cls(sample.question, sample.system, sample.history)

    def messages(self, *, num_images: int, system_prompt: str) -> list[dict[str, Any]]:
        """Return the messages, each with a list of content parts.

        Args:
            num_images: Of history and question. Images without a place come first in the question.
            system_prompt: Of the run, which comes first in the system turn; the row's system text follows after a blank
                line. Empty for none.
        """
        question = self.question
        if IMAGE_PLACE not in question:
            question = IMAGE_PLACE * (num_images - self._num_places_in_history) + question
        turns: list[tuple[str, str]] = [*((turn.role, turn.text) for turn in self.history), ("user", question)]
        system = "\n\n".join(text for text in (system_prompt, self.system) if text)
        if system:
            turns.insert(0, ("system", system))
        return [{"role": role, "content": _parts(text)} for role, text in turns]

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
