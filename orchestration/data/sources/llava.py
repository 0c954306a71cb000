"""LLaVA's captions and conversations, ShareGPT4V's captions, and other sets of that form."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from orchestration.data.sources.answers import without_opening
from orchestration.data.sources.base import Adapter, Licence, Part, file_parts, require_file
from orchestration.data.sources.fields import Fields, as_fields, file_image, refuse, require_images, without_markers
from orchestration.data.sources.rows import BadRow, RawImage, RawRow
from orchestration.data.sources.streams import Record, json_array, json_lines, read_rows
from orchestration.settings.recipe import SourceConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class LlavaOptions:
    """Options of LLaVA-form sets."""

    annotations: tuple[str, ...]
    """Annotation files, relative to the source's folder."""
    images: str = ""
    """Folder that the rows' paths start from; LLaVA-Instruct-150K names bare COCO numbers: coco/train2017."""
    task: Literal["open", "match_text", "match_yesno", "chart", "math"] = "open"
    """How the replies are graded. Replies that are no descriptions fit `open` badly; see rewards/README.md."""
    turns: Literal["first", "all"] = "first"
    """The first question alone, or every one: later ones may only make sense after the earlier ones."""
    text_only: bool = False
    """Keep conversations without an image; otherwise they are rejected as missing_field, and so counted."""
    strip_openings: bool = False
    """Take "The image shows" and the like off the replies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareGPT4VOptions:
    """Options of ShareGPT4V."""

    annotations: tuple[str, ...] = ("sharegpt4v_instruct_gpt4-vision_cap100k.json",)
    """Annotation files, relative to the source's folder."""
    images: str = ""
    """Folder that the rows' paths start from; empty for the root."""
    strip_openings: bool = False
    """Take "The image shows" and the like off the captions."""


class Llava(Adapter):
    """Reads sets of LLaVA's form.

    Raw: a JSON array, or JSON lines, of {id, image (a path or a list; absent in text), conversations: [{from: human or
    gpt, value}]}; the human's text holds `<image>` markers, which are dropped. LLaVA-Instruct-150K (detail_23k.json),
    LLaVA-Pretrain (blip_laion_cc_sbu_558k.json) and llava_v1_5_mix665k.json have this form. Splits do not exist.

    Conversion: options.task with the reply as the answer; the question is the human's own wording. COCO and Visual
    Genome paths give the images their common ids. Ids: id, with the turn's number behind later ones; else a running
    number.

    Options: annotations (required), images, task, turns, text_only, strip_openings.
    """

    licence = Licence(
        name="unverified",
        note="replies were written by OpenAI's models, whose terms apply; images have terms of their own: check",
        url_hint="card of the dataset",
    )
    options: type[Any] = LlavaOptions
    layout = "the files of options.annotations (JSON arrays or .jsonl), images under options.images"

    def parts(self, root: Path, config: SourceConfig) -> list[Part]:
        options = self.read_options(config)
        return file_parts(root, [require_file(root, name, self.layout) for name in options.annotations])

    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        options, path = self.read_options(config), part.files[0]
        records = json_lines(path) if path.suffix in (".jsonl", ".jsonlines") else json_array(path)
        return read_rows(records, lambda record: _conversation_rows(record, part.name, options), part.name)


class ShareGPT4V(Llava):
    """Reads ShareGPT4V's captions, of Lin-Chen/ShareGPT4V.

    Raw: `sharegpt4v_instruct_gpt4-vision_cap100k.json` (or share-captioner_coco_lcs_sam_1246k_1107.json), a JSON array
    of {id, image ("coco/train2017/000000000009.jpg", "sam/images/...", "llava/..."), conversations: [{from: human,
    value: "<image> Describe ..."}, {from: gpt, value}]}. Splits do not exist.

    Conversion: open; the human's wording is the question, the caption the answer. Rows without an image are rejected.
    The images are COCO train in good part: they leak into RefCOCO's val and test. Ids: id, which names the picture and
    may stand twice; the second is id#2.

    Options: annotations, images, strip_openings.
    """

    licence = Licence(
        name="cc-by-nc-4.0",
        note="as on the card of Lin-Chen/ShareGPT4V, and OpenAI's terms apply: opt in knowingly; images have terms of "
        "their own",
        url_hint="dataset card",
    )
    options = ShareGPT4VOptions
    layout = "sharegpt4v_instruct_gpt4-vision_cap100k.json, coco/train2017/, sam/images/, llava/..., as it names them"

    def read_options(self, config: SourceConfig) -> LlavaOptions:
        chosen = super().read_options(config)
        return LlavaOptions(annotations=chosen.annotations, images=chosen.images, strip_openings=chosen.strip_openings)


def _conversation_rows(record: Record, part: str, options: LlavaOptions) -> list[RawRow]:
    """Make a row of every question with a reply, or of the first; further ones have their number in the id."""
    row = as_fields(record.value)
    images = _images(row, options.images)
    if not options.text_only:
        require_images(images, "image")
    turns = _turns(row)
    source_id = row.label("id") or f"{part}/{record.place}"
    return [
        RawRow(
            source_id=f"{source_id}-{index}" if index else source_id,
            task=options.task,
            question=question,
            answer=without_opening(reply) if options.strip_openings else reply,
            images=images,
        )
        for index, (question, reply) in enumerate(turns if options.turns == "all" else turns[:1])
    ]


def _turns(row: Fields) -> list[tuple[str, str]]:
    """Pair each human turn with the reply that follows it; `<image>` markers are dropped.

    Raises:
        RowError: There is no such pair, or a turn is no object with `from` and `value`.
    """
    turns = row.raw("conversations")
    if not isinstance(turns, list):
        refuse("conversations", turns, "a list of turns")
    spoken = [(fields.text("from"), fields.text("value")) for fields in map(as_fields, turns)]
    pairs = [
        (without_markers(asked), told.strip())
        for (speaker, asked), (listener, told) in pairwise(spoken)
        if speaker in ("human", "user") and listener in ("gpt", "assistant")
    ]
    return pairs or refuse("conversations", None, "a question and its reply")


def _images(row: Fields, folder: str) -> tuple[RawImage, ...]:
    """Return the images under `image`: a path, a list, or none."""
    value = row.raw("image")
    paths = value if isinstance(value, list) else [] if value in (None, "") else [value]
    texts = [path if isinstance(path, str) else refuse("image", value, "a path or a list of paths") for path in paths]
    return tuple(file_image(folder, path) for path in texts)
