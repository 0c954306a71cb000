"""Offloading between two steps: the bytes of tensors move to host memory, under tensors that stay the same objects.

Only storages change: parameters, their views, and all that an optimiser or a sharding library refers to remain the same
objects. Between `offload` and `restore` none of them may be read or written: their storages have no bytes.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

ALIGNMENT = 256
"""Of each storage's copy, in bytes; more than any tensor type needs."""


class Offloader:
    """Holds the bytes of one device's storages.

    The host memory is two blocks, kept from one offload to the next: one of what changes in between, and one of what is
    fixed, whose bytes are copied to the host once. For a GPU both are page-locked, so that copies run at the full speed
    of the bus.
    """

    def __init__(self, device: torch.device) -> None:
        """Hold nothing yet; storages of other devices are left alone."""
        self._device = device
        self._changing = torch.empty(0, dtype=torch.uint8)
        self._fixed = torch.empty(0, dtype=torch.uint8)
        self._offloaded: list[tuple[torch.UntypedStorage, torch.Tensor]] = []
        """Storage, and its bytes in one of the blocks."""
        self._held: list[torch.UntypedStorage] = []
        """Storages whose bytes the block of what is fixed holds, in its order."""

    def offload(self, tensors: Iterable[torch.Tensor], *, fixed: Iterable[torch.Tensor] = ()) -> int:
        """Copy what the tensors hold to host memory and free their device memory.

        Args:
            tensors: any, views and several of one storage included; those on other devices are passed over.
            fixed: the same, of which nothing was written since they were offloaded last, or `forget` was called after.

        Returns:
            Bytes freed.
        """
        assert not self._offloaded, "offloaded twice without a restore"
        seen: set[int] = set()
        changing, unchanged = list(self._storages(tensors, seen)), list(self._storages(fixed, seen))
        self._changing = self._reserve(self._changing, changing)
        self._fixed = self._reserve(self._fixed, unchanged)
        places = [*_places(self._changing, changing), *_places(self._fixed, unchanged)]
        is_held = [storage._cdata for storage in unchanged] == [storage._cdata for storage in self._held]
        for storage, place in places[: len(changing)] if is_held else places:
            place.copy_(_bytes_of(storage), non_blocking=True)
        self._wait()
        self._offloaded, self._held = places, unchanged
        for storage, _ in places:
            storage.resize_(0)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()  # else the memory stays this process's own
        return sum(place.nbytes for _, place in places)

    def restore(self) -> None:
        """Allocate device memory for every storage again and copy its bytes back."""
        for storage, place in self._offloaded:
            storage.resize_(place.nbytes)
            _bytes_of(storage).copy_(place, non_blocking=True)
        self._wait()
        self._offloaded = []

    def forget(self) -> None:
        """Copy what is fixed again when it is offloaded next: it was written."""
        self._held = []

    def _storages(self, tensors: Iterable[torch.Tensor], seen: set[int]) -> Iterator[torch.UntypedStorage]:
        """Yield each storage once; those that torch cannot resize (borrowed memory) are left alone."""
        for tensor in tensors:
            if tensor.device != self._device:
                continue
            storage = tensor.untyped_storage()
            if storage._cdata not in seen and storage.nbytes() and storage.resizable():
                seen.add(storage._cdata)
                yield storage

    def _reserve(self, block: torch.Tensor, storages: Sequence[torch.UntypedStorage]) -> torch.Tensor:
        """Return a block with room for all of them: the one there is, where it suffices."""
        size = sum(_aligned(storage) for storage in storages)
        if size <= block.nbytes:
            return block
        is_gpu = self._device.type == "cuda"
        if is_gpu and block.nbytes:
            _check(torch.cuda.cudart().cudaHostUnregister(block.data_ptr()))
        # Not torch's own pinned memory, which is rounded up to a power of two.
        block = torch.empty(size, dtype=torch.uint8)
        if is_gpu:
            _check(torch.cuda.cudart().cudaHostRegister(block.data_ptr(), size, 0))
        return block

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def reachable_tensors(*roots: Any, packages: tuple[str, ...]) -> Iterator[torch.Tensor]:
    """Yield every tensor that can be reached from some objects.

    Containers and attributes of tensors are followed always, attributes of other objects where their class is of one of
    the `packages` or an optimiser.
    """
    seen: set[int] = set()
    waiting = list(roots)
    while waiting:
        found = waiting.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, torch.Tensor):
            yield found
            waiting.append(found.grad if found.is_leaf else None)
            waiting.extend(getattr(found, "__dict__", {}).values())
        elif isinstance(found, dict):
            waiting.extend(found.values())
        elif isinstance(found, list | tuple | set):
            waiting.extend(found)
        elif isinstance(found, torch.optim.Optimizer) or type(found).__module__.split(".")[0] in packages:
            waiting.extend(getattr(found, "__dict__", {}).values())


def _places(
    block: torch.Tensor, storages: Iterable[torch.UntypedStorage]
) -> Iterator[tuple[torch.UntypedStorage, torch.Tensor]]:
    offset = 0
    for storage in storages:
        yield storage, block[offset : offset + storage.nbytes()]
        offset += _aligned(storage)


def _aligned(storage: torch.UntypedStorage) -> int:
    return -(-storage.nbytes() // ALIGNMENT) * ALIGNMENT


def _bytes_of(storage: torch.UntypedStorage) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


def _check(code: Any) -> None:
    torch.cuda.check_error(int(code))
