"""The policy sharded over ranks with FSDP2: float32 shards, each block gathered around its own forward and backward."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint import CheckpointException
from torch.distributed.checkpoint import load as load_sharded
from torch.distributed.checkpoint import save as save_sharded
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from learner.backends.base import LossFunction
from learner.config import LearnerConfig, OptimizerConfig
from learner.errors import CheckpointError
from learner.model import Policy, checkpoint_names, freeze_parameters, load_policy
from learner.packing import MicroBatch

WEIGHTS_FOLDER = "weights"
# Weight decay pulls matrices towards zero; biases and norm weights are vectors and stay as they are.
MIN_DECAYED_AXES = 2


class FsdpBackend:
    """Policy, optional reference and optimiser of one rank."""

    def __init__(self, config: LearnerConfig, device: torch.device) -> None:
        """Load and shard; the process group must stand.

        Raises:
            LearnerError: the model folder or a freeze pattern does not fit.
        """
        self.device = device
        self.dtype: torch.dtype = getattr(torch, config.dtype)
        self._max_grad_norm = config.max_grad_norm
        mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        self.policy = load_policy(config.model_path, temperature=config.algorithm.temperature)
        freeze_parameters(self.policy, config.freeze)
        self._names = checkpoint_names(self.policy)
        if config.activation_checkpointing:
            self.policy.hf_model.gradient_checkpointing_enable({"use_reentrant": False})
        self.policy.train()
        self._shard(self.policy, mesh)
        self._optimizer = make_optimizer(self.policy, config.optimizer)
        self._reference: Policy | None = None
        if config.algorithm.kl_coef > 0:
            self._reference = load_policy(config.model_path, temperature=config.algorithm.temperature)
            self._reference.requires_grad_(False).eval()
            self._shard(self._reference, mesh)

    def _shard(self, policy: Policy, mesh: DeviceMesh) -> None:
        is_narrow = self.dtype != torch.float32
        precision = (
            MixedPrecisionPolicy(param_dtype=self.dtype, reduce_dtype=torch.float32)
            if is_narrow
            else MixedPrecisionPolicy()
        )
        for module in [*policy.blocks(), policy]:
            sharded: Any = fully_shard(module, mesh=mesh, mp_policy=precision)
            # The loss already has the global denominator, so ranks add up instead of averaging; gloo can only sum.
            sharded.set_gradient_divide_factor(1.0)
            sharded.set_force_sum_reduction_for_comms(True)

    def forward_backward(self, batch: MicroBatch, loss_function: LossFunction, *, is_last: bool) -> None:
        """See TrainBackend."""
        logprobs, entropy = self.policy(batch)
        loss_function(logprobs, entropy).backward()

    def logprobs(self, batch: MicroBatch) -> torch.Tensor:
        """See TrainBackend."""
        return self._without_gradient(self.policy, batch)

    def reference_logprobs(self, batch: MicroBatch) -> torch.Tensor | None:
        """See TrainBackend."""
        return None if self._reference is None else self._without_gradient(self._reference, batch)

    def _without_gradient(self, policy: Policy, batch: MicroBatch) -> torch.Tensor:
        with torch.no_grad():
            logprobs, _ = policy(batch)
        # Nothing runs backward here, so the root would keep its gathered weights, stale after the next step.
        assert isinstance(policy, FSDPModule)
        policy.reshard()
        return logprobs

    def grad_norm(self) -> torch.Tensor:
        """See TrainBackend."""
        norms = torch.stack(torch._foreach_norm(self._local_gradients()))
        total = norms.double().square().sum()
        dist.all_reduce(total)
        return total.sqrt()

    def _local_gradients(self) -> list[torch.Tensor]:
        return [
            parameter.grad.to_local() if isinstance(parameter.grad, DTensor) else parameter.grad
            for parameter in self.policy.parameters()
            if parameter.grad is not None
        ]

    def step(self, *, grad_norm: torch.Tensor, learning_rate: float) -> None:
        """See TrainBackend."""
        scale = self._max_grad_norm / float(grad_norm) if grad_norm > self._max_grad_norm else 1.0
        if scale != 1.0:
            torch._foreach_mul_(self._local_gradients(), scale)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self.zero_grad()

    def zero_grad(self) -> None:
        """See TrainBackend."""
        self._optimizer.zero_grad(set_to_none=True)

    def full_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """See TrainBackend."""
        for name, parameter in self.policy.hf_model.named_parameters():
            tensor = parameter.detach()
            yield self._names[name], tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def save(self, folder: Path) -> None:
        """See TrainBackend."""
        try:
            save_sharded(self._state(), checkpoint_id=folder / WEIGHTS_FOLDER)
        except CheckpointException as error:
            raise CheckpointError(f"{folder} was not written ({_reasons(error)}); is the disk full?") from error

    def load(self, folder: Path) -> None:
        """See TrainBackend."""
        state = self._state()
        try:
            load_sharded(state, checkpoint_id=folder / WEIGHTS_FOLDER)
        except CheckpointException as error:
            raise CheckpointError(
                f"{folder} does not load into this model and optimiser ({_reasons(error)}); use the model and freeze "
                "patterns with which it was written, or start a new run folder"
            ) from error
        set_state_dict(
            self.policy, self._optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"]
        )

    def _state(self) -> dict[str, Any]:
        model, optimizer = get_state_dict(self.policy, self._optimizer)
        return {"model": model, "optimizer": optimizer}


def _reasons(error: CheckpointException) -> str:
    """Give the errors of the ranks; torch wraps them in a BaseException, which handlers of Exception would miss."""
    return "; ".join(f"rank {rank}: {cause}" for rank, (cause, _) in error.failures.items())


def make_optimizer(policy: torch.nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Give AdamW over the trainable parameters, decaying matrices only."""
    trainable = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= MIN_DECAYED_AXES], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim < MIN_DECAYED_AXES], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=config.betas,
        eps=config.eps,
        foreach=True,
    )
