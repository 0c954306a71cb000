"""Whole tensors of one block from the rows that the ranks hold: one collective a block, whatever number of tensors."""

from collections.abc import Mapping
from math import prod

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor


class GatheredBlock:
    """The tensors of a block, gathered as one buffer and cut out one at a time. A collective of all ranks.

    It reads shards and leaves FSDP's own state alone, so nothing has to be given back.
    """

    def __init__(
        self, parameters: Mapping[str, torch.nn.Parameter], *, device: torch.device, dtype: torch.dtype
    ) -> None:
        """Gather.

        Args:
            parameters: by name, sharded by rows over all ranks; the same on every rank.
            device: on which the collective runs.
            dtype: in which tensors travel and are given.
        """
        num_ranks = dist.get_world_size()
        self._shapes = {name: parameter.shape for name, parameter in parameters.items()}
        # Every rank sends as many rows as the first one holds; the last ones have fewer, or none.
        self._rows = {name: -(-shape[0] // num_ranks) for name, shape in self._shapes.items()}
        self._starts: dict[str, int] = {}
        length = 0
        for name, shape in self._shapes.items():
            self._starts[name] = length
            length += self._rows[name] * prod(shape[1:])
        own = torch.zeros(length, device=device, dtype=dtype)
        for name, parameter in parameters.items():
            assert isinstance(parameter, DTensor)
            local = parameter.to_local().detach().flatten()
            own[self._starts[name] : self._starts[name] + len(local)] = local
        self._gathered = own.new_empty(num_ranks * length)
        dist.all_gather_into_tensor(self._gathered, own)
        self._gathered = self._gathered.view(num_ranks, length)

    def tensor(self, name: str) -> torch.Tensor:
        """Return a copy of one whole tensor."""
        shape, start = self._shapes[name], self._starts[name]
        rows = self._gathered[:, start : start + self._rows[name] * prod(shape[1:])]
        # `reshape` would copy where ranks are several, and not where there is one.
        return rows.clone(memory_format=torch.contiguous_format).view(-1, *shape[1:])[: shape[0]]
