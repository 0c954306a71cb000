"""Which rows of a source are held out by its `held_out_share`: those of a share of its images.

Rows with one image are never on both sides. Images are known by path, link, bytes and name; no image file is opened.
"""

import hashlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orchestration.data.sources.rows import RawRow
from orchestration.storage.files import whole_file

Keys = NDArray[np.uint64]
NO_NAME = 0
"""Name key of an image without a name."""


def image_keys(row: RawRow, root: Path, seed: int) -> tuple[int, int]:
    """Return two keys of the first image of a row: of its path, link or bytes, and of its name across datasets.

    A row without images has the key of its question, without case and repeated spaces, and NO_NAME.

    Args:
        row: As its adapter read it.
        root: Folder that paths start from. Keys do not depend on where it lies.
        seed: Other seeds give other keys, and so hold out other images.
    """
    if not row.images:
        return _key(seed, "question", " ".join(row.question.casefold().split()).encode(errors="replace")), NO_NAME
    image = row.images[0]
    name = _key(seed, "name", image.image_id.encode(errors="replace")) if image.image_id else NO_NAME
    if image.data is not None:
        return _key(seed, "bytes", image.data), name
    if image.link is not None:
        return _key(seed, "link", image.link.encode(errors="replace")), name
    path = os.path.normpath(root / (image.path or ""))
    inside = path.removeprefix(os.path.join(os.path.normpath(root), ""))
    return _key(seed, "path", inside.encode(errors="replace")), name


def held_out_keys(images: Keys, names: Keys, share: float) -> Keys:
    """Return the image keys of the held-out rows, sorted; the order of the rows does not matter.

    Images are taken in the order of their keys until the number of their rows is nearest to the share. At least one is
    taken and one left, if there are two. An image that has more rows than are wanted is left.

    Args:
        images: [n], key of the path, link, bytes or question of each row.
        names: [n], key of the name of its image, or NO_NAME. Equal names are one image.
        share: Share of the rows to hold out, above 0 and below 1.
    """
    unique, places, counts = np.unique(images, return_inverse=True, return_counts=True)
    group_of = _groups(places, names, len(unique))
    num_rows = np.bincount(group_of, weights=counts).astype(np.int64)
    if len(num_rows) < 2:
        return unique[:0]
    wanted = share * len(images)
    groups = np.flatnonzero(num_rows <= max(wanted, num_rows.min()))
    if len(groups) == len(num_rows):
        groups = groups[:-1]  # one stays
    nearest = int(np.argmin(np.abs(np.cumsum(num_rows[groups]) - wanted)))
    return unique[np.isin(group_of, groups[: nearest + 1])]


def write_held_out(folder: Path, images: Keys, names: Keys, share: float) -> str:
    """Write the keys of `held_out_keys` into a folder and return the name of the file; empty where the share is 0."""
    if not share:
        return ""
    keys = held_out_keys(images, names, share)
    path = folder / f"held-out-{hashlib.blake2b(keys.tobytes(), digest_size=10).hexdigest()}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial, partial.open("wb") as file:
        np.save(file, keys)
    return path.name


def contains(keys: Keys, key: int) -> bool:
    """Return whether sorted keys hold a key."""
    place = int(np.searchsorted(keys, np.uint64(key)))
    return place < len(keys) and int(keys[place]) == key


def _groups(places: NDArray[np.intp], names: Keys, num_images: int) -> NDArray[np.intp]:
    """Return the group of each image, numbered in the order of their first images: images of one name are one group."""
    groups = np.arange(num_images)
    named = np.flatnonzero(names != NO_NAME)
    if len(named):
        _, name_of = np.unique(names[named], return_inverse=True)
        while True:
            first = np.full(int(name_of.max()) + 1, num_images)
            np.minimum.at(first, name_of, groups[places[named]])
            joined = groups.copy()
            np.minimum.at(joined, places[named], first[name_of])
            joined = np.minimum(joined, joined[joined])
            if np.array_equal(joined, groups):
                break
            groups = joined
    numbers: NDArray[np.intp] = np.unique(groups, return_inverse=True)[1]
    return numbers


def _key(seed: int, kind: str, value: bytes) -> int:
    hasher = hashlib.blake2b(f"{seed}\x1f{kind}\x1f".encode(), digest_size=8)
    hasher.update(value)
    return int.from_bytes(hasher.digest(), "big")
