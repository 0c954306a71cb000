"""Stage 1, read: the raw files of all sources as chunks of raw rows with their images."""

import hashlib
import heapq
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from conf.own_code import digest_of as code_digest
from orchestration.data.chunks import Chunk, ChunkWriter, digest_of
from orchestration.data.hold_out import NO_NAME, Keys, contains, image_keys, write_held_out
from orchestration.data.links import Links, RowsAhead, shown_link
from orchestration.data.sources.base import Part
from orchestration.data.sources.registry import find_adapter
from orchestration.data.sources.rows import BadRow, RawImage, RawRow, Refused, RejectReason, raw_to_json
from orchestration.data.stages import Advance, Map, settle
from orchestration.settings.errors import DataError
from orchestration.settings.recipe import RecipeConfig, Role, SourceConfig
from orchestration.storage.files import write_json

STAGE = "read"
CHUNK_IMAGE_BYTES = 64 * 1024 * 1024
"""A chunk ends early at this size of its images, to limit memory."""
NO_ROW = 0
"""Image key of a row that cannot be read: it is not held out."""
Stamp = tuple[str, int, int]
"""Path under the source's folder, size in bytes, modification time in nanoseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartTask:
    """One part of one source, to be read by one task."""

    store: Path
    recipe: RecipeConfig
    name: str
    """Name of the source in the recipe."""
    license: str
    root: Path
    part: Part
    role: Role
    """Role of the rows that are read: the source's, or held_out for its held-out share."""
    key: str
    """Digest of adapter, settings and content of the annotation files."""
    code: str = ""
    """Digest of the adapter's code where it is the user's own; else empty."""
    cutoff: int | None = None
    """Rows whose sampling hash is above it are not drawn; None draws all."""
    held_out: Path | None = None
    """File of the image keys of the held-out rows, which are left to another task, or are all that this one reads."""

    @property
    def source(self) -> SourceConfig:
        return self.recipe.sources[self.name]


def read_sources(sources: Sequence[Sequence[PartTask]], run: Map, advance: Advance) -> list[Chunk]:
    """Read the parts of all sources, several at a time, and return the chunks in order."""
    tasks = [task for parts in sources for task in _with_draw(parts, run)]
    chunks = []
    for folders in run(read_part, tasks):
        for folder in folders:
            chunk = Chunk.of(folder)
            advance(chunk.num_rows + chunk.num_rejected)
            # Without its files, as many as it has images: the driver keeps the chunks of all rows.
            chunks.append(replace(chunk, facts=chunk.origin))
    return chunks


def _with_draw(parts: Sequence[PartTask], run: Map) -> list[PartTask]:
    """Draw the rows to read if a source has `max_rows` or `held_out_share`; its parts are read once more for that.

    With a share, each part has a task for each role.
    """
    source = parts[0].source if parts else None
    if source is None or (source.max_rows is None and not source.held_out_share):
        return list(parts)
    folder = parts[0].store / STAGE
    memory = folder / f"draw-{digest_of([task.key for task in parts])}.json"
    if not memory.is_file():
        found = np.concatenate(list(run(draw_keys, parts)))
        cutoff = None
        if source.max_rows is not None:
            found = found[np.argsort(found[:, 0], kind="stable")[: source.max_rows]]
            cutoff = int(found[-1, 0]) if len(found) else 0
        rows = found[found[:, 1] != NO_ROW]
        write_json(memory, [cutoff, write_held_out(folder, rows[:, 1], rows[:, 2], source.held_out_share)])
    cutoff, held_out = json.loads(memory.read_text())
    if not held_out:
        # The cutoff depends on all files of the source, so it is part of the key of each part.
        return [replace(task, cutoff=cutoff, key=digest_of(task.key, cutoff)) for task in parts]
    roles: tuple[Role, ...] = ("held_out", source.role)
    return [
        replace(
            task, role=role, cutoff=cutoff, held_out=folder / held_out, key=digest_of(task.key, cutoff, held_out, role)
        )
        for role in roles
        for task in parts
    ]


def draw_keys(task: PartTask) -> Keys:
    """Return [n, 3]: sampling hash, image key and name key of the rows of a part, of those with the smallest hashes.

    All rows without `max_rows`; the keys are NO_ROW without `held_out_share`, and for rows that cannot be read.
    """
    limit = task.source.max_rows
    found = (
        (_sampling_hash(task, row.source_id), *_image_keys(task, row))
        for row in _rows(task)
        if not _is_fault_of_file(row)
    )
    return np.fromiter(found if limit is None else heapq.nsmallest(limit, found), dtype=np.dtype((np.uint64, 3)))


