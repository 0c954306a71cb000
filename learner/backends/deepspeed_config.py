"""LearnerConfig -> DeepSpeed's own configuration."""

from typing import Any

from learner.config import LearnerConfig

# Elements of one reduction or gather: 64 M float32 are 268 MB. DeepSpeed's own default would hold 2 GB a rank.
BUCKET_ELEMENTS = 2**26
# Stage 3 leaves smaller tensors (norms, biases) whole on every rank; so many times the hidden size, as transformers
# recommends for its own integration.
WHOLE_BELOW_HIDDEN_SIZES = 10


def engine_config(config: LearnerConfig, *, hidden_size: int) -> dict[str, Any]:
    """Give what deepspeed.initialize wants.

    Clipping stays with the backend, because the trainer checks the norm before a weight may move. Optimisers other than
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
        # The trainer counts micro-batches itself and says which is the last.
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
