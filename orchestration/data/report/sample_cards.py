"""Rows of a dataset as cards: images with their reference boxes, question, options, answer and difficulty."""

import html
from base64 import b64encode
from collections.abc import Sequence

from orchestration.page.pictures import REFERENCE_COLOUR
from rewards.boxes import parse_boxes
from rollout.records import ImageBytes, Sample

MAX_ANSWER_CHARS = 600
STROKE_SHARE = 1 / 120
"""Width of a box's line as a share of the longer side, so that it is seen on photographs and small drawings alike."""
_KINDS = ((b"\x89PNG", "png"), (b"\xff\xd8", "jpeg"), (b"RIFF", "webp"))


def cards(samples: Sequence[Sample]) -> str:
    """Give one card per sample, images inside."""
    return f'<div class="cards">{"".join(map(_card, samples))}</div>'


def _card(sample: Sample) -> str:
    pictures = "".join(_picture(image, sample) for image in sample.images)
    items = "".join(f"<li>{html.escape(option)}</li>" for option in sample.options)
    options = f'<ol type="A">{items}</ol>' if items else ""
    answer = sample.answer
    if len(answer) > MAX_ANSWER_CHARS:
        answer = answer[:MAX_ANSWER_CHARS] + " ..."
    return (
        f'<div class="card">{pictures}<p class="tag">{html.escape(_facts(sample))}</p>'
        f"<b>{html.escape(sample.question)}</b>{options}<code>{html.escape(answer)}</code>"
        f'<span class="tag">{html.escape(_difficulty(sample))}</span></div>'
    )


def _picture(image: ImageBytes, sample: Sample) -> str:
    kind = next((name for magic, name in _KINDS if image.data.startswith(magic)), "png")
    boxes = ""
    if sample.task == "iou":
        stroke = max(image.size) * STROKE_SHARE
        for entry in parse_boxes(sample.answer) or []:
            if entry.box:
                x1, y1, x2, y2 = entry.box
                boxes += (
                    f'<rect x="{x1:g}" y="{y1:g}" width="{x2 - x1:g}" height="{y2 - y1:g}" fill="none" '
                    f'stroke="{REFERENCE_COLOUR}" stroke-width="{stroke:.2f}"/>'
                )
    return (
        f'<svg viewBox="0 0 {image.width} {image.height}"><image '
        f'href="data:image/{kind};base64,{b64encode(image.data).decode()}" width="{image.width}" '
        f'height="{image.height}"/>{boxes}</svg>'
    )


def _facts(sample: Sample) -> str:
    tokens = f"{sample.prompt_tokens} prompt tokens" if sample.prompt_tokens is not None else ""
    facts = (sample.task, sample.answer_type, f"{sample.source} {sample.source_id}".rstrip(), sample.stratum, tokens)
    return " · ".join(fact for fact in facts if fact)


def _difficulty(sample: Sample) -> str:
    found = sample.difficulty
    if found is None:
        return "difficulty not measured"
    return (
        f"mean reward {found.mean:.2f} ± {found.std:.2f} of {found.num_completions} completions, "
        f"{found.pass_rate:.0%} right, format {found.format_rate:.2f}"
    )