def _image_keys(task: PartTask, row: RawRow | BadRow) -> tuple[int, int]:
    if not task.source.held_out_share or isinstance(row, BadRow):
        return NO_ROW, NO_NAME
    return image_keys(row, task.root, task.recipe.seed)


def _rows(task: PartTask) -> Iterator[RawRow | BadRow]:
    """Return the rows of a part as its adapter reads them.

    Raises:
        DataError: Code of the user's is not what the keys of the build say, or raises.
    """
    text = task.source.adapter
    if task.code and code_digest("adapter", text) != task.code:
        raise DataError(f"data.recipe.sources.{task.name}: {text} has changed since the build began; start it again")
    try:
        yield from find_adapter(text).rows(task.root, task.part, task.source)
    except DataError as error:
        raise DataError(f"data.recipe.sources.{task.name}: {error}") from error


def _drawn_rows(task: PartTask) -> Iterator[RawRow | BadRow]:
    """Return the rows of a part that are drawn and of the task's role; rows that cannot be read are of the source's."""
    held_out = None if task.held_out is None else np.load(task.held_out)
    for row in _rows(task):
        is_drawn = task.cutoff is None or _is_fault_of_file(row) or _sampling_hash(task, row.source_id) <= task.cutoff
        if is_drawn and held_out is not None:
            is_drawn = contains(held_out, _image_keys(task, row)[0]) == (task.role == "held_out")
        if is_drawn:
            yield row


def _is_fault_of_file(row: RawRow | BadRow) -> bool:
    """Return whether it stands for a file that breaks off: no row, and never left out by chance."""
    return isinstance(row, BadRow) and row.reason is RejectReason.BROKEN_FILE


def _sampling_hash(task: PartTask, source_id: str) -> int:
    """Return the hash of seed, source, part and id by which rows are drawn."""
    text = f"{task.recipe.seed}\x1f{task.name}\x1f{task.part.name}\x1f{source_id}"
    return int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest(), "big")


def read_part(task: PartTask) -> list[Path]:
    """Read a part into chunks and return their folders; finished chunks whose images are unchanged are reused.

    Links that failed are asked again, so the chunk of such a row is read anew.
    """
    listing = task.store / STAGE / f"{task.key}.json"
    if listing.is_file():
        known = [listing.parent / name for name in json.loads(listing.read_text())]
        if all(_holds(task.root, folder) for folder in known):
            return known
    links = Links(task.store, task.recipe.limits.max_image_bytes) if task.recipe.fetch_images else None
    with links or nullcontext():
        folders = _read_chunks(task, RowsAhead(_drawn_rows(task), links), links)
    write_json(listing, [folder.name for folder in folders])
    return folders


def _read_chunks(task: PartTask, rows: RowsAhead, links: Links | None) -> list[Path]:
    folders: list[Path] = []
    is_aligned = True  # whether the chunks of an earlier build begin at the same rows
    while True:
        folder = task.store / STAGE / f"{task.key}-{len(folders):06d}"
        earlier = Chunk.open(folder)
        if earlier is not None and is_aligned and _holds(task.root, folder):
            rows.skip(_num_read(earlier))
        else:
            chunk = _read_chunk(task, rows, folder, links)
            if chunk is None:
                return folders
            is_aligned &= earlier is not None and _num_read(chunk) == _num_read(earlier)
        folders.append(folder)


def _num_read(chunk: Chunk) -> int:
    return chunk.num_rows + chunk.num_rejected


def _holds(root: Path, folder: Path) -> bool:
    """Return whether a chunk exists, all image files that it was made from are unchanged, and no link of it failed."""
    chunk = Chunk.open(folder)
    if chunk is None or chunk.facts["failed_links"]:
        return False
    return all(is_unchanged(root, tuple(stamp)) for stamp in chunk.facts["files"])


def _read_chunk(task: PartTask, rows: Iterable[RawRow | BadRow], folder: Path, links: Links | None) -> Chunk | None:
    """Write and return the next chunk; None if no row is left."""
    writer = None
    stamps: set[Stamp] = set()
    num_failed = 0
    for row in rows:
        writer = writer or ChunkWriter(folder)
        num_failed += not _read_row(task, row, writer, stamps, links)
        if writer.num_rows == task.recipe.chunk_rows or writer.num_image_bytes >= CHUNK_IMAGE_BYTES:
            break
    if links is not None:
        links.forget()
    facts = {"role": task.role, "source": task.name, "files": sorted(stamps), "failed_links": num_failed}
    return None if writer is None else writer.finish(facts)


