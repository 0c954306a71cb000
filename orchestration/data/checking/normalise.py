"""From a checked raw row to a candidate: one form for references, options and boxes, and the user turn as it is sent.

Everything is drawn from the row and the recipe's seed alone, so a row becomes the same candidate in every process.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence

from orchestration.data.checking.boxes import box_answer
from orchestration.data.checking.options import can_shuffle, clean_options, letter_answer, rendered, shuffled
from orchestration.data.rows.reasons import Refused, RejectReason
from orchestration.data.rows.records import Candidate, RawRow, StoredImage
from orchestration.settings.recipe import LimitsConfig, NormaliseConfig, Role
from rewards.yes_no import read_yes_no

CHART_TYPES = ("", "number", "year", "text", "list", "bool")
_UNTYPED_TASKS = ("match_yesno", "match_mcq", "match_text", "iou", "open", "math")
"""Their references have one form each; what a source calls them is read here and not passed on."""
_YES_NO = {"1": "yes", "1.0": "yes", "y": "yes", "t": "yes", "0": "no", "0.0": "no", "n": "no", "f": "no"}
_SLOT = re.compile(r"\{(question|options)\}")
SAMPLE_ID_KEY = "sample_id"
"""Metadata key by which drawn sources, whose rows have ids already, keep them."""


def normalise(
    row: RawRow,
    images: Sequence[StoredImage],
    *,
    source: str,
    role: Role,
    license: str,
    config: NormaliseConfig,
    limits: LimitsConfig,
    seed: int,
) -> Candidate:
    """Give a validated row in canonical form.

    Args:
        row: One that `validate` accepted.
        images: Its images as they are stored, in order; boxes belong to the first.
        source: Full name, `/part` included.
        role: Of the source.
        license: Of the source, as the recipe or its adapter states it.
        config: Prompt templates and whether to shuffle options. Options are shuffled only where the template shows
            them and their order means nothing; see options.can_shuffle.
        limits: What boxes may be.
        seed: Of the recipe.

    Raises:
        Refused: The reference, the options or the boxes cannot be used.
    """
    question = row.question.replace("\r\n", "\n").replace("\r", "\n").strip()
    sample_id = row.metadata.get(SAMPLE_ID_KEY) or sample_id_of(source, row.source_id, question)
    template = config.prompts.get(row.task, "{question}")
    answer = row.answer.strip()
    options = clean_options(row.options) if row.options and row.task != "match_mcq" else ()
    if row.task == "match_mcq":
        lettered = letter_answer(row.options, answer, row.answer_type)
        if config.shuffle_options and "{options}" in template and can_shuffle(lettered.options):
            lettered = shuffled(lettered, seed=seed, sample_id=sample_id)
        options, answer = lettered.options, lettered.answer
    elif row.task == "match_yesno":
        answer = _yes_or_no(answer)
    elif row.task == "iou" or row.boxes is not None:
        if not images:
            raise Refused(RejectReason.IMAGE_MISSING, "the row asks for boxes and has no image")
        answer = box_answer(row, images[0].size, limits)
    return Candidate(
        sample_id=sample_id,
        source=source,
        source_id=row.source_id,
        role=role,
        license=license,
        task=row.task,
        question=_user_turn(template, question, options),
        stem=question,
        answer=answer,
        images=tuple(images),
        options=options,
        answer_type=_answer_type(row),
        metadata=_without_id(row.metadata),
    )


def guard(row: RawRow, images: Sequence[StoredImage], *, source: str, license: str) -> Candidate:
    """Give a row that only protects from leaks: its reference, which many benchmarks keep back, is not looked at."""
    question = row.question.strip()
    return Candidate(
        sample_id=sample_id_of(source, row.source_id, question),
        source=source,
        source_id=row.source_id,
        role="guard",
        license=license,
        task=row.task,
        question=question,
        stem=question,
        answer=row.answer.strip(),
        images=tuple(images),
        options=row.options,
    )


def sample_id_of(source: str, source_id: str, question: str) -> str:
    """Give the identity of a row: 40 hexadecimal digits, the same whenever the row is built again."""
    text = f"{source}|{source_id}|{question}"
    return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()


def _yes_or_no(answer: str) -> str:
    known = _YES_NO.get(answer.casefold().rstrip("."))
    if known is not None:
        return known
    label, _ = read_yes_no(answer)
    if label is None:
        raise Refused(RejectReason.REFERENCE_UNUSABLE, f"{answer[:80]!r} says neither yes nor no")
    return "yes" if label else "no"


def _answer_type(row: RawRow) -> str:
    if row.task in _UNTYPED_TASKS:
        return ""
    if row.answer_type not in CHART_TYPES:
        raise Refused(
            RejectReason.REFERENCE_UNUSABLE,
            f"answer type {row.answer_type!r} is none of {', '.join(filter(None, CHART_TYPES))}",
        )
    return row.answer_type


def _user_turn(template: str, question: str, options: Sequence[str]) -> str:
    """Fill the template in one pass: what stands in braces inside of a question or an option stays as it is."""
    texts = {"question": question, "options": rendered(options)}
    return _SLOT.sub(lambda match: texts[match[1]], template)


def _without_id(metadata: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in metadata.items() if key != SAMPLE_ID_KEY}
