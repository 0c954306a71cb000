"""`mixed-r1 data look PATH`: what the columns of a file are taken for, and its first row as it will be asked."""

import re
import shlex
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestration.data.measure import measure
from orchestration.data.normalise import ReferenceCheck, normalise
from orchestration.data.own_files import OwnFiles
from orchestration.data.plan import ruler_of
from orchestration.data.read import full_source, read_image
from orchestration.data.sources.fields import RowError
from orchestration.data.sources.mapping import build_mapping
from orchestration.data.sources.rows import Candidate, Refused
from orchestration.data.sources.streams import Record
from orchestration.data.validate import validate
from orchestration.settings.experiment import ExperimentConfig
from orchestration.settings.recipe import OWN, RecipeConfig
from rollout.records import readable

CHECKED_ROWS = 50
"""First rows that go through the checks of the data engine."""
WIDTH = 110
LABEL = 11
MAX_ITEMS = 6
"""Options or images that are shown."""
MAX_COLUMN_CHARS = 44
MAX_CHARS = 800
"""Characters of a question that are shown."""
NOT_MEASURED = "not measured: the model's folder is not there yet; model.path=FOLDER names one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What the checks made of the first rows."""

    kept: Sequence[Candidate]
    refused: Sequence[tuple[str, str]]
    """(reason, detail) of each row that is left out."""

    @property
    def num_rows(self) -> int:
        """Rows that were checked."""
        return len(self.kept) + len(self.refused)


def look_lines(own: OwnFiles, config: ExperimentConfig, model: Path | None) -> Iterator[str]:
    """Return the lines that say what a path holds and how its rows are asked.

    Args:
        own: Files of the user's own.
        config: Its recipe's limits, its rewards and its prompts are those of the checks.
        model: Folder whose processor measures the prompt; None leaves that out.
    """
    looked = check_first_rows(own, config, model)
    named = ", ".join(path.relative_to(own.root).as_posix() for path in own.files[:MAX_ITEMS])
    more = f" and {len(own.files) - MAX_ITEMS} more" if len(own.files) > MAX_ITEMS else ""
    yield from _block("files", f"{named}{more} in {own.root}, read as {own.form}")
    yield from _columns(own, config)
    tasks = Counter(row.task for row in looked.kept)
    if tasks:
        counted = ", ".join(f"{task} {count}" for task, count in tasks.most_common())
        yield from _block("tasks", f"{counted} (of the first {looked.num_rows} rows)")
    yield from _refused(looked)
    if looked.kept:
        yield ""
        yield from _row(looked.kept[0], config)
    notes = [*own.notes, *own.recognised.uncertain]
    if looked.kept and not any(row.images for row in looked.kept):
        notes.append("no row has an image: all are asked as text alone; data.columns.images=COLUMN names the column")
    if notes:
        yield ""
        for label, note in zip(["uncertain", *[""] * (len(notes) - 1)], notes, strict=True):
            yield from _block(label, f"- {note}")
    yield ""
    yield "A wrong guess is corrected by data.columns.KEY=COLUMN (orchestration/data/own_data.md lists keys and forms)."
    yield f"These rows are trained on by mixed-r1 train {shlex.quote(f'data.train={config.data.train}')}, with the"
    yield "same corrections behind it."


def check_first_rows(own: OwnFiles, config: ExperimentConfig, model: Path | None) -> Looked:
    """Take the first rows through the checks of the data engine, up to the proof of their references."""
    recipe = config.data.recipe or RecipeConfig(name=OWN, seed=config.seed, sources={})
    mapping = build_mapping(own.recognised.mapping, own.recognised.answer_is, own.recognised.images)  # type: ignore[arg-type]
    ruler = None if model is None else ruler_of(config, model)
    kept, refused = list[Candidate](), list[tuple[str, str]]()
    with ReferenceCheck(config.reward) as references:
        for place, values in enumerate(own.rows[:CHECKED_ROWS]):
            try:
                row = _checked(Record(str(place), values), own, mapping, recipe, config)
                references.check(row)
                kept.append(row if ruler is None else measure(row, ruler))
            except (RowError, Refused) as error:
                refused.append((error.reason.value, error.detail if isinstance(error, Refused) else str(error)))
    return Looked(kept=kept, refused=refused)


