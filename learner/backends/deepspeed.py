"""The policy sharded over ranks with DeepSpeed ZeRO 1, 2 or 3.

Only this module and `deepspeed_checkpoint` import deepspeed; the module is imported when the backend is chosen, not
before.
"""

import contextlib
import io
import logging
import os
import warnings
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from learner.backends.base import WEIGHTS_FOLDER, LossFunction, TrainBackend, make_optimizer, parameter_groups
from learner.backends.deepspeed_checkpoint import Layout, load_engine, save_engine
from learner.backends.offload import reachable_tensors
from learner.config import LearnerConfig
from learner.errors import LearnerError
from learner.policy.model import Policy
from learner.policy.packing import MicroBatch
from learner.policy.source import FolderSource, Weights
from learner.policy.trainable import adapters_of, initial_rows, is_adapter, merged

logger = logging.getLogger(__name__)

SHARDS_STAGE = 3


class DeepSpeedBackend(TrainBackend):
    """Policy, optional reference and optimiser of one rank."""

    def __init__(self, config: LearnerConfig, device: torch.device, source: FolderSource) -> None:
        """Build without weights, then read and shard one tensor after the other; the process group must exist.

        Raises:
            LearnerError: deepspeed is not installed, or the model folder, a freeze pattern or an adapter's target does
                not fit.
        """
        super().__init__(config, device)
        self._stage = config.deepspeed.zero_stage
        self._is_offloaded = config.deepspeed.offload_optimizer
        self._deepspeed = _import_deepspeed(device)
        weights = self._build_policy(source)
        self._engine_config = engine_config(
            config, hidden_size=self.policy.hf_model.config.get_text_config().hidden_size
        )
        # Before `_fill`, which leaves parameters without the shape by which decay is decided.
        groups = parameter_groups(self.policy, config.optimizer)
        self._fill(self.policy, weights)
        self._module = self._engine = self._start_engine(self.policy, make_optimizer(groups, config.optimizer))
        self._optimizer = self._engine.optimizer
        self._reference = self._build_reference(source)

    def _hold_reference(self, reference: Policy, weights: Weights) -> torch.nn.Module:
        """See TrainBackend; sharded by an engine of its own in stage 3, whole on every rank otherwise."""
        self._fill(reference, weights)
        if self._stage == SHARDS_STAGE:
            engine: torch.nn.Module = self._start_engine(reference, None)
            return engine
        return reference.to(self.device)

    def _start_engine(self, policy: Policy, optimizer: torch.optim.Optimizer | None) -> Any:
        if self._stage == SHARDS_STAGE:
            for module in policy.modules():
                for name, buffer in module.named_buffers(recurse=False):
                    module._buffers[name] = buffer.to(self.device)
            # `Policy.forward` reads this weight itself, so its owner's hooks would gather it too late.
            self._deepspeed.zero.register_external_parameter(policy, policy.hf_model.lm_head.weight)
        # One of its optimisers prints memory figures whatever the log level; stdout belongs to the run.
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            engine, *_ = self._deepspeed.initialize(
                model=policy, optimizer=optimizer, config=self._engine_config, dist_init_required=False
            )
        logger.debug("deepspeed.initialize printed: %s", printed.getvalue())
        return engine

    def _fill(self, policy: Policy, weights: Weights) -> None:
        """Fill the parameters of a policy that no engine has yet; stage 3 keeps this rank's part of each only.

        A collective in stage 3: all ranks fill in one order, and the values of rank 0 count.
        """
        for name, parameter in list(policy.hf_model.named_parameters()):
            tensor = initial_rows(name, parameter.shape, weights)
            # Swapped and not replaced: a tied weight has two owners.
            real = torch.nn.Parameter(torch.empty_like(tensor), requires_grad=parameter.requires_grad)
            torch.utils.swap_tensors(parameter, real)
            # The float32 values that the optimiser keeps begin from these, so a bfloat16 policy begins from rounded
            # ones; checkpoints are stored in bfloat16 as a rule, and then nothing is rounded.
            parameter.data = tensor.to(device=self.device, dtype=self.dtype)
            if self._stage == SHARDS_STAGE:
                # The constructor partitions what it is given; one parameter at a time, so that one whole tensor is
                # alive.
                self._deepspeed.zero.Init(
                    module=torch.nn.ParameterList([parameter]),
                    config_dict_or_path=self._engine_config,
                    dtype=self.dtype,
                )

    def forward_backward(self, batch: MicroBatch, loss_function: LossFunction, *, is_last: bool) -> None:
        self._engine.set_gradient_accumulation_boundary(is_last)
        logprobs, entropy = self._engine(batch)
        # The loss already has the global denominator, so ranks must add up; DeepSpeed divides by their number.
        self._engine.backward(loss_function(logprobs, entropy) * dist.get_world_size())

    def _local_gradients(self) -> list[torch.Tensor]:
        optimizer = self._optimizer
        if self._is_offloaded:
            if self.device.type == "cuda":
                # Gradients are still on their way to host memory, where the norm is computed.
                torch.cuda.synchronize(self.device)
            flat = (
                optimizer.fp32_partitioned_groups_flat
                if self._stage == SHARDS_STAGE
                else optimizer.single_partition_of_fp32_groups
            )
            return [partition.grad for partition in flat]
        if self._is_stage_1_narrow():
            return list(optimizer.fp32_groups_gradient_flat_partition)
        return [gradient for group in optimizer.averaged_gradients.values() for gradient in group]

    def _is_stage_1_narrow(self) -> bool:
        """Return whether DeepSpeed uses its BF16_Optimizer, which keeps gradients elsewhere than ZeRO optimisers."""
        return self._stage == 1 and self.dtype == torch.bfloat16 and not self._is_offloaded

    def _update(self) -> None:
        self._engine.step()
        assert self._engine.was_step_applied(), "the norm was finite, so DeepSpeed had no reason to skip the step"

    def zero_grad(self) -> None:
        """See TrainBackend.

        DeepSpeed's own `zero_grad` keeps the partitioned sums; this does what its optimisers do after an overflow.
        """
        optimizer = self._optimizer
        optimizer.zero_grad()
        if self._is_stage_1_narrow():
            optimizer.clear_hp_grads()
            return
        if self._is_offloaded:
            optimizer.reset_cpu_buffers()
        if self._stage == SHARDS_STAGE:
            # Its `zero_grad` has reset the count of micro-batches; the next one overwrites the sums.
            optimizer.averaged_gradients = {}
            return
        optimizer.micro_step_id = -1
        optimizer._release_preflattened_grad_buffers()
        for sums in (optimizer.averaged_gradients, optimizer.all_grad_tensors):
            # In place: parameters hold on to these dictionaries.
            sums.update(dict.fromkeys(sums))

    def full_tensors(
        self, names: Collection[str] | None = None, *, merges: bool = True
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """See TrainBackend.

        Trained tensors are the optimiser's float32 values, so that a bfloat16 policy is exported without loss; frozen
        ones are what forward and backward use.
        """
        named = dict(self.policy.hf_model.named_parameters())
        for name in named:
            if self._is_wanted(name, names):
                parts = (name, *adapters_of(name, named)) if merges else (name,)
                tensor, *factors = (self._full_tensor(named[part]) for part in parts)
                yield self._as_stored(name, merged(tensor, factors, self._config.lora))

    def full_factors(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, parameter in self.policy.hf_model.named_parameters():
            if is_adapter(name):
                yield name, self._full_tensor(parameter)

    def full_shapes(self) -> dict[str, tuple[int, ...]]:
        named = self.policy.hf_model.named_parameters()
        return dict(self._stored_shape(name, self._shape(own)) for name, own in named if not is_adapter(name))

    def _factor_shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: self._shape(own) for name, own in self.policy.hf_model.named_parameters() if is_adapter(name)}

    def _shape(self, parameter: Any) -> tuple[int, ...]:
        # Stage 3 leaves an empty tensor in a parameter's place, and keeps its shape beside it.
        return tuple(parameter.ds_shape if self._stage == SHARDS_STAGE else parameter.shape)

    def _full_tensor(self, parameter: torch.nn.Parameter) -> torch.Tensor:
        if parameter.requires_grad:
            trained: torch.Tensor = self._deepspeed.utils.safe_get_full_fp32_param(parameter).detach()
            return trained
        with self._deepspeed.zero.GatheredParameters(parameter, enabled=self._stage == SHARDS_STAGE):
            return parameter.detach().float().clone()

    def save(self, folder: Path) -> None:
        save_engine(self._engine, folder / WEIGHTS_FOLDER, self._layout())

    def load(self, folder: Path, *, is_writer: bool) -> None:
        """See TrainBackend. Before the first step only, because DeepSpeed reads into fresh engines."""
        load_engine(self._engine, folder / WEIGHTS_FOLDER, self._layout(), is_writer=is_writer)

    def offload(self) -> int:
        """See TrainBackend.

        Not by DeepSpeed's own `offload_states`: at stage 3 that moves the optimiser's state only of its FusedAdam, and
        its BF16_Optimizer has none.
        """
        held = [self.policy, self._engine] if self._reference is None else [self.policy, self._engine, self._reference]
        modules = [tensor for root in held for tensor in (*root.parameters(), *root.buffers())]
        optimizers = [self._optimizer, getattr(self._reference, "optimizer", None)]
        return self._offloader.offload(reachable_tensors(*modules, *optimizers, packages=("deepspeed",)))

    def _layout(self) -> Layout:
        return Layout(
            zero_stage=self._stage,
            dtype=str(self.dtype).removeprefix("torch."),
            trained=tuple(
                name for name, parameter in self.policy.hf_model.named_parameters() if parameter.requires_grad
            ),
            num_ranks=dist.get_world_size(),
        )


def _import_deepspeed(device: torch.device) -> Any:
    """Import deepspeed so that it joins this process's group and prints nothing.

    By itself it expects a launcher's environment, probes for a compiler, builds a kernel for CPU collectives in the
    home folder, and logs to stdout, which belongs to the run's own output.

    Raises:
        LearnerError: it is not installed.
    """
    local_rank = device.index if device.index is not None else dist.get_rank()
    # Without LOCAL_SIZE the CPU accelerator asks a subprocess for the machine's memory nodes.
    os.environ.update(DS_ACCELERATOR=device.type, LOCAL_RANK=str(local_rank), LOCAL_SIZE=str(dist.get_world_size()))
    try:
        import deepspeed
    except ModuleNotFoundError as error:
        raise LearnerError(
            f"learner.backend is deepspeed, which is not installed ({error}); pip install '.[deepspeed]' in the "
            "checkout, or set learner.backend=fsdp"
        ) from error
    their_logger = logging.getLogger("DeepSpeed")
    their_logger.handlers.clear()
    their_logger.propagate = True
    their_logger.setLevel(logging.WARNING)
    # It calls names of collectives that torch has just renamed.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    if device.type == "cpu":
        vars(deepspeed.ops)["__compatible_ops__"] = defaultdict(bool)
    deepspeed.init_distributed(dist_backend=dist.get_backend(), verbose=False)
    return deepspeed


# Elements of one reduction or gather: 64 M float32 are 268 MB. DeepSpeed's own default would hold 2 GB a rank.
BUCKET_ELEMENTS = 2**26
# Stage 3 keeps tensors with fewer elements than this many hidden sizes (norms, biases) whole on every rank; the value
# is that of transformers' own integration.
WHOLE_BELOW_HIDDEN_SIZES = 10


def engine_config(config: LearnerConfig, *, hidden_size: int) -> dict[str, Any]:
    """Return the configuration for deepspeed.initialize.

    Clipping is done by the backend, because the trainer checks the norm before a weight may move. Optimisers other than
    DeepSpeed's own are allowed with offloading, so that no compiler is needed on the machine.

    Args:
        config: of the learner.
        hidden_size: of the language model.
    """
    is_narrow = config.dtype == "bfloat16"
    settings = config.deepspeed
    zero: dict[str, Any] = {
        "stage": settings.zero_stage,
        "reduce_bucket_size": BUCKET_ELEMENTS,
        "allgather_bucket_size": BUCKET_ELEMENTS,
    }
    host = {"device": "cpu", "pin_memory": config.device == "cuda"}
    if settings.offload_optimizer:
        zero["offload_optimizer"] = host
    if settings.zero_stage == 3:
        zero["stage3_param_persistence_threshold"] = WHOLE_BELOW_HIDDEN_SIZES * hidden_size
        # It would replace torch's linear for the whole process, tests and other models included.
        zero["memory_efficient_linear"] = False
        if settings.offload_params:
            zero["offload_param"] = host
    return {
        # The trainer counts micro-batches itself and marks the last.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 0.0,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": is_narrow},
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        # One tag is fixed; comparing it over ranks would be one more collective.
        "checkpoint": {"tag_validation": "Ignore"},
    }
