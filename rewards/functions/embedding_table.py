"""One embedding table, read row by row from a checkpoint on disk without loading the checkpoint."""

import json
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rewards.core.base import RewardError

_STORED_AS: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
_SUFFIXES = ("embed_tokens.weight", "wte.weight", "tok_embeddings.weight", "word_embeddings.weight")
"""Ends of the names of input embedding tables in checkpoints."""


class EmbeddingTable:
    """Rows of a [V, d] table in float32; bf16 is widened after the gather, so no float32 copy of the table exists.

    Example:
        >>> EmbeddingTable(np.eye(3, dtype=np.float32)).rows(np.array([2, 0])).tolist()
        [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """

    def __init__(self, stored: NDArray[Any], *, bfloat16: bool = False) -> None:
        """Wrap an array.

        Args:
            stored: [V, d] float32 or float16; or uint16 holding bfloat16 bits. Never written to.
            bfloat16: Whether `stored` is bfloat16 as uint16.

        Raises:
            RewardError: If shape or dtype is another.
        """
        allowed = ("uint16",) if bfloat16 else ("float32", "float16")
        if stored.ndim != 2 or stored.dtype.name not in allowed:
            raise RewardError(
                f"embedding is {stored.dtype.name} of shape {stored.shape}; use [V, d] in {' or '.join(allowed)}"
            )
        self._stored = stored
        self._bfloat16 = bfloat16

    @classmethod
    def from_checkpoint(cls, folder: Path | str, tensor_name: str = "") -> Self:
        """Memory-map the input embedding table of a safetensors checkpoint.

        Args:
            folder: Holds `model.safetensors`, or `model.safetensors.index.json` and its shards.
            tensor_name: Name inside the checkpoint; empty finds the one that ends as input tables do.

        Raises:
            RewardError: If there is no checkpoint, no such tensor, several candidates, or another dtype.
        """
        files = _tensor_files(Path(folder))
        name = tensor_name or _find_table(files)
        if name not in files:
            raise RewardError(f"tensor {name!r} is not in {folder}; it has {len(files)} tensors: {_some(files)}")
        return cls._map(files[name], name)

    @classmethod
    def _map(cls, path: Path, name: str) -> Self:
        header, data_start = _read_header(path)
        entry = header[name]
        if entry["dtype"] not in _STORED_AS:
            raise RewardError(f"tensor {name!r} is {entry['dtype']}; use one of {', '.join(_STORED_AS)}")
        stored: NDArray[Any] = np.memmap(
            path,
            dtype=_STORED_AS[entry["dtype"]],
            mode="r",
            offset=data_start + entry["data_offsets"][0],
            shape=tuple(entry["shape"]),
        )
        return cls(stored, bfloat16=entry["dtype"] == "BF16")

    @property
    def shape(self) -> tuple[int, int]:
        """(V, d)."""
        num_rows, width = self._stored.shape
        return int(num_rows), int(width)

    def rows(self, token_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Gather rows.

        Args:
            token_ids: [k]; sorted ids read the disk in order.

        Returns:
            [k, d] float32.

        Raises:
            RewardError: If an id is outside of the table.
        """
        if token_ids.size and not 0 <= int(token_ids.min()) <= int(token_ids.max()) < self.shape[0]:
            raise RewardError(
                f"token ids {int(token_ids.min())}..{int(token_ids.max())} leave the embedding table of "
                f"{self.shape[0]} rows; tokenizer and table must come from one model"
            )
        gathered = np.asarray(self._stored[token_ids])
        if self._bfloat16:
            # The upper half of a float32 is its bfloat16.
            gathered = np.left_shift(gathered, 16, dtype=np.uint32).view(np.float32)
        rows: NDArray[np.float32] = gathered.astype(np.float32, copy=False)
        return rows


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return tensor entries by name and the offset of the data (safetensors: 8 bytes of length, then JSON)."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= path.stat().st_size - 8:
            raise RewardError(f"{path.name} is no safetensors file: its header claims {length} bytes")
        try:
            header: dict[str, Any] = json.loads(file.read(length))
        except ValueError as error:
            raise RewardError(f"{path} is no safetensors file, or one that was cut: its header is no JSON") from error
    header.pop("__metadata__", None)
    return header, 8 + length


def _tensor_files(folder: Path) -> dict[str, Path]:
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if index.is_file():
        try:
            shards = json.loads(index.read_text())["weight_map"]
        except (ValueError, KeyError) as error:
            raise RewardError(f"{index} is no index of weights ({error}); copy it again") from error
        return {name: folder / shard for name, shard in shards.items()}
    if single.is_file():
        return dict.fromkeys(_read_header(single)[0], single)
    raise RewardError(f"{folder} holds neither {single.name} nor {index.name}; give the folder of a checkpoint")


def _find_table(files: dict[str, Path]) -> str:
    names = [name for name in files if name.endswith(_SUFFIXES)]
    if len(names) != 1:
        raise RewardError(
            f"{len(names)} tensors look like an input embedding table ({_some(names)}); name one of: {_some(files)}"
        )
    return names[0]


def _some(names: dict[str, Path] | list[str]) -> str:
    return ", ".join(sorted(names)[:8])
