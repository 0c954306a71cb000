"""One sample as a card: what the model saw, was asked and said, and what that earned. All text is escaped."""

import html
from collections.abc import Callable, Sequence

from orchestration.evaluate.presets.refcoco import model_boxes, reference_boxes
from orchestration.page.pictures import boxes_svg, data_uri
from orchestration.workers.answers import Completion, EvaluatedSample
from rewards.base import GoldError
from rewards.boxes import Box
from rollout.records import ImageBytes

ImagesOf = Callable[[str], Sequence[ImageBytes]]
"""Gives the images of a sample by its id; called for the shown samples alone."""

MAX_CHARS = 4000
"""Longer texts are cut on the page; predictions.jsonl holds the whole."""


def shown_completion(sample: EvaluatedSample) -> Completion | None:
    """Give the greedy completion, else the first sampled one."""
    return sample.greedy or next(iter(sample.sampled), None)


def sample_card(sample: EvaluatedSample, image_of: ImagesOf) -> str:
    """Give the card of one sample."""
    completion = shown_completion(sample)
    pictures = _pictures(sample, completion, image_of(sample.sample_id))
    return f'<div class="card">{pictures}{_asked(sample)}{_said(completion)}</div>'


def pair_card(before: EvaluatedSample, after: EvaluatedSample, image_of: ImagesOf) -> str:
    """Give the card of one sample with both completions side by side; where boxes matter, on a picture each."""
    images = image_of(after.sample_id)
    sides = [(name, row, shown_completion(row)) for name, row in (("before", before), ("after", after))]
    columns = "".join(
        f"<div><b>{name}</b>{_pictures(row, said, images) if row.function == 'grounding' else ''}{_said(said)}</div>"
        for name, row, said in sides
    )
    above = "" if after.function == "grounding" else _pictures(after, sides[1][2], images)
    return f'<div class="card">{above}{_asked(after)}<div class="pair">{columns}</div></div>'


def escape(text: str) -> str:
    """Give a text as HTML; long ones are cut, and say so."""
    cut = text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]} ... ({len(text)} characters)"
    return html.escape(cut)


def _asked(sample: EvaluatedSample) -> str:
    options = "".join(f"<div>{chr(65 + i)}. {escape(option)}</div>" for i, option in enumerate(sample.options))
    return (
        f'<p class="tag">{escape(sample.task)} · {escape(sample.source)} · {escape(sample.sample_id[:24])}</p>'
        f"<b>{escape(sample.question)}</b>{options}<div>reference: {escape(sample.answer)}</div>"
    )


def _said(completion: Completion | None) -> str:
    if completion is None:
        return "<div>no completion</div>"
    reward = "no reward" if completion.reward is None else f"reward {completion.reward:.2f}"
    task = "" if completion.task_reward is None else f", task {completion.task_reward:.2f}"
    parsed = "nothing" if completion.parsed_answer is None else completion.parsed_answer
    cut = ", cut off" if completion.truncated else ""
    return (
        f"<code>{escape(completion.text)}</code><span class='tag'>{reward}{task}, format "
        f"{completion.format_reward:.2f}, {escape(completion.reason)}, read as {escape(parsed)}, "
        f"{completion.num_tokens} tokens{cut}</span>"
    )


def _pictures(sample: EvaluatedSample, completion: Completion | None, images: Sequence[ImageBytes]) -> str:
    reference: list[Box] = []
    given: list[Box] = []
    if sample.function == "grounding":
        reference = reference_boxes(sample)
        given = [] if completion is None else _drawable_boxes(sample, completion)
    # Boxes belong to the first image.
    return "".join(
        boxes_svg(data_uri(image), image.size, reference=() if number else reference, given=() if number else given)
        for number, image in enumerate(images)
    )


def _drawable_boxes(sample: EvaluatedSample, completion: Completion) -> list[Box]:
    try:
        return [box for box in model_boxes(sample, completion) if box is not None]
    except GoldError:
        return []  # the row lacks the size that its frame needs; its reward says so too
