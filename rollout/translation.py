"""Our settings and records as vLLM's: engine arguments, the scheduler they name, sampling parameters, and outputs."""

import atexit
import gc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vllm import SamplingParams
from vllm.config import WeightTransferConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.lora.request import LoRARequest
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind
from vllm.transformers_utils.config import get_config
from vllm.usage.usage_lib import UsageContext
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreRequest

from rollout.config import AdapterConfig, RolloutConfig
from rollout.core_watch import die_with_parent
from rollout.errors import RolloutError
from rollout.prompt import EnginePrompt, PromptBuilder
from rollout.records import EncodedPicture, EncodedPrompt, Generation, SamplingSpec

# The channel's name in vLLM's registry. Its own "ipc" cannot be reached from another process, and its own "nccl" waits
# for a lost peer forever: see weight_channel.
VLLM_BACKENDS = {"nccl": "watched_nccl", "gloo": "gloo", "ipc": "plain_ipc"}

# The adapter that requests name, in an engine that adapts its model. It never comes from a path; vLLM wants one.
ADAPTER = LoRARequest(lora_name="policy", lora_int_id=1, lora_path="sent by the learner")

# Our model loader, see weight_channel, which reads no weights.
BLANK = "blank"


def can_sleep(config: RolloutConfig) -> bool:
    """Return whether an engine must be able to free its GPU: with ipc it shares it with a learner rank."""
    return config.engine.device == "cuda" and config.weight_channel.backend == "ipc"


def has_linear_attention(model_path: Path) -> bool:
    """Return whether some layers of a model keep one state for each sequence, and not keys and values of its tokens."""
    text_config = get_config(str(model_path), trust_remote_code=False).get_text_config().to_dict()
    return "linear_attention" in (text_config.get("layer_types") or ())


def engine_args(
    config: RolloutConfig, model_path: Path, *, loads_weights: bool = True, adapter: AdapterConfig | None = None
) -> AsyncEngineArgs:
    """Return the arguments of AsyncLLM.

    Args:
        config: of the rollout.
        model_path: a checkpoint folder.
        loads_weights: False begins with small random weights instead of the model's.
        adapter: that the engine adds to its model; None for an engine that takes whole weights.
    """
    engine = config.engine
    is_cpu = engine.device == "cpu"
    is_linear = has_linear_attention(model_path)
    if is_cpu and is_linear and engine.dtype != "bfloat16":
        raise RolloutError(
            f"rollout.engine.dtype is {engine.dtype}, and vLLM computes linear attention, which the "
            f"model at {model_path} has, on CPU in bfloat16 only; use rollout=vllm_cpu_bfloat16"
        )
    options: dict[str, Any] = {}
    if engine.kv_cache_bytes is not None:
        options["kv_cache_memory_bytes"] = engine.kv_cache_bytes
    if engine.block_size is not None:
        options["block_size"] = engine.block_size
    if is_cpu:
        # A CPU generator cannot be rewound, which vLLM does when a chunk of a prompt ends before its last token; whole
        # prompts only, so that per-completion seeds hold.
        options["enable_chunked_prefill"] = False
    if adapter is not None:
        options["enable_lora"] = True
        options["max_lora_rank"] = adapter.buffer_rank
        options["lora_target_modules"] = list(adapter.target_modules)
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
        enable_prefix_caching=not (is_cpu and is_linear),  # vLLM caches linear states between chunks of a prompt only
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
        scheduler_cls="rollout.translation." + ("KeepVisionScheduler" if is_cpu else "KeepVisionAsyncScheduler"),
        **options,
    )


class _KeepsVisionInputs:
    """Mixin over a scheduler that leaves the vision inputs in every request.

    vLLM 0.32 does not send a request's image data to the worker when the prompt is found in the prefix cache: all
    completions of a group but the first. A pause for new weights clears that cache and starts the running requests
    over; the worker then has to encode an image that it was never given, and the whole engine dies. The scheduler still
    has the data, so it is put back here. Cost: image features are sent once per completion instead of once per group,
    from the engine's core to its workers on the same machine.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Build the scheduler; vLLM does so once, in the engine's core process, which is to go when the engine goes."""
        die_with_parent()
        atexit.register(gc.freeze)  # a process that ends need not look for cycles, which takes it seconds
        super().__init__(*arguments, **options)

    def schedule(self, *arguments: Any, **options: Any) -> SchedulerOutput:
        output: SchedulerOutput = super().schedule(*arguments, **options)  # type: ignore[misc]
        for request in output.scheduled_new_reqs:
            request.mm_features = self.requests[request.req_id].mm_features  # type: ignore[attr-defined]
        return output


