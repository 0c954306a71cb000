"""RolloutConfig -> vLLM's own settings."""

from pathlib import Path
from typing import Any

from vllm.config import WeightTransferConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.usage.usage_lib import UsageContext

from rollout.config import RolloutConfig

# The channel's name in vLLM's registry. Its own "ipc" cannot be reached from another process, and its own "nccl" waits
# for a lost peer for ever: see weight_channel.
VLLM_BACKENDS = {"nccl": "watched_nccl", "gloo": "gloo", "ipc": "plain_ipc"}

# Our model loader, see weight_channel, which reads no weights.
BLANK = "blank"


def can_sleep(config: RolloutConfig) -> bool:
    """Return whether an engine must be able to free its GPU: with ipc it shares it with a learner rank."""
    return config.engine.device == "cuda" and config.weight_channel.backend == "ipc"


def engine_args(config: RolloutConfig, model_path: Path, *, loads_weights: bool = True) -> AsyncEngineArgs:
    """Return the arguments of AsyncLLM.

    Args:
        config: of the rollout.
        model_path: Hugging Face folder.
        loads_weights: False begins with small random weights instead of the model's.
    """
    engine = config.engine
    is_cpu = engine.device == "cpu"
    options: dict[str, Any] = {}
    if engine.kv_cache_bytes is not None:
        options["kv_cache_memory_bytes"] = engine.kv_cache_bytes
    if engine.block_size is not None:
        options["block_size"] = engine.block_size
    if is_cpu:
        # A CPU generator cannot be rewound, which vLLM does when a chunk of a prompt ends before its last token; whole
        # prompts only, so that per-completion seeds hold.
        options["enable_chunked_prefill"] = False
    # Left alone, AsyncLLM takes 2,048 batched tokens on any GPU: vLLM's table knows its server and its LLM class only.
    server_defaults, _ = AsyncEngineArgs.get_batch_defaults(engine.tensor_parallel_size)
    # One worker lives in the engine's process, one hop less. Several are its children: left to itself, vLLM would start
    # Ray actors for them when it finds itself in a placement group.
    options["distributed_executor_backend"] = "uni" if engine.tensor_parallel_size == 1 else "mp"
    return AsyncEngineArgs(
        model=str(model_path),
        load_format="auto" if loads_weights else BLANK,
        dtype=engine.dtype,
        max_model_len=engine.max_model_len,
        max_num_seqs=engine.max_num_seqs,
        max_num_batched_tokens=engine.batched_tokens(server_defaults[UsageContext.OPENAI_API_SERVER]),
        tensor_parallel_size=engine.tensor_parallel_size,
        gpu_memory_utilization=engine.gpu_memory_utilization,
        enforce_eager=engine.enforce_eager,
        enable_prefix_caching=True,
        enable_sleep_mode=can_sleep(config),
        scheduling_policy="priority",
        limit_mm_per_prompt={"image": engine.max_images_per_prompt, "video": 0},
        mm_processor_cache_gb=0,  # vLLM clears it at every pause, unsafely beside a request that looks its image up
        skip_mm_profiling=is_cpu,
        logprobs_mode="processed_logprobs",
        trust_remote_code=False,
        disable_log_stats=True,
        weight_transfer_config=WeightTransferConfig(backend=VLLM_BACKENDS[config.weight_channel.backend]),
        additional_config={"weight_channel_timeout_s": config.weight_channel.timeout_s},
        worker_extension_cls="rollout.weight_channel.WeightInspector",
        scheduler_cls="rollout.scheduler." + ("KeepVisionScheduler" if is_cpu else "KeepVisionAsyncScheduler"),
        **options,
    )
