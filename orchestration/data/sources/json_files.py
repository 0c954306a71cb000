"""Formats in JSON files that need code: PlotQA's questions, conversations as in LLaVA, ShareGPT4V's captions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Literal

from orchestration.data.sources.answers import TASKS, without_opening
from orchestration.data.sources.base import Adapter, Licence, Part, file_parts, missing, require_file
from orchestration.data.sources.fields import Fields, RowError, as_fields, file_image, refuse
from orchestration.data.sources.files import records
from orchestration.data.sources.markers import as_question, mark_places
from orchestration.data.sources.rows import BadRow, RawImage, RawRow, RejectReason
from orchestration.data.sources.streams import Record, json_array, read_rows
from orchestration.data.sources.turns import ASKING, REPLYING
from orchestration.settings.errors import ConfigError
from orchestration.settings.recipe import SourceConfig
from rollout.records import IMAGE_PLACE, Turn

PLOTQA_LAYOUT = "<split>/qa_pairs_v1.json or qa_pairs_v2.json, and <split>/png/<image_index>.png"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlotQAOptions:
    """Options of PlotQA."""

    questions: str = ""
    """Name of the question file in the split's folder; empty takes the only qa_pairs*.json there."""
    images: str = "{split}/png"
    """Folder of the images."""
    decimals: int = 2
    """Decimals of answers, which are computed from the plot's data more precisely than it shows."""


class PlotQA(Adapter):
    """Reads PlotQA's question files of 8 or 29 million rows: set max_rows and quota.

    Raw: `<split>/qa_pairs_v1.json` (or `_v2`), an array (in early copies inside {"qa_pairs": [...]}) of {image_index,
    question_string, answer, answer_bbox, template, type}; `<split>/png/<image_index>.png`. The authors publish an
    archive of images and a question file by split, and do not say how to lay out the splits: where images lie
    elsewhere, set options.images.

    Conversion: yes/no becomes match_yesno; all else chart with answer_type number, year or text. `template` and the
    plot's `type` go into metadata, so that rows can be counted by template. Numbers are rounded to
    `options.decimals`, unless that would make them 0. Ids are running numbers.

    Options: questions, images, decimals.
    """

    licence = Licence(
        name="CC BY 4.0",
        note="datasets of the work, as in the README of the authors' repository; its licence file, MIT, is for code",
        url_hint="repository of the authors (NiteshMethani/PlotQA)",
    )
    options = PlotQAOptions

    def parts(self, root: Path, config: SourceConfig) -> list[Part]:
        options = self.read_options(config)
        folder = root / config.split
        if options.questions:
            return file_parts(root, [require_file(root, f"{config.split}/{options.questions}", PLOTQA_LAYOUT)])
        found = sorted(folder.glob("qa_pairs*.json"))
        if not found:
            raise missing(root, f"{config.split}/qa_pairs*.json", PLOTQA_LAYOUT)
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise ConfigError(f"{folder} holds {names}; v2 contains v1: set options.questions to one of them")
        return file_parts(root, found)

    def rows(self, root: Path, part: Part, config: SourceConfig) -> Iterator[RawRow | BadRow]:
        options = self.read_options(config)
        folder = options.images.replace("{split}", config.split)
        return read_rows(
            json_array(part.files[0], "qa_pairs"),
            lambda record: [_plotqa_row(record, part.name, folder, options.decimals)],
            part.name,
        )


def _plotqa_row(record: Record, part: str, folder: str, decimals: int) -> RawRow:
    row = as_fields(record.value)
    question, number = row.text("question_string"), row.integer("image_index")
    answer = _rounded(row.raw("answer"), decimals) or row.answer("answer")
    task, answer, answer_type = TASKS["plot"](question, answer)
    return RawRow(
        source_id=f"{part}/{record.place}",
        task=task,
        question=question,
        answer=answer,
        answer_type=answer_type,
        images=(file_image(folder, f"{number}.png", f"plotqa/{folder}/{number}"),),
        metadata={"template": row.label("template"), "plot": row.label("type")},
    )


def _rounded(value: object, decimals: int) -> str:
    """Return a non-integer number rounded, as text; empty for any other value, and if it would become 0."""
    if not isinstance(value, float) or value.is_integer() or value != value:
        return ""
    rounded = round(value, decimals)
    return repr(rounded) if rounded else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LlavaOptions:
    """Options of LLaVA-form sets."""

    annotations: tuple[str, ...]
    """Annotation files, relative to the source's folder."""
    images: str = ""
    """Folder that the rows' paths start from; LLaVA-Instruct-150K names bare COCO numbers: coco/train2017."""
    task: Literal["open", "match_text", "match_yesno", "chart", "math"] = "open"
    """How replies are graded. `open` suits descriptions only; see rewards/README.md."""
    turns: Literal["first", "all", "history"] = "first"
    """The first question only; all, each by itself, though later ones may depend on earlier ones; or all of them
    with the turns before them as history."""
    text_only: bool = False
    """Keep conversations without an image; otherwise they are rejected as text_only, and so counted."""
    strip_openings: bool = False
    """Remove openings such as "The image shows" from the replies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareGPT4VOptions:
    """Options of ShareGPT4V."""

    annotations: tuple[str, ...] = ("sharegpt4v_instruct_gpt4-vision_cap100k.json",)
    """Annotation files, relative to the source's folder."""
    images: str = ""
    """Folder that the rows' paths start from; empty for the root."""
    strip_openings: bool = False
    """Remove openings such as "The image shows" from the captions."""


