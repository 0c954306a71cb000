"""The policy sharded over ranks with FSDP2: each block gathered around its own forward and backward.

Shards of what is trained are float32. What is not (frozen parts, all but the adapters, the reference) is kept in the
type of forward and backward, in which it is used alone.
"""

from collections.abc import Collection, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint import CheckpointException, FileSystemWriter
from torch.distributed.checkpoint import load as load_sharded
from torch.distributed.checkpoint import save as save_sharded
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from learner.backends.base import (
    WEIGHTS_FOLDER,
    LossFunction,
    TrainBackend,
    make_optimizer,
    parameter_groups,
    run_fused,
)
from learner.backends.plain_loading import PlainReader, weights_only
from learner.config import LearnerConfig
from learner.errors import CheckpointError
from learner.policy.model import Policy
from learner.policy.packing import MicroBatch
from learner.policy.source import FolderSource, Weights
from learner.policy.trainable import (
    adapters_of,
    initial_rows,
    is_adapter,
    merged,
)


class GatheredBlock:
    """The tensors of a block, gathered as one buffer in one collective of all ranks, and cut out one at a time.

    It reads shards and leaves FSDP's own state alone, so nothing has to be restored.
    """

    def __init__(
        self, parameters: Mapping[str, torch.nn.Parameter], *, device: torch.device, dtype: torch.dtype
    ) -> None:
        """Gather.

        Args:
            parameters: by name, sharded by rows over all ranks; the same on every rank.
            device: on which the collective runs.
            dtype: of the collective and of the tensors.
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


class FsdpBackend(TrainBackend):
    """Policy, optional reference and optimiser of one rank."""

    def __init__(self, config: LearnerConfig, device: torch.device, source: FolderSource) -> None:
        """Build and shard without weights, then read each rank's own rows; the process group must exist.

        Raises:
            LearnerError: the model folder, a freeze pattern or an adapter's target does not fit.
        """
        super().__init__(config, device)
        self._mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        weights = self._build_policy(source)
        self._module = self._shard_and_read(self.policy, weights)
        self._optimizer = make_optimizer(parameter_groups(self.policy, config.optimizer), config.optimizer)
        self._reference = self._build_reference(source)

    def _hold_reference(self, reference: Policy, weights: Weights) -> Policy:
        return self._shard_and_read(reference, weights)

    def _shard_and_read(self, policy: Policy, weights: Weights) -> Policy:
        if self._config.fsdp.compile:
            for block in policy.family.language_blocks(policy.hf_model):
                block.compile(dynamic=True)
        _narrow_fixed(policy, self.dtype)
        _shard(policy, self._mesh, self._config, self.dtype)
        buffers = {name: buffer.to(self.device) for name, buffer in policy.named_buffers()}
        policy.to_empty(device="cpu" if self._config.fsdp.cpu_offload else self.device)
        for name, buffer in buffers.items():
            owner, _, own_name = name.rpartition(".")
            policy.get_submodule(owner)._buffers[own_name] = buffer
        for name, parameter in policy.hf_model.named_parameters():
            _fill(parameter, name, weights)
        return policy

    def forward_backward(self, batch: MicroBatch, loss_function: LossFunction, *, is_last: bool) -> None:
        logprobs, entropy = self.policy(batch)
        loss_function(logprobs, entropy).backward()

    def _without_gradient(self, module: torch.nn.Module, batch: MicroBatch, *, is_raw: bool) -> torch.Tensor:
        logprobs = super()._without_gradient(module, batch, is_raw=is_raw)
        # Without a backward pass the root would keep its gathered weights, which the next step makes stale.
        assert isinstance(module, FSDPModule)
        module.reshard()
        return logprobs

    def _local_gradients(self) -> list[torch.Tensor]:
        return [
            parameter.grad.to_local() if isinstance(parameter.grad, DTensor) else parameter.grad
            for parameter in self.policy.parameters()
            if parameter.grad is not None
        ]

    def _update(self) -> None:
        self._optimizer.step()
        self.zero_grad()

    def zero_grad(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)

    def full_tensors(
        self, names: Collection[str] | None = None, *, merges: bool = True
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """See TrainBackend; in the type of forward and backward, and merged with adapters in float32."""
        named = dict(self.policy.hf_model.named_parameters())
        for unit in self._units(list(named)):
            bases = {name: named[name] for name in unit if self._is_wanted(name, names)}
            if not bases:
                continue
            adapted = bases if merges else {}
            factors = {factor: named[factor] for name in adapted for factor in adapters_of(name, named)}
            block = GatheredBlock(bases, device=self.device, dtype=self.dtype)
            adapters = GatheredBlock(factors, device=self.device, dtype=torch.float32) if factors else None
            for name in bases:
                own = [adapters.tensor(factor) for factor in adapters_of(name, factors)] if adapters is not None else []
                yield self._as_stored(name, merged(block.tensor(name), own, self._config.lora))

    def full_factors(self) -> Iterator[tuple[str, torch.Tensor]]:
        named = dict(self.policy.hf_model.named_parameters())
        for unit in self._units(list(named)):
            if factors := {name: named[name] for name in unit if is_adapter(name)}:
                block = GatheredBlock(factors, device=self.device, dtype=torch.float32)
                for name in factors:
                    yield name, block.tensor(name)

    def full_shapes(self) -> dict[str, tuple[int, ...]]:
        named = dict(self.policy.hf_model.named_parameters())
        return dict(
            self._stored_shape(name, named[name].shape)
            for names in self._units(list(named))
            for name in names
            if not is_adapter(name)
        )

    def _factor_shapes(self) -> dict[str, tuple[int, ...]]:
        named = dict(self.policy.hf_model.named_parameters())
        return {
            name: tuple(named[name].shape) for unit in self._units(list(named)) for name in unit if is_adapter(name)
        }

    def _units(self, names: list[str]) -> Iterator[list[str]]:
        """Yield the names of each unit's parameters, then those of each other layer: a table and a head are large."""
        prefix_of = {id(module): f"{name}." for name, module in self.policy.hf_model.named_modules()}
        for block in self.policy.units():
            own = [name for name in names if name.startswith(prefix_of[id(block)])]
            names = [name for name in names if name not in own]
            yield own
        for name in names:
            if not is_adapter(name):
                yield [name, *adapters_of(name, names)]

    def save(self, folder: Path) -> None:
        # Not forced to disk: the files are copied from this folder to another one.
        writer = FileSystemWriter(folder / WEIGHTS_FOLDER, sync_files=False)
        try:
            save_sharded(self._state(), storage_writer=writer)
        except CheckpointException as error:
            raise CheckpointError(f"{folder} was not written ({_reasons(error)}); is the disk full?") from error

    def load(self, folder: Path, *, is_writer: bool) -> None:
        state = self._state()
        try:
            with weights_only():
                load_sharded(state, storage_reader=PlainReader(folder / WEIGHTS_FOLDER))
        except CheckpointException as error:
            raise CheckpointError(
                f"{folder} does not load into this model and optimiser ({_reasons(error)}); use the model, freeze "
                "patterns and adapters with which it was written, or start a new run folder"
            ) from error
        run_fused(state["optimizer"]["param_groups"])
        set_state_dict(
            self.policy,
            self._optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
            options=self._state_options(),
        )
        self._offloader.forget()

    def offload(self) -> int:
        policies = [self.policy] if self._reference is None else [self.policy, self._reference]
        for policy in policies:
            for module in policy.modules():
                if isinstance(module, FSDPModule):
                    module.reshard()
        weights = [parameter for policy in policies for parameter in policy.parameters()]
        fixed, trained = ([_local(p) for p in weights if p.requires_grad is wanted] for wanted in (False, True))
        buffers = [buffer for policy in policies for buffer in policy.buffers()]
        return self._offloader.offload((*trained, *buffers, *self._optimizer_state()), fixed=fixed)

    def _optimizer_state(self) -> Iterator[torch.Tensor]:
        for state in self._optimizer.state.values():
            for value in state.values():
                if isinstance(value, torch.Tensor):
                    yield _local(value)

    def _state(self) -> dict[str, Any]:
        model, optimizer = get_state_dict(self.policy, self._optimizer, options=self._state_options())
        if self._config.lora is not None:
            # Of a tied weight that is frozen, torch leaves the second name.
            model = {name: tensor for name, tensor in model.items() if is_adapter(name)}
        return {"model": model, "optimizer": optimizer}

    def _state_options(self) -> StateDictOptions:
        # Of a model with adapters only these are written: the rest is in the folder it was loaded from.
        has_adapters = self._config.lora is not None
        return StateDictOptions(ignore_frozen_params=has_adapters, strict=not has_adapters)


