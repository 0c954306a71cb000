"""The files of a model folder: small ones are read whole, of safetensors only the headers.

Source: the format of the safetensors library: length of the header in 8 bytes, the header as JSON, the bytes of the
tensors.
"""

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from orchestration.settings.errors import ConfigError

LFS_POINTER = b"version https://git-lfs"
"""Beginning of the pointer file that Git keeps until Git LFS has fetched the file itself."""

MODEL_FILES = (".bin", ".jinja", ".json", ".model", ".safetensors", ".txt")
SAMPLES, SAMPLE_BYTES = 128, 64 * 1024
"""Of a file that is larger than all its samples: 8 MiB, the first and the last bytes among them."""


def read_text(path: Path) -> str:
    """Return the text of a file of a model folder.

    Raises:
        ConfigError: it cannot be read, is not UTF-8, or is a Git LFS pointer.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"model.path: {path} cannot be read ({os.strerror(error.errno or 0)})") from error
    if data.startswith(LFS_POINTER):
        raise lfs_error(path)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"model.path: {path} is not UTF-8 text; download it again") from error


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object that a file of a model folder holds.

    Raises:
        ConfigError: as `read_text`, or it holds no JSON object.
    """
    try:
        found = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ConfigError(f"model.path: {path} is not JSON ({error}); download it again") from error
    if not isinstance(found, dict):
        raise ConfigError(f"model.path: {path} holds a {type(found).__name__}, no JSON object; download it again")
    return found