class KeepVisionScheduler(_KeepsVisionInputs, Scheduler):
    """For engines that schedule step by step (CPU)."""


class KeepVisionAsyncScheduler(_KeepsVisionInputs, AsyncScheduler):
    """For engines that schedule the next step while the device works on this one (GPU)."""


def sampling_params(spec: SamplingSpec, logit_bias: Mapping[int, float]) -> SamplingParams:
    """Return vLLM's parameters for G completions, each with its own seed, and the logprobs of their tokens."""
    return SamplingParams(
        n=spec.group_size,
        temperature=spec.temperature,
        top_p=spec.top_p,
        top_k=spec.top_k,
        min_p=spec.min_p,
        stop=list(spec.stop) or None,
        max_tokens=spec.max_completion_tokens,
        seed=None if spec.greedy else spec.seed,
        logprobs=0,
        flat_logprobs=True,
        logit_bias=dict(logit_bias),
        detokenize=bool(spec.stop),  # a stop is looked for in the text, special tokens included, as rewards see it
        skip_special_tokens=not spec.stop,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def scoring_params() -> SamplingParams:
    """Return vLLM's parameters for raw logprobs of given tokens; vLLM must sample one more.

    Neither temperature nor logit_bias affects them: vLLM takes prompt logprobs of the logits as they are.
    """
    return SamplingParams(
        max_tokens=1,
        temperature=0.0,
        prompt_logprobs=0,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def was_aborted(output: RequestOutput) -> bool:
    """Return whether some completion ended because the engine was paused."""
    return any(completion.finish_reason == "abort" for completion in output.outputs)


def has_failed(output: RequestOutput) -> bool:
    """Return whether the engine gave up the request."""
    return not output.finished or any(completion.finish_reason == "error" for completion in output.outputs)


def generations(
    output: RequestOutput, *, cached_since: int | None = None, keeps_stop: bool = False
) -> tuple[Generation, ...]:
    """Return the completions, in the order of their seeds.

    Args:
        output: of a request that has ended.
        cached_since: oldest weight version that may have computed its prompt, where caches outlive an update;
            completions then count as at least that old.
        keeps_stop: whether the text that ended a completion is a part of it.
    """
    return tuple(_generation(completion, cached_since, keeps_stop) for completion in output.outputs)


def encoded(request: EngineCoreRequest, prompt: EnginePrompt, builder: PromptBuilder) -> EncodedPrompt:
    """Return a prompt as vLLM's processor would send it to the engine's core."""
    return EncodedPrompt(
        token_ids=tuple(request.prompt_token_ids or ()),
        pictures=tuple(_picture(feature.data, builder) for feature in request.mm_features or ()),
        input_sizes=prompt.input_sizes,
        template=prompt.template,
    )


def _picture(data: Any, builder: PromptBuilder) -> EncodedPicture:
    values = {name: element.data for name, element in data.items()}
    [pixels] = [tensor for name, tensor in values.items() if name.startswith("pixel_values")]
    grid = values.get("image_grid_thw")
    return builder.encoded_picture(pixels, [len(pixels)] if grid is None else grid.tolist())


def scores(output: RequestOutput, token_ids: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return the logprobs [T] of the last T tokens of a scored prompt, which are `token_ids`."""
    tail = list(output.prompt_logprobs or [])[-len(token_ids) :]
    values = [position[int(token)].logprob for position, token in zip(tail, token_ids, strict=True)]
    return np.asarray(values, dtype=np.float32)


def _generation(completion: CompletionOutput, cached_since: int | None, keeps_stop: bool) -> Generation:
    versions = [_version(span.version) for span in completion.weight_versions or []] or [0]
    start = versions[0] if cached_since is None else min(versions[0], cached_since)
    flat: Any = completion.logprobs
    logprobs = [flat.logprobs[start] for start in flat.start_indices]
    return Generation(
        token_ids=np.asarray(completion.token_ids, dtype=np.int32),
        logprobs=np.asarray(logprobs, dtype=np.float32),
        finish_reason=completion.finish_reason,
        weight_version_start=start,
        weight_version_end=versions[-1],
        stop=completion.stop_reason if isinstance(completion.stop_reason, str) and not keeps_stop else "",
    )


def _version(label: str) -> int:
    return 0 if label == "default" else int(label)  # vLLM calls the weights of a fresh engine "default"