def _read_row(
    task: PartTask, row: RawRow | BadRow, writer: ChunkWriter, stamps: set[Stamp], links: Links | None
) -> bool:
    """Write a row, or why it is refused; return False where a link did not give an image."""
    part, question = ("", "") if isinstance(row, BadRow) else (row.part, row.question)
    values: dict[str, Any] = {
        "source": full_source(task.source.label or task.name, part),
        "role": task.role,
        "license": task.license,
        "row": {"source_id": row.source_id, "question": question},
    }
    images: list[bytes] = []
    is_link = False
    try:
        if isinstance(row, BadRow):
            raise Refused(row.reason, row.detail)
        for image in row.images:
            is_link = image.link is not None
            limit, roots = task.recipe.limits.max_image_bytes, task.recipe.image_roots
            data, stamp = read_image(task.root, image, limit, roots, links)
            images.append(data)
            if stamp is not None:
                stamps.add(stamp)
    except Refused as refusal:
        settle(writer, STAGE, values, refusal)
        return not (is_link and links is not None and refusal.reason is RejectReason.IMAGE_MISSING)
    places = [writer.add_image(data) for data in images]
    settle(writer, STAGE, values, {"row": raw_to_json(row, places)})
    return True


def full_source(name: str, part: str) -> str:
    """Return the name under which rows of a source are counted.

    Example:
        >>> full_source("chartqa", "human"), full_source("docci", "")
        ('chartqa/human', 'docci')
    """
    return f"{name}/{part}" if part else name


def read_image(
    root: Path, image: RawImage, max_bytes: int, image_roots: Sequence[str] = (), links: Links | None = None
) -> tuple[bytes, Stamp | None]:
    """Return the encoded bytes of a raw image, and the stamp of its file.

    Raises:
        Refused: The path leads out of the source's folder and of `image_roots`, there is no file, it is too large, or
            it is a link, which leads to no image or which `links`, None, does not allow.
    """
    if image.link is not None:
        if links is None:
            raise Refused(
                RejectReason.IMAGE_MISSING,
                f"{shown_link(image.link)} is a link; data.recipe.fetch_images=true fetches it, or download it and "
                "name the file",
            )
        return links.read(image.link), None
    if image.data is not None:
        if len(image.data) > max_bytes:
            raise Refused(RejectReason.IMAGE_FILE_TOO_LARGE, f"{len(image.data)} bytes")
        return image.data, None
    if not image.path:
        raise Refused(RejectReason.IMAGE_MISSING, "the row names no image file")
    path = confined(root, image.path, image_roots)
    try:
        state = path.stat()
        if not path.is_file():
            raise Refused(RejectReason.IMAGE_MISSING, f"{image.path[:200]} is no file")
        if state.st_size > max_bytes:
            raise Refused(RejectReason.IMAGE_FILE_TOO_LARGE, f"{image.path[:200]}: {state.st_size} bytes")
        return path.read_bytes(), (image.path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise Refused(RejectReason.IMAGE_MISSING, f"{image.path[:200]}: {error.strerror}") from error


def confined(root: Path, path: str, image_roots: Sequence[str] = ()) -> Path:
    """Return a path with links resolved, from `root` where it is relative.

    Raises:
        Refused: It leads out of `root` and of all `image_roots`.
    """
    try:
        resolved = (root.resolve() / path).resolve()
        allowed = [root.resolve(), *(Path(other).expanduser().resolve() for other in image_roots)]
    except (OSError, ValueError) as error:  # a name too long, or with a NUL in it
        raise Refused(RejectReason.IMAGE_MISSING, f"{path[:200]!r}: {error}") from error
    if not any(resolved.is_relative_to(folder) for folder in allowed):
        raise Refused(
            RejectReason.PATH_OUTSIDE_ROOT,
            f"{path[:200]} leads to {str(resolved.parent)[:200]}"
            + (
                f"; data.recipe.image_roots=[{resolved.parent}] allows images from there"
                if os.path.isdir(resolved.parent)
                else ', and there is no such folder; images: {format: "FOLDER/{COLUMN:name}"} takes file names'
            ),
        )
    return resolved


def is_unchanged(root: Path, stamp: Stamp) -> bool:
    """Return whether a file is unchanged since it was read."""
    path, size, changed = stamp
    try:
        state = (root / path).stat()
    except OSError:
        return False
    return (state.st_size, state.st_mtime_ns) == (size, changed)
