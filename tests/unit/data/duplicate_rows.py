"""Rows for the tests of deduplication, and what must come out, pair by pair and without any cleverness."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchestration.data.row_index import jaccard, normalised_question, question_words
from orchestration.data.sources.rows import Candidate, StoredImage
from orchestration.settings.recipe import DeduplicateConfig, Role
from rollout.records import Turn

Verdict = tuple[str, str]


@dataclass(frozen=True)
class Picture:
    """What the comparison sees of an image."""

    sha256: str
    bits: int = 0
    grey: int = 100
    image_id: str = ""
    spot: int = 0
    """Brighter in one place alone."""

    def stored(self) -> StoredImage:
        thumbnail = bytearray([self.grey]) * 768
        thumbnail[500] += self.spot
        return StoredImage(
            sha256=self.sha256,
            size_bytes=1,
            width=112,
            height=112,
            dhash=self.bits.to_bytes(32, "big").hex(),
            thumbnail=base64.b64encode(thumbnail).decode(),
            image_id=self.image_id,
            chunk="read/0",
            index=0,
        )


def row(
    question: str,
    answer: str,
    *pictures: Picture,
    role: Role = "train",
    task: str = "match_text",
    options: tuple[str, ...] = (),
    source_id: str = "",
    system: str = "",
    history: tuple[str, ...] = (),
) -> Candidate:
    return Candidate(
        sample_id="x",
        source=role,
        source_id=source_id,
        role=role,
        license="",
        task=task,
        question=f"{question} Answer with a word.",
        stem=question,
        system=system,
        history=tuple(Turn(role="assistant" if place % 2 else "user", text=text) for place, text in enumerate(history)),
        answer=answer,
        images=tuple(picture.stored() for picture in pictures),
        options=options,
    )


def brute_force(rows: Sequence[Candidate], settings: DeduplicateConfig) -> dict[int, Verdict]:
    """Give {order: (reason, source_id of the other row)} by comparing every row with every other."""
    gone: dict[int, tuple[str, int]] = {}
    evaluation = [i for i, r in enumerate(rows) if r.role != "train"]
    for i, r in enumerate(rows):
        if r.role == "train" and (found := _leak(rows, i, evaluation, settings)):
            gone[i] = found
    for role in ("train", "held_out"):
        left = [i for i, r in enumerate(rows) if r.role == role and i not in gone]
        gone |= _equal(rows, left)
    left = [i for i, r in enumerate(rows) if r.role == "train" and i not in gone]
    if settings.perceptual:
        for i in left:
            earlier = [j for j in left if j < i and _near_rows(rows[j], rows[i], settings)]
            if earlier:
                gone[i] = ("near_duplicate", earlier[0])
    of_image: dict[str, list[int]] = {}
    for i in left:
        if i not in gone and rows[i].images and settings.max_rows_per_image is not None:
            of_image.setdefault(rows[i].images[0].sha256, []).append(i)
    for places in of_image.values():
        gone |= dict.fromkeys(places[settings.max_rows_per_image :], ("too_many_of_image", places[0]))
    return {i: (reason, rows[other].source_id) for i, (reason, other) in gone.items()}


def _leak(
    rows: Sequence[Candidate], i: int, evaluation: list[int], settings: DeduplicateConfig
) -> tuple[str, int] | None:
    ours = rows[i].images
    image_checks = [
        lambda a, b: a.sha256 == b.sha256,
        lambda a, b: bool(a.image_id) and a.image_id == b.image_id,
        lambda a, b: settings.perceptual and _near_images(a, b, settings),
    ]
    for check in image_checks:
        for j in evaluation:
            if any(check(a, b) for a in ours for b in rows[j].images):
                return "leaked_image", j
    texts = [j for j in evaluation if not rows[j].images and not ours]
    for j in texts:
        if _told(rows[i]) == _told(rows[j]) and normalised_question(rows[i].stem) == normalised_question(rows[j].stem):
            return "leaked_question", j
    for j in texts:
        a, b = question_words(rows[i].stem), question_words(rows[j].stem)
        if _told(rows[i]) == _told(rows[j]) and min(len(a), len(b)) >= 4 and jaccard(a, b) >= 0.9:
            return "leaked_question", j
    return None


def _equal(rows: Sequence[Candidate], left: list[int]) -> dict[int, tuple[str, int]]:
    gone: dict[int, tuple[str, int]] = {}
    for i in left:
        same = [j for j in left if _exact_key(rows[i]) == _exact_key(rows[j])]
        others = [j for j in same if _answer(rows[j]) != _answer(rows[i])]
        if others and rows[i].task != "open":
            gone[i] = ("conflicting_answers", others[0])
        elif same[0] < i:
            gone[i] = ("duplicate", same[0])
    return gone


def _exact_key(r: Candidate) -> object:
    images = [image.sha256 for image in r.images]
    return images, _told(r), normalised_question(r.stem), sorted(r.options), r.task == "open"


def _told(r: Candidate) -> object:
    return r.system.casefold(), [(turn.role, turn.text.casefold()) for turn in r.history]


def _answer(r: Candidate) -> str:
    return r.options[ord(r.answer) - ord("A")] if r.options else r.answer.casefold()


def _near_rows(a: Candidate, b: Candidate, settings: DeduplicateConfig) -> bool:
    return (
        (a.task, _answer(a), len(a.images), _told(a)) == (b.task, _answer(b), len(b.images), _told(b))
        and jaccard(question_words(a.stem), question_words(b.stem)) >= settings.min_question_similarity
        and all(_near_images(x, y, settings) for x, y in zip(a.images, b.images, strict=True))
    )


def _near_images(a: StoredImage, b: StoredImage, settings: DeduplicateConfig) -> bool:
    bits = (int(a.dhash, 16) ^ int(b.dhash, 16)).bit_count()
    left, right = (np.frombuffer(base64.b64decode(x.thumbnail), np.uint8).astype(int) for x in (a, b))
    difference = int(np.abs(left - right).max())
    return bits <= settings.max_hash_distance and difference <= settings.max_thumbnail_difference
