"""Export of whole tensors as a Hugging Face folder that transformers and vLLM load, or of an adapter as peft's."""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from learner.adapter import CONFIG_FILE, WEIGHTS_FILE, settings_of, stored_name
from learner.config import LoraConfig
from learner.errors import LearnerError
from learner.store import set_default_modes

# Loaders read shard after shard; 4 GB keeps their peak memory low.
MAX_SHARD_BYTES = 4 * 10**9
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".safetensors.index.json", ".bin.index.json")


def export_model(
    tensors: Iterable[tuple[str, torch.Tensor]],
    *,
    source: Path,
    target: Path,
    dtypes: Mapping[str, torch.dtype],
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write weights beside the configuration, tokenizer and processor files of the folder they came from.

    The folder is written under another name and renamed when whole and checked. One shard is in memory at a time.

    Args:
        tensors: (checkpoint name, whole tensor), consumed once.
        source: Hugging Face folder from which the policy was loaded.
        target: folder to write; replaced if it exists.
        dtypes: in which each tensor is written, by name.
        max_shard_bytes: largest weight file.

    Raises:
        LearnerError: the written files do not read back as what was written.
    """
    written = _empty_folder_beside(target)
    for path in source.iterdir():
        if path.is_file() and not path.name.endswith(WEIGHT_SUFFIXES):
            shutil.copyfile(path, written / path.name)
    shapes = _write_shards(tensors, written, dtypes, max_shard_bytes)
    _put_in_place(written, target, shapes)


def export_adapter(factors: Iterable[tuple[str, torch.Tensor]], *, target: Path, config: LoraConfig, base: str) -> None:
    """Write adapter factors and their settings as a folder that peft loads; written and renamed as `export_model` does.

    Args:
        factors: (parameter name, whole tensor), all held in memory.
        target: folder to write; replaced if it exists.
        config: of the adapters.
        base: the model that they are added to.

    Raises:
        LearnerError: the written file does not read back as what was written.
    """
    written = _empty_folder_beside(target)
    tensors = {stored_name(name): tensor.detach().cpu().contiguous() for name, tensor in factors}
    save_file(tensors, str(written / WEIGHTS_FILE), metadata={"format": "pt"})
    (written / CONFIG_FILE).write_text(json.dumps(settings_of(tensors, config=config, base=base), indent=2))
    _put_in_place(written, target, {name: tuple(tensor.shape) for name, tensor in tensors.items()})


def _empty_folder_beside(target: Path) -> Path:
    written = target.with_name(target.name + ".tmp")
    if written.exists():
        shutil.rmtree(written)
    written.mkdir(parents=True)
    return written


def _put_in_place(written: Path, target: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    _check(written, shapes)
    set_default_modes(written)
    if target.exists():
        shutil.rmtree(target)
    written.rename(target)


def _write_shards(
    tensors: Iterable[tuple[str, torch.Tensor]], folder: Path, dtypes: Mapping[str, torch.dtype], max_shard_bytes: int
) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    shards: list[list[str]] = []
    pending: dict[str, torch.Tensor] = {}
    total_bytes = pending_bytes = 0

    def flush() -> None:
        if pending:
            save_file(pending, str(folder / f"part_{len(shards)}.safetensors"), metadata={"format": "pt"})
            shards.append(list(pending))
            pending.clear()

    for name, tensor in tensors:
        # A copy of its own: safetensors refuses tensors that share memory.
        value = tensor.detach().to("cpu", dtypes[name]).contiguous().clone()
        if pending_bytes + value.nbytes > max_shard_bytes:
            flush()
            pending_bytes = 0
        pending[name] = value
        pending_bytes += value.nbytes
        total_bytes += value.nbytes
        shapes[name] = tuple(value.shape)
    flush()
    _name_shards(folder, shards, total_bytes)
    return shapes


def _name_shards(folder: Path, shards: list[list[str]], total_bytes: int) -> None:
    """Rename the parts as transformers expects them, with their number, and write the index."""
    if len(shards) == 1:
        (folder / "part_0.safetensors").rename(folder / "model.safetensors")
        return
    weight_map = {}
    for index, names in enumerate(shards):
        file_name = f"model-{index + 1:05d}-of-{len(shards):05d}.safetensors"
        (folder / f"part_{index}.safetensors").rename(folder / file_name)
        weight_map.update(dict.fromkeys(names, file_name))
    index_text = json.dumps({"metadata": {"total_size": total_bytes}, "weight_map": weight_map}, indent=2)
    (folder / "model.safetensors.index.json").write_text(index_text)


def _check(folder: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(str(path), framework="pt") as file:
            found.update({name: tuple(file.get_slice(name).get_shape()) for name in file.keys()})  # noqa: SIM118
    if found != shapes:
        wrong = sorted(name for name in found.keys() | shapes.keys() if found.get(name) != shapes.get(name))
        raise LearnerError(f"{folder}: exported tensors do not read back as written: {', '.join(wrong[:8])}")