def _narrow_fixed(policy: Policy, dtype: torch.dtype) -> None:
    """Convert what is not trained to the type of forward and backward, before it has values."""
    for parameter in policy.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


def _shard(policy: Policy, mesh: DeviceMesh, config: LearnerConfig, dtype: torch.dtype) -> None:
    precision = (
        MixedPrecisionPolicy()
        if dtype == torch.float32
        else MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    )
    offload = CPUOffloadPolicy() if config.fsdp.cpu_offload else OffloadPolicy()
    for module in [*policy.units(), policy]:
        sharded: Any = fully_shard(
            module,
            mesh=mesh,
            mp_policy=precision,
            offload_policy=offload,
            reshard_after_forward=config.fsdp.reshard_after_forward,
        )
        # The loss already has the global denominator, so ranks add up instead of averaging; gloo can only sum.
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)


def _fill(parameter: torch.nn.Parameter, name: str, weights: Weights) -> None:
    """Copy this rank's rows of a parameter from the checkpoint, or initialise those of an adapter."""
    assert isinstance(parameter, DTensor)
    shape, offset = compute_local_shape_and_global_offset(parameter.shape, parameter.device_mesh, parameter.placements)
    first, last = (offset[0], offset[0] + shape[0]) if parameter.ndim else (0, 1)
    with torch.no_grad():
        parameter.to_local().copy_(initial_rows(name, parameter.shape, weights, first, last))


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _reasons(error: CheckpointException) -> str:
    """Return the errors of the ranks; torch wraps them in a BaseException, which handlers of Exception would miss."""
    return "; ".join(f"rank {rank}: {cause}" for rank, (cause, _) in error.failures.items())
