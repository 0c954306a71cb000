"""Device memory lent to others: the bytes of tensors wait in host memory, under tensors that stay the same objects.

Only storages change hands. Parameters, views of them, and what an optimiser or a sharding library holds on to are the
very objects they were, so nothing has to be told that the memory was away. Between `park` and `restore` none of them
may be read or written: their storages have no bytes.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch

ALIGNMENT = 256
"""Of each storage's copy, in bytes; more than any tensor type needs."""


class ParkingLot:
    """Holds the bytes of one device's storages.

    The host memory is one block, kept from one parking to the next; for a GPU it is page-locked, so that copies run at
    the full speed of the bus.
    """

    def __init__(self, device: torch.device) -> None:
        """Hold nothing yet; storages of other devices are left alone."""
        self._device = device
        self._block = torch.empty(0, dtype=torch.uint8)
        self._parked: list[tuple[torch.UntypedStorage, int, int]] = []
        """Storage, where its bytes begin in the block, how many there are."""

    def park(self, tensors: Iterable[torch.Tensor]) -> int:
        """Copy what the tensors hold to host memory and free their device memory.

        Args:
            tensors: any, views and several of one storage included; those on other devices are passed over.

        Returns:
            Bytes freed.
        """
        assert not self._parked, "parked twice without a restore"
        offset = 0
        for storage in self._storages(tensors):
            self._parked.append((storage, offset, storage.nbytes()))
            offset += -(-storage.nbytes() // ALIGNMENT) * ALIGNMENT
        self._reserve(offset)
        for storage, start, size in self._parked:
            self._block[start : start + size].copy_(_bytes_of(storage), non_blocking=True)
        self._wait()
        for storage, _, _ in self._parked:
            storage.resize_(0)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()  # else the memory stays this process's own
        return sum(size for _, _, size in self._parked)

    def restore(self) -> None:
        """Give every storage its device memory and its bytes back."""
        for storage, start, size in self._parked:
            storage.resize_(size)
            _bytes_of(storage).copy_(self._block[start : start + size], non_blocking=True)
        self._wait()
        self._parked = []

    def _storages(self, tensors: Iterable[torch.Tensor]) -> Iterator[torch.UntypedStorage]:
        """Give each storage once; those that torch cannot resize (borrowed memory) stay where they are."""
        seen = set()
        for tensor in tensors:
            if tensor.device != self._device:
                continue
            storage = tensor.untyped_storage()
            if storage._cdata not in seen and storage.nbytes() and storage.resizable():
                seen.add(storage._cdata)
                yield storage

    def _reserve(self, size: int) -> None:
        if size <= self._block.nbytes:
            return
        is_gpu = self._device.type == "cuda"
        if is_gpu and self._block.nbytes:
            _check(_runtime().cudaHostUnregister(self._block.data_ptr()))
        # Not torch's own pinned memory, which is rounded up to a power of two.
        self._block = torch.empty(size, dtype=torch.uint8)
        if is_gpu:
            _check(_runtime().cudaHostRegister(self._block.data_ptr(), size, 0))

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def reachable_tensors(*roots: Any, packages: tuple[str, ...]) -> Iterator[torch.Tensor]:
    """Give every tensor that can be reached from some objects.

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


def _bytes_of(storage: torch.UntypedStorage) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


def _runtime() -> Any:
    """CUDA's runtime."""
    return torch.cuda.cudart()


def _check(code: Any) -> None:
    torch.cuda.check_error(int(code))