def config_parts(config: Mapping[str, Any], where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (prefix of dotted keys, values) of config.json and its nested parts."""
    yield where, config
    for name, value in config.items():
        if isinstance(value, Mapping) and name.endswith("_config") and name != "quantization_config":
            yield from config_parts(value, f"{where}{name}.")


def lfs_error(path: Path) -> ConfigError:
    """Return the error for a Git LFS pointer."""
    return ConfigError(
        f"model.path: {path} is a Git LFS pointer, not the file itself; run `git lfs pull` in {path.parent}, or "
        "download the checkpoint again"
    )


INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""
ELEMENT_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "F8_E8M0": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip
COMPARED_ROWS = 256
"""Rows compared to recognise a copied output head, as in the learner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """One tensor of a weight file."""

    file: Path
    dtype: str
    """Name of the dtype in safetensors."""
    shape: tuple[int, ...]
    start: int
    """Offset of its bytes in the file."""

    def first_rows(self, count: int) -> bytes:
        """Return the bytes of its first rows."""
        row = ELEMENT_BYTES.get(self.dtype, 0) * prod(self.shape[1:])
        with self.file.open("rb") as file:
            file.seek(self.start)
            return file.read(min(count, self.shape[0]) * row)


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Return every tensor of a model folder, by its name in the file.

    Raises:
        ConfigError: there are no safetensors, one that the index names is missing, a file is truncated, or the index
            names another file for a tensor.
    """
    found: dict[str, StoredTensor] = {}
    for path in weight_files(folder):
        for name, tensor in read_header(path).items():
            found[name] = tensor
    if (index := folder / INDEX_FILE).is_file():
        for name, file in read_object(index)["weight_map"].items():
            if name in found and found[name].file.name != file:  # a tensor in no file is reported where it is needed
                raise ConfigError(
                    f"model.path: {index} says that {name} is in {file}, and it is in {found[name].file.name}; index "
                    "and files must be of one checkpoint: download it again"
                )
    return found


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model folder, in order of their names.

    Raises:
        ConfigError: there are none, the index is broken, or files that it names are missing.
    """
    index = folder / INDEX_FILE
    if not index.is_file():
        if not (folder / SINGLE_FILE).is_file():
            raise _no_weights(folder)
        return [folder / SINGLE_FILE]
    weight_map = read_object(index).get("weight_map")
    if (
        not isinstance(weight_map, dict)
        or not weight_map
        or not all(isinstance(name, str) for name in weight_map.values())
    ):
        raise ConfigError(f"model.path: {index} holds no weight_map of tensors to files; download it again")
    names = sorted(set(weight_map.values()))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ConfigError(
            f"model.path={folder} lacks {_some(missing)}, of {len(names)} files that {INDEX_FILE} names; download "
            "the whole checkpoint"
        )
    return [folder / name for name in names]


def has_own_output_head(tensors: Mapping[str, StoredTensor]) -> bool | None:
    """Return whether the weights have an output head that differs from the embedding table; None without the table.

    The learner decides in the same way whether head and table are tied, whatever config.json says.
    """
    table = next((tensor for name, tensor in tensors.items() if name.endswith("embed_tokens.weight")), None)
    if table is None:
        return None
    head = next((tensor for name, tensor in tensors.items() if name.endswith("lm_head.weight")), None)
    if head is None:
        return False
    if (head.dtype, head.shape) != (table.dtype, table.shape):
        return True
    return head.first_rows(COMPARED_ROWS) != table.first_rows(COMPARED_ROWS)


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Return every tensor of a safetensors file, by its name.

    Raises:
        ConfigError: it is no whole safetensors file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            lead = file.read(len(LFS_POINTER))
            if lead == LFS_POINTER:
                raise lfs_error(path)
            length = struct.unpack("<Q", lead[:8])[0] if len(lead) >= 8 else 0
            if size < 8 or not 2 <= length <= MAX_HEADER_BYTES:
                fault = "is empty" if size == 0 else "is no safetensors file"
                raise ConfigError(f"model.path: {path} {fault}; download it again")
            file.seek(8)
            data = file.read(length)
    except OSError as error:
        raise ConfigError(f"model.path: {path} cannot be read ({os.strerror(error.errno or 0)})") from error
    if len(data) < length:
        raise _cut(path, 8 + length, size, at_least=True)
    try:
        header = json.loads(data)
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        end = 0
        ranges = {name: entry["data_offsets"] for name, entry in entries.items()}
        spans = {name: (int(offsets[0]), int(offsets[1])) for name, offsets in ranges.items()}
        for name, (first, last) in sorted(spans.items(), key=lambda item: item[1]):
            numel, bytes_each = prod(map(int, entries[name]["shape"])), ELEMENT_BYTES.get(entries[name]["dtype"])
            if first != end or last < first or (bytes_each is not None and last - first != numel * bytes_each):
                raise ValueError(f"bytes {first} to {last} are not those of {name}")
            end = last
        found = {
            name: StoredTensor(
                file=path,
                dtype=str(entry["dtype"]),
                shape=tuple(map(int, entry["shape"])),
                start=8 + length + int(entry["data_offsets"][0]),
            )
            for name, entry in entries.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ConfigError(f"model.path: {path} is no safetensors file: its header does not parse; download it again") \
            from error  # fmt: skip
    if 8 + length + end != size:
        raise _cut(path, 8 + length + end, size)
    return found


def _cut(path: Path, wanted: int, size: int, *, at_least: bool = False) -> ConfigError:
    fault = "is cut short" if size < wanted else "is longer than it may be"
    more = "at least " if at_least else ""
    return ConfigError(
        f"model.path: {path} {fault}: its header says {more}{wanted:,} bytes, {size:,} are there; download it again"
    )


def _no_weights(folder: Path) -> ConfigError:
    if (folder / "adapter_config.json").is_file():
        return adapter_error(folder)
    names = sorted(path.name for path in folder.iterdir())
    if any(name.endswith(".gguf") for name in names):
        return ConfigError(
            f"model.path={folder} holds GGUF weights, which are quantised and cannot be trained; take the original "
            "checkpoint in safetensors"
        )
    shards = [name for name in names if name.endswith(".safetensors")]
    if shards:
        return ConfigError(
            f"model.path={folder} holds {_some(shards)} and no {INDEX_FILE}, which says what is in them; download the "
            "whole checkpoint"
        )
    pickled = [name for name in names if name.endswith((".bin", ".pt", ".pth"))]
    if pickled:
        return ConfigError(
            f"model.path={folder} holds its weights as {_some(pickled)}, which is not read; convert them to "
            "safetensors (transformers: from_pretrained, then save_pretrained)"
        )
    return ConfigError(
        f"model.path={folder} holds no weights ({SINGLE_FILE} or {INDEX_FILE}); download the whole checkpoint"
    )


def adapter_error(folder: Path) -> ConfigError:
    """Return the error for a folder that holds an adapter instead of a model."""
    base = read_object(folder / "adapter_config.json").get("base_model_name_or_path") or "its base model"
    return ConfigError(
        f"model.path={folder} is an adapter of {base}, no whole model; to train it further, set "
        f"model.path to that model and learner.lora.start={folder}; or merge it into that model (peft: "
        "merge_and_unload, then save_pretrained) and point model.path at the merged folder"
    )


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def model_digest(folder: Path, name: str | None = None) -> str:
    """Return the blake2b of a model folder's files in hex: small ones whole, of large ones the size and spread samples.

    Fine-tuning changes nearly every weight, so samples are enough to tell two models apart. With a name, of that file
    alone.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(p for p in folder.iterdir() if (p.suffix in MODEL_FILES if name is None else p.name == name)):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            if size <= SAMPLES * SAMPLE_BYTES:
                digest.update(file.read())
                continue
            for number in range(SAMPLES):
                file.seek(number * (size - SAMPLE_BYTES) // (SAMPLES - 1))
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()
