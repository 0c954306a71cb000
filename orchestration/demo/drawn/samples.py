"""DemoSample, one question about one picture, and the demonstrations that show how to answer it."""

import hashlib
import random
from dataclasses import dataclass, field, fields

END_OF_TURN = "<|im_end|>"
"""Closes every turn of the chat, the completion included."""

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
"""The envelope of a completion; each is one token of the tiny model."""

FORMAT_FAULT_SHARE = 0.25
"""Share of faulty demonstrations whose fault is in the tags; the others reach a wrong answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """A thought and the answer that follows from it.

    Example:
        >>> Solution(think="red is 4", answer="4").text
        '<think>red is 4</think><answer>4</answer>'
    """

    think: str
    answer: str

    @property
    def text(self) -> str:
        """The completion without its end-of-turn token."""
        return f"<think>{self.think}</think><answer>{self.answer}</answer>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked about a picture, the right solution, and slips: wrong solutions of a careless annotator."""

    source: str
    """Where the row comes from: `demo/` and the kind of picture or question."""
    task: str
    """Which reward reads it: match_yesno | match_mcq | chart | iou | open."""
    question: str
    """The user turn, options included."""
    solution: Solution
    slips: tuple[Solution, ...]
    """At least one; each is well-formed and wrong."""
    options: tuple[str, ...] = ()
    answer_type: str = ""
    """number | text for charts, empty elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSample(Question):
    """One generated row: a question with its picture and reference."""

    image_png: bytes = field(repr=False)
    image_size: tuple[int, int]
    """(width, height) in pixels."""
    scene_digest: str
    """Digest of what is drawn; no digest occurs in both splits."""
    answer: str
    """The reference; boxes as JSON in pixels of the picture, in whatever frame demonstrations write them."""

    @property
    def sample_id(self) -> str:
        """Digest of picture and question: equal rows have equal ids, whatever seed drew them."""
        return hashlib.blake2b(f"{self.scene_digest}/{self.question}".encode(), digest_size=10).hexdigest()

    def demonstration(self, rng: random.Random, *, fault_frac: float = 0.0) -> str:
        """Return the text of a completion to imitate, end-of-turn token included.

        Args:
            rng: Decides whether there is a fault, and which.
            fault_frac: Probability of a fault, in [0, 1].
        """
        if rng.random() >= fault_frac:
            return self.solution.text + END_OF_TURN
        if rng.random() < FORMAT_FAULT_SHARE:
            return break_format(self.solution, rng) + END_OF_TURN
        return rng.choice(self.slips).text + END_OF_TURN


def make_sample(asked: Question, *, image_png: bytes, image_size: tuple[int, int], scene_digest: str) -> DemoSample:
    """Join a question with its picture."""
    return DemoSample(
        **{item.name: getattr(asked, item.name) for item in fields(asked)},
        image_png=image_png,
        image_size=image_size,
        scene_digest=scene_digest,
        answer=asked.solution.answer,
    )


def break_format(solution: Solution, rng: random.Random) -> str:
    """Return the right solution in an envelope that the format reward refuses: a tag missing or out of order."""
    think, answer = f"<think>{solution.think}</think>", f"<answer>{solution.answer}</answer>"
    broken = (
        f"{think}<answer>{solution.answer}",
        f"<think>{solution.think}{answer}",
        f"{think}{solution.answer}",
        f"{answer}{think}",
        answer,
    )
    return rng.choice(broken)