def _checked(record: Record, own: OwnFiles, mapping: Any, recipe: RecipeConfig, config: ExperimentConfig) -> Candidate:
    row = mapping.row(record, own.name)
    roots = (*config.data.image_roots, *own.image_roots, *recipe.image_roots)
    data = [read_image(own.root, image, recipe.limits.max_image_bytes, roots)[0] for image in row.images]
    checked = validate(row, data, recipe.limits)
    images = [image.stored(image_id="", chunk="", index=place) for place, image in enumerate(checked)]
    return normalise(
        row,
        images,
        source=full_source(own.name, row.part),
        role="train",
        license="",
        config=recipe.normalise,
        limits=recipe.limits,
        seed=config.seed,
    )


def _columns(own: OwnFiles, config: ExperimentConfig) -> Iterator[str]:
    reasons = own.recognised.reasons
    rows = [("our field", "column", "why")]
    for key, value in own.recognised.mapping.items():
        spelled = textwrap.shorten(_spelled(value), MAX_COLUMN_CHARS, placeholder=" ...")
        rows.append((key, spelled, reasons.get(key, "")))
    if own.recognised.images:
        rows.append(("images_from", own.recognised.images, _set(config, "images_from") or "pictures are there"))
    if "options" in own.recognised.mapping or _set(config, "answer_is"):
        rows.append(("answer_is", own.recognised.answer_is, _set(config, "answer_is") or "by the first answers"))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for row, label in zip(rows, ["columns", *[""] * (len(rows) - 1)], strict=True):
        yield f"{label:{LABEL}}{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]}".rstrip()
    used = {step for value in own.recognised.mapping.values() for step in _names(value)}
    unused = [str(name) for name in own.rows[0] if str(name) not in used]
    if unused:
        yield from _block("not read", ", ".join(unused))


def _set(config: ExperimentConfig, key: str) -> str:
    return "set" if key in config.data.columns else ""


def _names(value: Any) -> Iterator[str]:
    """Return the columns that a value of a mapping may name."""
    if isinstance(value, str):
        yield value
        yield value.removesuffix("?")
        yield value.partition(".")[0].removesuffix("?")
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in ("constant", "by_answer", "values"):
                yield from _names(inner)
            if key == "format":
                yield from re.findall(r"\{([^{}:?]+)", str(inner))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _names(inner)


def _spelled(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_spelled(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_spelled, value))
    return " ".join(str(value).split())


def _refused(looked: Looked) -> Iterator[str]:
    counts = Counter(reason for reason, _ in looked.refused)
    for label, (reason, count) in zip(["left out", *[""] * len(counts)], counts.most_common(), strict=False):
        example = next(detail for other, detail in looked.refused if other == reason)
        yield from _block(label, f"{count} of {looked.num_rows} rows as {reason}, such as: {example}")


def _row(row: Candidate, config: ExperimentConfig) -> Iterator[str]:
    yield from _block("first row", f"{row.task}, scored by {config.reward.route(row.task, row.source).function}")
    sizes = [f"{image.width} x {image.height}" for image in row.images]
    more = f" and {len(sizes) - MAX_ITEMS} more" if len(sizes) > MAX_ITEMS else ""
    yield from _block("images", (", ".join(sizes[:MAX_ITEMS]) + more) or "none")
    if row.system:
        yield from _block("system", row.system)
    for label, turn in zip(["history", *[""] * len(row.history)], row.history, strict=False):
        yield from _block(label, f"{turn.role}: {readable(turn.text)}")
    question = row.question if len(row.question) <= MAX_CHARS else f"{row.question[:MAX_CHARS]}..."
    yield from _block("question", readable(question))
    if added := config.rollout.prompt_spec.task_prompts.get(row.task):
        yield from _block("added", f"{added} (rollout.task_prompts.{row.task})")
    if row.options:
        yield from _block("options", f"{len(row.options)}: {' | '.join(row.options[:MAX_ITEMS])}")
    kind = f" (as {row.answer_type})" if row.answer_type else ""
    yield from _block("answer", f"{row.answer}{kind}")
    measured = f"{row.prompt_tokens} tokens, {row.image_tokens} of them of images"
    yield from _block("prompt", NOT_MEASURED if row.prompt_tokens is None else measured)


def _block(label: str, text: str) -> Iterator[str]:
    lines = [part for line in text.splitlines() or [""] for part in _wrapped(line) or [""]]
    for name, line in zip([label, *[""] * (len(lines) - 1)], lines, strict=True):
        yield f"{name:{LABEL}}{line}".rstrip()


def _wrapped(line: str) -> list[str]:
    """Return a line in parts; paths and settings stay whole, to be copied."""
    return textwrap.wrap(line, WIDTH - LABEL, break_long_words=False, break_on_hyphens=False)
