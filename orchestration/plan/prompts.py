"""The dataset against the run's limits: how long prompts are, and which rows the run will not take. Pictures stay shut.

Refused are the rows that the run itself refuses (rollout/prompt.py and vLLM's own check of a prompt's length).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestration.plan.lengths import Histogram
from orchestration.plan.ruler import PromptRuler, Size
from orchestration.settings.experiment import ExperimentConfig
from rollout.dataset import SampleTable
from rollout.prompt import PLACEHOLDER_TOKENS

Reason = Literal["too_many_images", "placeholder_in_question", "image_refused", "prompt_too_long", "completion_cut"]

REASONS: Mapping[Reason, str] = {
    "too_many_images": "more images than rollout.engine.max_images_per_prompt",
    "placeholder_in_question": "a vision placeholder stands in the question",
    "image_refused": "the processor takes no image of such a shape",
    "prompt_too_long": "prompt of rollout.engine.max_model_len tokens or more",
    "completion_cut": "prompt that leaves less than max_completion_tokens: taken, long completions are cut",
}
"""What each reason means; all but the last are refused."""
NUM_EXAMPLES = 3
MOST_MEASURED = 8192
"""Rows that a plan measures itself, evenly over all; more would take longer than a plan may."""
COLUMNS = (
    "sample_id",
    "question",
    "images.list.element.width",
    "images.list.element.height",
    "images.list.element.size_bytes",
    "prompt_tokens",
    "image_tokens",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlier:
    """Rows that do not fit a limit.

    Example:
        >>> Outlier(reason="prompt_too_long", num_rows=2, examples=("a", "b")).is_refused
        True
    """

    reason: Reason
    num_rows: int
    examples: tuple[str, ...]
    """Sample ids of the first ones."""

    @property
    def is_refused(self) -> bool:
        """Whether the run leaves such rows out."""
        return self.reason != "completion_cut"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptPlan:
    """What the rows are like."""

    num_rows: int
    """That the run draws from."""
    num_others: int
    """That data.stream leaves out."""
    num_unmeasured: int
    """Rows whose length nobody knows."""
    measured_by: str
    """Who measured the others."""
    prompts: Histogram | None
    """Tokens of the prompts that the run takes, images included; None where none is measured."""
    images: Histogram | None
    """Tokens of the images in them."""
    images_per_prompt: float
    image_bytes: float
    """Encoded pictures of one prompt, mean."""
    outliers: tuple[Outlier, ...]

    @property
    def num_seen(self) -> int:
        """Rows of which it is known whether the run takes them."""
        return self.num_rows - self.num_unmeasured

    @property
    def num_refused(self) -> int:
        """Rows that the run leaves out."""
        return sum(outlier.num_rows for outlier in self.outliers if outlier.is_refused)


def plan_prompts(
    config: ExperimentConfig, table: SampleTable, drawn: NDArray[np.int32], ruler: PromptRuler | None
) -> PromptPlan:
    """Read what the rows say of themselves, and measure those that do not say it.

    Args:
        config: of the run.
        table: the training rows.
        drawn: numbers of those that the run draws from.
        ruler: for rows without lengths; None leaves them unmeasured.
    """
    rows = table.arrow(*COLUMNS).take(pa.array(drawn))
    sizes, image_bytes = _images(rows)
    prompt_tokens, image_tokens = rows.column("prompt_tokens").to_pylist(), rows.column("image_tokens").to_pylist()
    unmeasured = [index for index, tokens in enumerate(prompt_tokens) if tokens is None]
    reasons: dict[int, Reason] = {}
    num_unknown = len(unmeasured)
    if ruler is not None and unmeasured:
        unmeasured = unmeasured[:: -(-num_unknown // MOST_MEASURED)]
        questions = rows.column("question").take(pa.array(unmeasured)).to_pylist()
        found = ruler.measure(questions, [sizes[index] for index in unmeasured])
        for index, length in zip(unmeasured, found, strict=True):
            if length is None:
                reasons[index] = "image_refused"
            else:
                prompt_tokens[index], image_tokens[index] = length.num_tokens, length.num_image_tokens
    reasons |= _outliers(config, rows.column("question"), sizes, prompt_tokens)
    taken = [
        index
        for index, tokens in enumerate(prompt_tokens)
        if tokens is not None and reasons.get(index) in (None, "completion_cut")
    ]
    ids = rows.column("sample_id")
    return PromptPlan(
        num_rows=rows.num_rows,
        num_others=len(table) - rows.num_rows,
        num_unmeasured=sum(tokens is None and index not in reasons for index, tokens in enumerate(prompt_tokens)),
        measured_by=_measured_by(num_unknown, len(unmeasured), rows.num_rows, ruler),
        prompts=Histogram.of([prompt_tokens[index] for index in taken]) if taken else None,
        images=Histogram.of([image_tokens[index] or 0 for index in taken]) if taken else None,
        images_per_prompt=sum(map(len, sizes)) / rows.num_rows,
        image_bytes=image_bytes,
        outliers=tuple(
            Outlier(
                reason=reason,
                num_rows=len(indices),
                examples=tuple(ids[index].as_py() for index in indices[:NUM_EXAMPLES]),
            )
            for reason in REASONS
            if (indices := sorted(index for index, own in reasons.items() if own == reason))
        ),
    )


def _images(rows: pa.Table) -> tuple[list[list[Size]], float]:
    """Sizes of every row's pictures, and mean bytes of a row's."""
    images = rows.column("images").to_pylist()
    total = sum(image["size_bytes"] for own in images for image in own)
    return [[(image["width"], image["height"]) for image in own] for own in images], total / rows.num_rows


def _outliers(
    config: ExperimentConfig, questions: pa.ChunkedArray, sizes: Sequence[Sequence[Size]], prompt_tokens: Sequence[Any]
) -> dict[int, Reason]:
    """The reason of every row that does not fit; the first that the run would meet."""
    engine, sampling = config.rollout.engine, config.rollout.sampling
    room = engine.max_model_len - sampling.max_completion_tokens
    found: dict[int, Reason] = {}
    for index, tokens in enumerate(prompt_tokens):
        if tokens is not None and tokens > room:
            found[index] = "prompt_too_long" if tokens >= engine.max_model_len else "completion_cut"
    for index, own in enumerate(sizes):
        if len(own) > engine.max_images_per_prompt:
            found[index] = "too_many_images"
    for token in PLACEHOLDER_TOKENS:
        holds = pc.indices_nonzero(pc.match_substring(questions, token))
        found |= dict.fromkeys(holds.to_pylist(), "placeholder_in_question")
    return found


def _measured_by(num_unknown: int, num_measured: int, num_rows: int, ruler: PromptRuler | None) -> str:
    if num_unknown == 0:
        return "the data engine, when the dataset was built"
    if ruler is None:
        return "nobody" if num_unknown == num_rows else "the data engine, as far as they are"
    now = "this plan, with the model's tokenizer and the arithmetic of its image processor"
    if num_measured < num_unknown:
        now += f", on {num_measured:,} rows taken evenly"
    return now if num_unknown == num_rows else f"the data engine; {num_unknown:,} rows by {now}"
