"""Reads checkpoints of torch and DeepSpeed without running what is in them.

Both write pickles, and a pickle can call any function of any module while it is read. Here a file may name tensors,
containers and the few classes that these libraries keep beside them; anything else is refused unread.
"""

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta

FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
FORCE_NOT = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
"""Read by every `torch.load`; the two libraries ask it for `weights_only=False`, which only these overrule."""
METADATA_NAMES = {
    ("pathlib", "PosixPath"),
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    *(
        ("torch.distributed.checkpoint.metadata", name)
        for name in (
            "BytesStorageMetadata",
            "ChunkStorageMetadata",
            "Metadata",
            "MetadataIndex",
            "StorageMeta",
            "TensorProperties",
            "TensorStorageMetadata",
            "_MEM_FORMAT_ENCODING",
        )
    ),
}
"""Classes in `.metadata` of a sharded checkpoint, beside types of tensors."""


@contextmanager
def weights_only(allowed: Sequence[Callable[..., Any]] = ()) -> Iterator[None]:
    """Within the block, whatever calls `torch.load` gets tensors, containers and these classes, or an UnpicklingError.

    Args:
        allowed: classes that a file may name; the caller makes sure that they are harmless.
    """
    before = {name: os.environ.pop(name, None) for name in (FORCE, FORCE_NOT)}
    os.environ[FORCE] = "1"
    try:
        with torch.serialization.safe_globals(list(allowed)):
            yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


class PlainReader(FileSystemReader):
    """Torch's reader of sharded checkpoints, but for the pickle that describes the shards."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """See torch's FileSystemReader.

        Raises:
            pickle.UnpicklingError: the file names anything that does not belong there.
        """
        with self.fs.create_stream(self._get_metadata_path(kwargs.get("rank")), "rb") as stream:
            metadata: Metadata = _MetadataUnpickler(stream).load()
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _MetadataUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        is_type = module_name == "torch" and isinstance(getattr(torch, global_name, None), torch.dtype)
        if is_type or (module_name, global_name) in METADATA_NAMES:
            return super().find_class(module_name, global_name)
        raise pickle.UnpicklingError(
            f"it names {module_name}.{global_name}, which no checkpoint needs and which may run any program"
        )