class Llava(Adapter):
    """Reads sets of LLaVA's form.

    Raw: a JSON array, or JSON lines, of {id, image (a path or a list; absent in text), conversations: [{from: human or
    gpt, value}]}; images stand where the texts have `<image>`. LLaVA-Instruct-150K (detail_23k.json),
    LLaVA-Pretrain (blip_laion_cc_sbu_558k.json) and llava_v1_5_mix665k.json have this form. Splits do not exist.

    Conversion: options.task with the reply as the answer; the question is the human's own wording. A row asks with the
    images of its own turn, or, where that has none, with those shown before it. COCO and Visual
    Genome paths give the images their common ids. Ids: id, followed by the turn's number for later turns; else a
    running number.

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
        return read_rows(records(path), lambda record: _conversation_rows(record, part.name, options), part.name)


class ShareGPT4V(Llava):
    """Reads ShareGPT4V's captions, of Lin-Chen/ShareGPT4V.

    Raw: `sharegpt4v_instruct_gpt4-vision_cap100k.json` (or share-captioner_coco_lcs_sam_1246k_1107.json), a JSON array
    of {id, image ("coco/train2017/000000000009.jpg", "sam/images/...", "llava/llava_pretrain/images/...",
    "web-celebrity/images/...", "web-landmark/images/...", "wikiart/images/...", "share_textvqa/images/..."),
    conversations: [{from: human, value: "<image> Describe ..."}, {from: gpt, value}]}. Splits do not exist.

    Conversion: open; the human's wording is the question, the caption the answer. Rows without an image are rejected.
    Many images are from COCO train and leak into RefCOCO's val and test. Ids: id, which names the image and may occur
    twice; the second is id#2.

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
    """Return a row for each question with a reply, or for the first; later ones have their number in the id."""
    row = as_fields(record.value)
    images = _images(row, options.images)
    if not images and not options.text_only:
        raise RowError(RejectReason.TEXT_ONLY, "no image; where the source has options.text_only, true keeps such rows")
    roles, texts = zip(*_turns(row), strict=True)
    texts, order = mark_places(texts, len(images))
    images = tuple(images[index] for index in order)
    shown = list(accumulate((text.count(IMAGE_PLACE) for text in texts), initial=0))
    asked = [place for place, pair in enumerate(pairwise(roles)) if pair == ("user", "assistant")]
    if not asked:
        refuse("conversations", None, "a question and its reply")
    source_id = row.label("id") or f"{part}/{record.place}"
    rows = []
    for index, place in enumerate(asked[:1] if options.turns == "first" else asked):
        before, until = shown[place : place + 2]
        history = _history(roles[:place], texts[:place]) if options.turns == "history" else ()
        begin = before if before < until and not history else 0
        reply = texts[place + 1]
        rows.append(
            RawRow(
                source_id=f"{source_id}-{index}" if index else source_id,
                task=options.task,
                history=history,
                question=as_question(texts[place]),
                answer=without_opening(reply) if options.strip_openings else reply,
                images=images[begin:until] if shown[-1] else images,
            )
        )
    return rows


def _turns(row: Fields) -> list[tuple[str, str]]:
    """Return role and text of each turn.

    Raises:
        RowError: There is none, or a turn is no object with `from` and `value`.
    """
    turns = row.raw("conversations")
    if not isinstance(turns, list) or not turns:
        refuse("conversations", turns or None, "a list of turns")
    known = {name: role for role, names in (("user", ASKING), ("assistant", REPLYING)) for name in names}
    spoken = [(fields.text("from"), fields.text("value")) for fields in map(as_fields, turns)]
    return [(known.get(speaker, speaker), text) for speaker, text in spoken]


def _history(roles: Sequence[str], texts: Sequence[str]) -> tuple[Turn, ...]:
    if list(roles) != ["user", "assistant"] * (len(roles) // 2):
        raise RowError(
            RejectReason.UNREADABLE_ROW,
            f"the turns before a question are of {', '.join(roles)}; with turns=history human and model take turns",
        )
    return tuple(Turn(role="assistant" if place % 2 else "user", text=text) for place, text in enumerate(texts))


def _images(row: Fields, folder: str) -> tuple[RawImage, ...]:
    """Return the images under `image`: a path, a list, or none."""
    value = row.raw("image")
    paths = value if isinstance(value, list) else [] if value in (None, "") else [value]
    texts = [path if isinstance(path, str) else refuse("image", value, "a path or a list of paths") for path in paths]
    return tuple(file_image(folder, path) for path in texts)
