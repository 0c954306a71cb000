"""TrainBackend: the interface between the trainer and whatever holds the policy; and the optimiser of all backends."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from learner.backends.offload import Offloader
from learner.config import LearnerConfig, OptimizerConfig
from learner.layers import base_name, layer_of
from learner.policy.conversion import EXPERT_AXES, buffer_names, checkpoint_names, swapped_names, swapped_shape
from learner.policy.model import Policy
from learner.policy.packing import MicroBatch
from learner.policy.source import FolderSource, Weights
from learner.policy.trainable import (
    adapters_off,
    add_adapters,
    freeze_parameters,
    is_adapter,
    scale_of,
    start_adapters,
)

WEIGHTS_FOLDER = "weights"
"""Folder inside a checkpoint's folder, into which a backend writes."""

LossFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(logprobs [C], entropy [C]) -> this micro-batch's share of the step's loss."""


class TrainBackend(ABC):
    """A policy on one or more ranks; every method but those that return shapes or names is a collective of all."""

    dtype: torch.dtype
    """Of forward and backward."""
    policy: Policy
    stored_dtypes: dict[str, torch.dtype]
    """By checkpoint name: type of each of `full_tensors` and `buffers` in the folder from which the policy came."""
    buffers: dict[str, torch.Tensor]
    """By checkpoint name: what a checkpoint holds beside its parameters. It is not trained, and not sent to engines."""
    _module: torch.nn.Module
    """What forward calls go through: the policy, or an engine around it."""
    _reference: torch.nn.Module | None
    _optimizer: Any

    def __init__(self, config: LearnerConfig, device: torch.device) -> None:
        self.device = device
        self.dtype = getattr(torch, config.dtype)
        self._config = config
        self._offloader = Offloader(device)

    def _build_policy(self, source: FolderSource) -> Weights:
        """Build the policy with frozen parts, adapters and recomputation as configured; returns its weights, unread.

        Raises:
            LearnerError: the model folder, a freeze pattern or an adapter's target does not fit.
        """
        self.policy = source.skeleton()
        # Names are matched before adapters change them.
        weights = source.weights(self.policy)
        self._names = checkpoint_names(self.policy.hf_model)
        self._swapped = swapped_names(self.policy.hf_model, self._names)
        buffers = buffer_names(self.policy.hf_model)
        self.buffers = {stored: self.policy.hf_model.get_buffer(name) for name, stored in buffers.items()}
        self.stored_dtypes = {stored: buffer.dtype for stored, buffer in self.buffers.items()}
        for name, stored in (self._names | buffers).items():
            if name in weights:
                self.stored_dtypes[stored] = weights.dtype(name)
        freeze_parameters(self.policy, self._config.freeze)
        if self._config.lora is not None:
            add_adapters(self.policy, self._config.lora)
            start_adapters(self.policy, weights, self._config.lora)
        self.policy.watch_routers(keeps_gradient=self._config.experts.balance_loss_coef > 0)
        if self._config.activation_checkpointing:
            self.policy.hf_model.gradient_checkpointing_enable({"use_reentrant": False})
        self.policy.train()
        return weights

    def _build_reference(self, source: FolderSource) -> torch.nn.Module | None:
        """Return the frozen start model; None without a KL term."""
        if not self._config.algorithm.uses_reference:
            return None
        if self._config.lora is not None:
            return self._module  # with adapters switched off, the policy is its own reference
        reference = source.skeleton()
        reference.requires_grad_(False).eval()
        return self._hold_reference(reference, source.weights(reference))

    @abstractmethod
    def _hold_reference(self, reference: Policy, weights: Weights) -> torch.nn.Module:
        """Read the weights of the reference; returns the module that computes its logprobs."""

    @abstractmethod
    def forward_backward(self, batch: MicroBatch, loss_function: LossFunction, *, is_last: bool) -> None:
        """Run one micro-batch and add its gradient to what is there; gradients of ranks are summed.

        Args:
            batch: of this rank.
            loss_function: called once, with gradient.
            is_last: whether `grad_norm` follows, so that sums over ranks may wait until now.
        """

    def logprobs(self, batch: MicroBatch, *, is_raw: bool = False) -> torch.Tensor:
        """Return the current policy's logprobs [C], without gradient; `is_raw` as in `Policy.forward`."""
        return self._without_gradient(self._module, batch, is_raw=is_raw)

    def reference_logprobs(self, batch: MicroBatch) -> torch.Tensor:
        """Return the frozen reference's logprobs [C]; only where a KL term loads it."""
        assert self._reference is not None, "there is no KL term: no reference was loaded"
        with adapters_off(self.policy) if self._config.lora else nullcontext():
            return self._without_gradient(self._reference, batch, is_raw=False)

    def _without_gradient(self, module: torch.nn.Module, batch: MicroBatch, *, is_raw: bool) -> torch.Tensor:
        with torch.no_grad():
            logprobs: torch.Tensor = module(batch, is_raw=is_raw)[0]
        return logprobs

    def grad_norm(self) -> torch.Tensor:
        """Return the global 2-norm of the gradient, the same scalar on every rank."""
        gradients = self._local_gradients()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        if gradients:
            total += torch.stack(torch._foreach_norm(gradients)).double().square().sum().to(self.device)
        dist.all_reduce(total)
        return total.sqrt()

    def step(self, *, grad_norm: torch.Tensor, learning_rate: float) -> None:
        """Clip the gradient to the configured norm, update the weights, and clear the gradient."""
        highest = self._config.max_grad_norm
        if grad_norm > highest:
            torch._foreach_mul_(self._local_gradients(), highest / float(grad_norm))
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._update()

    @abstractmethod
    def _local_gradients(self) -> list[torch.Tensor]:
        """Return the float32 gradients that this rank's optimiser will use; with all ranks' together, each once."""

    @abstractmethod
    def _update(self) -> None:
        """Step the optimiser and clear the gradient."""

    @abstractmethod
    def zero_grad(self) -> None:
        """Clear the gradient."""

    @abstractmethod
    def full_tensors(
        self, names: Collection[str] | None = None, *, merges: bool = True
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield (checkpoint name, whole tensor) one at a time; a tied weight once, under its first name.

        The caller owns each tensor. At most one block of the model is gathered at a time.

        Args:
            names: those wanted, the same on every rank; None for all.
            merges: whether adapters are added to their weights.
        """

    @abstractmethod
    def full_factors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield (parameter name, whole tensor, float32) of each adapter factor; none without adapters."""

    @abstractmethod
    def full_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each of `full_tensors` by its checkpoint name, in the same order; nothing is gathered."""

    @abstractmethod
    def _factor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each of `full_factors` by its name, in the same order; nothing is gathered."""

    def _as_stored(self, name: str, tensor: torch.Tensor) -> tuple[str, torch.Tensor]:
        """Return a parameter's name and whole tensor as published checkpoints have them, and engines read them."""
        own = base_name(name)
        return self._names[own], tensor.transpose(*EXPERT_AXES).contiguous() if own in self._swapped else tensor

    def _stored_shape(self, name: str, shape: Sequence[int]) -> tuple[str, tuple[int, ...]]:
        own = base_name(name)
        return self._names[own], swapped_shape(shape) if own in self._swapped else tuple(shape)

    def _is_wanted(self, name: str, names: Collection[str] | None) -> bool:
        """Whether a parameter is one of `full_tensors`; factors of adapters are not."""
        return not is_adapter(name) and (names is None or self._names[base_name(name)] in names)

    def published_tensors(self, names: Collection[str]) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield (name, whole tensor) of the tensors `names` as engines hold them.

        These are `full_tensors`; with `lora.publish: adapter` the weights without adapters, then the factors, of which
        B is multiplied by alpha / rank.
        """
        if not self._keeps_base:
            yield from self.full_tensors(names)
            return
        assert self._config.lora is not None
        yield from self.full_tensors(names, merges=False)
        if any(self._published_factor(name) in names for name in self._factor_shapes()):
            for name, tensor in self.full_factors():
                if (published := self._published_factor(name)) in names:
                    yield published, tensor * scale_of(self._config.lora) if ".lora_B." in name else tensor

    def published_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each of `published_tensors` by its name, in the same order; nothing is gathered."""
        factors = self._factor_shapes() if self._keeps_base else {}
        return {**self.full_shapes(), **{self._published_factor(name): shape for name, shape in factors.items()}}

    @property
    def _keeps_base(self) -> bool:
        """Whether engines keep the base weights and are sent adapters alone."""
        return self._config.lora is not None and self._config.lora.publish == "adapter"

    def _published_factor(self, name: str) -> str:
        """Return the name under which a factor is published: that of its layer in the checkpoint, and lora_A or _B."""
        layer, _, factor = name.partition(".lora_")
        return f"{self._names[f'{layer}.weight'].removesuffix('.weight')}.lora_{factor[0]}.weight"

    def missing_names(self) -> frozenset[str]:
        """Return the published names of the tensors that a new engine has not: all, or the factors of adapters."""
        return self.changing_names() if self._keeps_base else frozenset(self.full_shapes())

    def changing_names(self) -> frozenset[str]:
        """Return the published names of the tensors that are sent after a step.

        These are all tensors of the layers, by `layer_of`, in which something is trained, or the factors of adapters.
        """
        if self._keeps_base:
            return frozenset(map(self._published_factor, self._factor_shapes()))
        parameters = self.policy.hf_model.named_parameters()
        layers = {layer_of(name) for name, parameter in parameters if parameter.requires_grad}
        return frozenset(stored for name, stored in self._names.items() if layer_of(name) in layers)

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write this rank's part of weights and optimiser state into a folder of its own.

        File names differ between ranks, so that the parts of all ranks fit into one folder.
        """

    @abstractmethod
    def load(self, folder: Path, *, is_writer: bool) -> None:
        """Read what `save` wrote, on any number of ranks.

        Args:
            folder: with the parts of all ranks.
            is_writer: whether this rank alone, of those that see this folder, may write into it for a while.
        """

    @abstractmethod
    def offload(self) -> int:
        """Move weights and optimiser state of the device to host memory; returns the bytes freed there.

        Between two steps only. Until `onload` no other method may be called.
        """

    def onload(self) -> None:
        """Move back what `offload` moved."""
        self._offloader.restore()


# Weight decay pulls matrices towards zero; biases and norm weights are vectors and are not decayed.
MIN_DECAYED_AXES = 2


def parameter_groups(policy: torch.nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Sort the trainable parameters into those that decay and those that do not."""
    trainable = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= MIN_DECAYED_AXES], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim < MIN_DECAYED_AXES], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def make_optimizer(groups: list[dict[str, Any]], config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return AdamW over parameter groups, as one kernel without temporaries: torch has it for GPUs and for CPUs.

    Args:
        groups: from `parameter_groups`.
        config: rates and decay.
    """
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, eps=config.eps, fused=True)


def run_fused(groups: Iterable[dict[str, Any]]) -> None:
    """Set parameter groups of a checkpoint to the fused kernel, whichever kernel wrote them."""
    for group in groups:
        group.update(fused=True, foreach=None)
