"""What two rows are compared by: digests of what must be equal, sets of words of what may differ a little."""

import base64
import hashlib
import json
import re
import zlib
from dataclasses import dataclass

from orchestration.data.duplicates.fingerprints import normalised_question, question_words
from orchestration.data.rows.records import Candidate, StoredImage

HASH_BYTES = 32
THUMBNAIL_BYTES = 16 * 16 * 3
SIGNATURE_BITS = 256
_LETTERS = re.compile(r"[A-Z](?:\s*,\s*[A-Z])*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How an image looks, for the comparison of nearly equal ones; images of one look are told apart by bytes only."""

    key: bytes
    hash: bytes
    """256 bits."""
    thumbnail: bytes
    """16 x 16 x 3 means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowKeys:
    """Digests of a row; what is equal in two rows has one digest."""

    exact: bytes
    """Images byte by byte, normalised question, options in any order; descriptions apart from other tasks."""
    answer: bytes
    """The answer without case; of a lettered one the texts of its options, so that their order does not matter."""
    question: bytes
    """Normalised question."""
    family: bytes
    """Task, answer and number of images: near-duplicates are looked for inside one family."""
    profile: bytes
    """Family, looks of the images, words of the question: rows of one profile are near-duplicates."""
    words: tuple[str, ...]
    """Of the question, sorted, each once."""
    words_key: bytes
    looks: tuple[Look, ...]
    """Of the images, in order."""


def row_keys(row: Candidate) -> RowKeys:
    """Compute the keys of one row; its question counts without the words of the prompt template."""
    question = normalised_question(row.stem)
    words = tuple(sorted(question_words(row.stem)))
    options = sorted(map(_plain, row.options))
    answer = _answer(row)
    looks = tuple(map(_look, row.images))
    family = _digest(row.task, answer, len(row.images))
    words_key = _digest(words)
    return RowKeys(
        exact=_digest([image.sha256 for image in row.images], question, options, row.task == "open"),
        answer=_digest(answer),
        question=_digest(question),
        family=family,
        profile=_digest(family.hex(), [look.key.hex() for look in looks], words_key.hex()),
        words=words,
        words_key=words_key,
        looks=looks,
    )


def signature(words: tuple[str, ...]) -> bytes:
    """Give 256 bits of which every word sets one: signatures differ in no more bits than the sets differ in words."""
    bits = 0
    for word in words:
        bits |= 1 << (zlib.crc32(word.encode("utf-8", "surrogatepass")) % SIGNATURE_BITS)
    return bits.to_bytes(SIGNATURE_BITS // 8, "little")


def _answer(row: Candidate) -> str | list[str]:
    if row.options and _LETTERS.fullmatch(row.answer.strip()):
        places = [ord(letter.strip()) - ord("A") for letter in row.answer.split(",")]
        if max(places) < len(row.options):
            return sorted(_plain(row.options[place]) for place in places)
    return _plain(row.answer)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _look(image: StoredImage) -> Look:
    hash_bytes, thumbnail = bytes.fromhex(image.dhash), base64.b64decode(image.thumbnail)
    assert len(hash_bytes) == HASH_BYTES, f"dhash of {image.sha256} has {len(hash_bytes)} bytes"
    assert len(thumbnail) == THUMBNAIL_BYTES, f"thumbnail of {image.sha256} has {len(thumbnail)} bytes"
    key = hashlib.blake2b(hash_bytes + thumbnail, digest_size=16).digest()
    return Look(key=key, hash=hash_bytes, thumbnail=thumbnail)


def _digest(*parts: object) -> bytes:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).digest()
