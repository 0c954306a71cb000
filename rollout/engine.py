"""GenerationEngine: one vLLM engine that samples groups and takes new weights between tokens."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vllm import SamplingParams
from vllm.distributed.weight_transfer.base import WeightTransferInitRequest, WeightTransferUpdateRequest
from vllm.exceptions import VLLMValidationError
from vllm.inputs import TokensPrompt
from vllm.lora.request import LoRARequest
from vllm.outputs import RequestOutput
from vllm.v1.engine import PauseMode
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.engine.output_processor import RequestOutputCollector

from conf.gpu_driver import driver_fault
from rollout.admission import Admission, BatchAdmission
from rollout.config import AdapterConfig, RolloutConfig
from rollout.core_watch import CoreWatch
from rollout.errors import RolloutError
from rollout.fingerprint import join_shards
from rollout.placeholders import banned_token_ids
from rollout.prompt import EnginePrompt, PromptBuilder
from rollout.records import Activity, EncodedPrompt, Fingerprint, RolloutGroup, Sample, SamplingSpec
from rollout.translation import (
    ADAPTER,
    can_sleep,
    encoded,
    engine_args,
    generations,
    has_failed,
    sampling_params,
    scores,
    scoring_params,
    was_aborted,
)

# vLLM adds this to a banned token's logit before it divides by the temperature; the probability is exactly zero.
BAN_LOGIT_BIAS = -1e9

# The learner waits for a probe; it goes before the groups that wait in the engine.
PROBE_PRIORITY = -1

# vLLM's sleep level at which weights are not copied to host memory: new ones come anyway.
DISCARD = 2


class GenerationEngine:
    """Samples groups of completions with one vLLM engine.

    Consumes Samples, produces RolloutGroups. Weight updates follow vLLM's own protocol: `pause`, the four
    weight-transfer calls that the learner's sender drives, `resume`. Every call raises EngineDiedError once the
    engine's core process is gone.
    """

    def __init__(
        self,
        config: RolloutConfig,
        model_path: Path,
        *,
        loads_weights: bool = True,
        adapter: AdapterConfig | None = None,
    ) -> None:
        """Build the engine from a checkpoint folder; takes seconds to minutes.

        The thread that calls this must live as long as the engine, see `rollout.core_watch.die_with_parent`.

        Args:
            config: of the rollout.
            model_path: the checkpoint folder.
            loads_weights: False reads no weights: the engine can be used once the learner has sent its own.
            adapter: that the engine adds to the weights of the folder; the learner then sends its factors alone.
                Completions that were asked for before the first ones came are the model's own.
        """
        if config.engine.device == "cuda" and (fault := driver_fault()) is not None:
            raise RolloutError(f"rollout.engine.device is cuda, but {fault}")
        self._prompts = PromptBuilder(
            model_path, spec=config.prompt_spec, max_images=config.engine.max_images_per_prompt
        )
        self._logit_bias = dict.fromkeys(banned_token_ids(model_path), BAN_LOGIT_BIAS)
        self._in_flight = config.weight_channel.in_flight
        self._version = 0
        self._num_updates = 0
        self._can_sleep = can_sleep(config)
        self._takes_adapter = adapter is not None
        self._adapter: LoRARequest | None = None
        self._engine = AsyncLLM.from_engine_args(
            engine_args(config, model_path, loads_weights=loads_weights, adapter=adapter)
        )
        self._watch = CoreWatch(self._engine.engine_core.resources.engine_manager.processes, dead_error=EngineDeadError)
        self._admission = BatchAdmission(self._held)
        self._switching = asyncio.Lock()  # of the scheduler: a pause for weights and an admission exclude each other
        self._resumed = asyncio.Event()
        self._resumed.set()
        self._num_requests = 0
        self._is_updating = False

    async def generate_group(
        self, group_id: str, sample: Sample, spec: SamplingSpec, admission: Admission | None = None
    ) -> RolloutGroup:
        """Sample G completions of one prompt.

        The prompt is prefilled once: the G requests share its cache blocks and its vision features.

        With an admission the group has a slot in a batch that the engine takes as one, with empty caches; the
        completions are then a function of the batch alone, bit for bit. Without one it is sampled at once.

        Raises:
            RolloutError: the sample cannot be a prompt (too long, broken image, placeholder in the text).
            EngineDiedError: the engine is gone.
        """
        started = time.perf_counter()

        async def ask() -> tuple[EnginePrompt, RequestOutputCollector, int]:
            # All that can fail is in here: a group of a batch that failed earlier would never fill its slot.
            params = sampling_params(spec, self._logit_bias)
            prompt, version = self._prompts.build(sample), self._version
            return prompt, await self._submit(prompt, prompt.token_ids, params, sample.sample_id), version

        prompt, requests, version = await (self._admission.enter(admission, ask) if admission else ask())
        num_aborted_tokens = 0
        while was_aborted(output := await self._collect(requests, sample.sample_id)):
            num_aborted_tokens += sum(len(completion.token_ids) for completion in output.outputs)
            await self._watch.during(self._resumed.wait())
            prompt, requests, version = await ask()
        return RolloutGroup(
            group_id=group_id,
            sample=sample,
            prompt_token_ids=np.asarray(output.prompt_token_ids, dtype=np.int32),
            generations=generations(
                output, cached_since=version if self._keeps_cache else None, keeps_stop=spec.keeps_stop
            ),
            image_input_sizes=prompt.input_sizes,
            seconds=time.perf_counter() - started,
            num_aborted_tokens=num_aborted_tokens,
        )

    def give_up_slot(self, admission: Admission) -> None:
        """Start a batch without one of its groups, which will not arrive."""
        self._admission.give_up(admission)

    async def score_completion(self, sample: Sample, completion_token_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the raw log-probabilities [T] that the current weights assign to a completion of a sample.

        Raw: vLLM scores given tokens at temperature 1 and with no token banned, whatever completions are sampled with.
        """
        prompt = self._prompts.build(sample)
        token_ids = [*prompt.token_ids, *map(int, completion_token_ids)]
        requests = await self._submit(prompt, token_ids, scoring_params(), sample.sample_id, priority=PROBE_PRIORITY)
        return scores(await self._collect(requests, sample.sample_id), completion_token_ids)

    async def encode(self, sample: Sample) -> EncodedPrompt:
        """Return a prompt as the engine's core would get it; nothing is computed.

        Raises:
            RolloutError: as `generate_group`.
        """
        prompt = self._prompts.build(sample)
        request = await self._engine.input_processor.process_inputs_async(
            f"encode-{sample.sample_id}",
            self._tokens_prompt(prompt, prompt.token_ids),
            scoring_params(),
            supported_tasks=await self._engine.get_supported_tasks(),
        )
        return encoded(request, prompt, self._prompts)

    async def pause(self) -> None:
        """Stop for new weights; `rollout.weight_channel.in_flight` decides about running completions."""
        async with self._switching:
            self._resumed.clear()
            await self._stop(clear_cache=not self._keeps_cache)

    async def resume(self) -> None:
        async with self._switching:
            await self._watch.during(self._engine.resume_generation())
            self._resumed.set()

    async def sleep(self) -> Activity:
        """Stop, and free the GPU for the learner: weights and cache are discarded, host memory keeps nothing of them.

        Ends with `wake_weights`, a whole weight update, `wake_cache` and `resume`, in this order. On CPU the engine
        only stops and keeps its memory: vLLM has no sleep there.
        """
        async with self._switching:
            self._resumed.clear()
            if self._can_sleep:
                await self._watch.during(self._engine.sleep(level=DISCARD, mode=self._pause_mode))
            else:
                await self._stop(clear_cache=True)
            return self._activity()

    async def wake_weights(self) -> None:
        """Allocate the memory of the weights, whose values the learner must then send; calling twice is harmless."""
        if self._can_sleep:
            await self._watch.during(self._engine.wake_up(tags=["weights"]))

    async def wake_cache(self) -> Activity:
        """Clear all that was computed with other weights, and allocate the memory of the cache again."""
        await self.reset_caches()
        if self._can_sleep:
            await self._watch.during(self._engine.wake_up(tags=["kv_cache"]))
        return self._activity()

    async def reset_caches(self) -> None:
        """Clear cached prompts and image features; the engine must be paused.

        vLLM keeps features in two caches, in the scheduler and in the worker, which are cleared together while nothing
        is in flight between them: an image that only one of them knows kills the engine.
        """
        await self._watch.during(self._engine.reset_prefix_cache(reset_running_requests=True))
        await self._watch.during(self._engine.reset_encoder_cache())

    @property
    def _keeps_cache(self) -> bool:
        return self._in_flight == "keep_cache"

    @property
    def _pause_mode(self) -> PauseMode:
        """The mode's name in vLLM."""
        return "keep" if self._in_flight == "keep_cache" else self._in_flight

    async def _stop(self, *, clear_cache: bool) -> None:
        await self._watch.during(self._engine.pause_generation(mode=self._pause_mode, clear_cache=clear_cache))

    def _activity(self) -> Activity:
        return Activity(num_requests=self._num_requests, num_unfinished=self._engine.get_num_unfinished_requests())

    @asynccontextmanager
    async def _held(self) -> AsyncIterator[None]:
        """Within the block the engine accepts requests but starts none; its caches are empty."""
        async with self._switching:
            await self._watch.during(self._engine.pause_generation(mode="keep", clear_cache=True))
            try:
                yield
            finally:
                if self._resumed.is_set():  # else a pause for weights holds it as well, and ends it
                    await self._watch.during(self._engine.resume_generation())

    async def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Join the learner at the address in `init_info`."""
        await self._watch.during(self._engine.init_weight_transfer_engine(WeightTransferInitRequest(init_info)))

    async def start_weight_update(self) -> None:
        """Open an update; one that broke is closed first."""
        if self._is_updating:
            await self._watch.during(self._engine.collective_rpc("forget_weight_update"))
        self._is_updating = True
        await self._watch.during(self._engine.start_weight_update())
        self._num_updates += 1

    async def update_weights(self, update_info: dict[str, Any]) -> None:
        await self._watch.during(self._engine.update_weights(WeightTransferUpdateRequest(update_info)))

    async def finish_weight_update(self, weight_version: str) -> None:
        """Make the received weights live and stamp them; the engine must be paused if it adds an adapter."""
        await self._watch.during(self._engine.finish_weight_update(weight_version))
        if self._takes_adapter:
            await self._ask_workers("activate_adapter")
            self._adapter = ADAPTER
        self._is_updating = False
        self._version = int(weight_version)

    async def weight_layout(self, names: list[str]) -> dict[str, str]:
        """Return the checkpoint's tensor names that this engine can read back, with its own name of each."""
        return dict((await self._ask_workers("weight_layout", names=names))[0])

    async def weight_names(self) -> list[str]:
        """Return the engine's own names of all its tensors."""
        return list((await self._ask_workers("weight_names"))[0])

    async def weight_fingerprints(self, names: list[str]) -> dict[str, Fingerprint]:
        """Return the fingerprints of the engine's own tensors `names`, whole, whatever each worker holds of them."""
        workers = await self._ask_workers("weight_fingerprints", names=names)
        return {name: join_shards(tuple(share) for worker in workers for share in worker[name]) for name in names}

    async def beat(self) -> float:
        """Return for how many seconds the engine's core has been in its current step; 0 if it answers.

        Does not return if the core is stopped or hangs: the caller sets a timeout.

        Raises:
            EngineDiedError: it is gone.
        """
        return await self._watch.busy_s(self._engine.is_sleeping)

    def close(self) -> None:
        self._engine.shutdown()

    async def _ask_workers(self, method: str, **arguments: Any) -> list[Any]:
        answers: list[Any] = await self._watch.during(self._engine.collective_rpc(method, kwargs=arguments))
        return answers

    async def _submit(
        self, prompt: EnginePrompt, token_ids: list[int], params: SamplingParams, sample_id: str, *, priority: int = 0
    ) -> RequestOutputCollector:
        """Return when the engine has the request; of those that wait in it, the lowest priority starts first."""
        self._num_requests += 1
        engine_prompt = self._tokens_prompt(prompt, token_ids)
        request_id = f"{self._num_requests}-{sample_id}"
        try:
            return await self._watch.during(
                self._engine.add_request(
                    request_id, engine_prompt, params, lora_request=self._adapter, priority=priority
                )
            )
        except (VLLMValidationError, ValueError) as error:  # the second is what the model's processor raises
            raise RolloutError(f"sample {sample_id}: the engine refuses the prompt: {error}") from error

    def _tokens_prompt(self, prompt: EnginePrompt, token_ids: list[int]) -> TokensPrompt:
        """Return a prompt as vLLM takes it.

        The cache keys below contain the number of weight updates, so that entries of older weights are not reused.
        """
        found = TokensPrompt(prompt_token_ids=token_ids, cache_salt=str(self._num_updates))
        if prompt.images:
            found["multi_modal_data"] = {"image": prompt.images}
            names = [f"{self._num_updates}-{digest}" for digest in prompt.image_digests]
            found["multi_modal_uuids"] = {"image": names}
        return found

    async def _collect(self, requests: RequestOutputCollector, sample_id: str) -> RequestOutput:
        """Return the output when all completions are done; a caller that is cancelled aborts them."""
        try:
            output: RequestOutput = await self._watch.during(requests.get())
        except asyncio.CancelledError:
            await self._engine.abort(requests.request_id, internal=True)
            raise
        if has_failed(output):
            raise RolloutError(f"sample {sample_id}: the engine gave the request up; its log says why")
        return output
