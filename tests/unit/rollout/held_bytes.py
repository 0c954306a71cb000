"""What a piece of torch code holds at its fullest, on any device, the meta device too."""

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class HeldBytes(TorchDispatchMode):
    """Counts the bytes of all storages that were made within and still live."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, list | tuple) else (made,):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self.known and key not in self.held:
                    self.held[key] = storage.nbytes()
                    weakref.finalize(storage, self.held.pop, key, None)
        self.peak = max(self.peak, sum(self.held.values()))
        return made

    def counting(self, *existing: torch.Tensor) -> "HeldBytes":
        self.known = {tensor.untyped_storage()._cdata for tensor in existing}
        return self
