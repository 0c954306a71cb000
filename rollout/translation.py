"""Conversion between our records and vLLM's: sampling parameters, and outputs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vllm import SamplingParams
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine import EngineCoreRequest

from rollout.prompt import EnginePrompt, PromptBuilder
from rollout.records import EncodedPicture, EncodedPrompt, Generation, SamplingSpec


def sampling_params(spec: SamplingSpec, logit_bias: Mapping[int, float]) -> SamplingParams:
    """G completions, each with a seed of its own, and the logprobs of their tokens."""
    return SamplingParams(
        n=spec.group_size,
        temperature=spec.temperature,
        top_p=spec.top_p,
        max_tokens=spec.max_completion_tokens,
        seed=None if spec.greedy else spec.seed,
        logprobs=0,
        flat_logprobs=True,
        logit_bias=dict(logit_bias),
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def scoring_params() -> SamplingParams:
    """Raw logprobs of the given tokens; vLLM insists on sampling one more.

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
    """Return whether some completion ended because the engine was told to stop."""
    return any(completion.finish_reason == "abort" for completion in output.outputs)


def has_failed(output: RequestOutput) -> bool:
    """Return whether the engine gave up the request."""
    return not output.finished or any(completion.finish_reason == "error" for completion in output.outputs)


def num_tokens(output: RequestOutput) -> int:
    """Tokens of all completions together."""
    return sum(len(completion.token_ids) for completion in output.outputs)


def prompt_ids(output: RequestOutput) -> NDArray[np.int32]:
    """Token ids [P] of the prompt, image tokens expanded."""
    return np.asarray(output.prompt_token_ids, dtype=np.int32)


def generations(output: RequestOutput, *, cached_since: int | None = None) -> tuple[Generation, ...]:
    """The completions, in order of their seeds.

    Args:
        output: Of a request that has ended.
        cached_since: The oldest weights that may have computed its prompt, where caches outlive an update; a completion
            then is at least as old.
    """
    return tuple(_generation(completion, cached_since) for completion in output.outputs)


def encoded(request: EngineCoreRequest, prompt: EnginePrompt, builder: PromptBuilder) -> EncodedPrompt:
    """Return what vLLM's processor has made of a prompt, as it would go to the engine's core."""
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
    """Logprobs [T] of the last T tokens of a scored prompt, which are `token_ids`."""
    tail = list(output.prompt_logprobs or [])[-len(token_ids) :]
    values = [position[int(token)].logprob for position, token in zip(tail, token_ids, strict=True)]
    return np.asarray(values, dtype=np.float32)


def _generation(completion: CompletionOutput, cached_since: int | None) -> Generation:
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
    )


def _version(label: str) -> int:
    return 0 if label == "default" else int(label)  # vLLM calls the weights of a fresh engine "default"
