"""Estimated seconds per step: operations and bytes over assumed rates. Nothing here was measured on a GPU.

Operations are counted from shapes: 2 per parameter and token, and attention. Small ones are ignored: norms, activation
functions, the optimiser, and attention inside the vision tower.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

from learner.config import LearnerConfig
from orchestration.cluster.layout import Layout
from orchestration.models.image_tokens import vision_rows
from orchestration.models.shapes import ModelShape
from orchestration.models.tensors import active_elements, changing_tensors, count_elements, count_parameters
from orchestration.page.formatting import size as format_size
from orchestration.page.formatting import some
from orchestration.plan.activations import DTYPE_BYTES, FLOAT32
from orchestration.plan.batches import BatchPlan, Lengths, is_drawn
from orchestration.plan.engine_memory import state_bytes, token_bytes
from orchestration.plan.learner_memory import FIXED, REFERENCE, learner_parts
from orchestration.plan.memory import kinds_under
from orchestration.settings.commands import AssumeConfig
from orchestration.settings.experiment import ExperimentConfig

BALANCE = 1.15
"""Rollout and learner are balanced if neither takes more than this multiple of the other's time."""
FORWARD = 2
"""Operations per parameter and token: multiply and add."""

Bound = Literal["rollout", "learner", "balanced", "turns"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A part of a step."""

    name: str
    seconds: float
    how: str
    """Source of the estimate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondsPlan:
    """Time of a step and of the run."""

    phases: tuple[Phase, ...]
    rollout_s: float
    train_s: float
    publish_s: float
    """Time in which neither side works: weights are sent; colocated, the GPU changes between engine and learner."""
    step_s: float
    run_s: float
    """All steps, excluding start, evaluation and checkpoints."""
    concurrency: int
    """Completions that an engine decodes at once."""
    bound: Bound
    advice: str
    """What to change, with its key."""
    assumptions: Mapping[str, float]
    """Those of plan.assume that the estimate uses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Assumed rates of the hardware, per second."""

    engine_flops: float
    """Prefill of one engine."""
    decode_bytes: float | None
    """Decoding of one engine; None on CPU, where decoding is counted in operations."""
    rank_flops: float
    transfer_bytes: float
    host_bytes: float


def rates_of(config: ExperimentConfig, layout: Layout | None) -> Rates | None:
    """Return the rates of the slowest GPUs of each role; None if the kind of a GPU is unknown."""
    assume, engine = config.plan.assume, config.rollout.engine
    engine_gpu = min(kinds_under(config, layout, "engine"), key=lambda gpu: gpu.memory_gb_s, default=None)
    learner_gpu = min(kinds_under(config, layout, "learner"), key=lambda gpu: gpu.bf16_tflops, default=None)
    if (engine.device == "cuda" and engine_gpu is None) or (config.learner.device == "cuda" and learner_gpu is None):
        return None
    # On CPU both sides are counted in operations.
    engine_flops, rank_flops, decode_bytes = assume.cpu_engine_gflop_s * 1e9, assume.cpu_learner_gflop_s * 1e9, None
    transfer_gb_s = assume.cpu_transfer_gb_s
    if engine_gpu:
        engine_flops = engine_gpu.bf16_tflops * 1e12 * assume.prefill_mfu * engine.tensor_parallel_size
        decode_bytes = engine_gpu.memory_gb_s * 1e9 * assume.decode_bandwidth_frac * engine.tensor_parallel_size
        transfer_gb_s = assume.transfer_gb_s
    if learner_gpu:
        rank_flops = learner_gpu.bf16_tflops * 1e12 * assume.learner_mfu
    return Rates(
        engine_flops=engine_flops,
        decode_bytes=decode_bytes,
        rank_flops=rank_flops,
        transfer_bytes=transfer_gb_s * 1e9,
        host_bytes=assume.host_link_gb_s * 1e9,
    )


def plan_seconds(
    config: ExperimentConfig,
    shape: ModelShape,
    *,
    lengths: Lengths,
    batches: BatchPlan,
    rates: Rates,
    cache_tokens: int | None,
) -> SecondsPlan:
    """Estimate the seconds of a step; `cache_tokens` is what an engine's cache holds, None if that is not known."""
    assume, num_actors = config.plan.assume, config.cluster.reward_pool.num_actors
    is_colocated = config.cluster.layout == "colocated"
    concurrency = _concurrency(config, lengths, batches, cache_tokens)
    prefill = _prefill(config, shape, lengths, batches, rates)
    decode = _decode(config, shape, lengths, batches, rates, concurrency)
    reward_s = batches.groups * assume.reward_group_s + batches.completion_tokens * assume.reward_token_s
    how = f"{batches.groups} groups over {some(num_actors, 'actor')}, during sampling"
    reward = Phase(name="reward", seconds=reward_s / num_actors, how=how)
    flops = train_flops(config, shape, lengths, batches)
    how = f"forward and backward, {flops:.3g} operations on {some(batches.ranks, 'rank')}"
    train = [Phase(name="train", seconds=flops / (batches.ranks * rates.rank_flops), how=how)]
    train += _host_traffic(config, shape, batches, rates)
    publish = [_transfer(config, shape, rates)]
    if is_colocated and config.learner.device == "cuda":
        publish.append(hand_over(config, shape, rates))
    rollout_s = max(prefill.seconds + decode.seconds, reward.seconds)
    train_s, publish_s = sum(phase.seconds for phase in train), sum(phase.seconds for phase in publish)
    takes_turns = is_colocated or config.training.steps_ahead == 0
    step_s = publish_s + (rollout_s + train_s if takes_turns else max(rollout_s, train_s))
    bound, advice = _bound(config, rollout_s, train_s, reward.seconds, takes_turns=takes_turns)
    return SecondsPlan(
        phases=(prefill, decode, reward, *train, *publish),
        rollout_s=rollout_s,
        train_s=train_s,
        publish_s=publish_s,
        step_s=step_s,
        run_s=step_s * config.training.num_steps,
        concurrency=concurrency,
        bound=bound,
        advice=advice,
        assumptions=_assumptions(config, assume, lengths),
    )


def _concurrency(config: ExperimentConfig, lengths: Lengths, batches: BatchPlan, cache_tokens: int | None) -> int:
    """Return the completions that an engine decodes at once: the least of its slots, its share, and its cache."""
    bounds = [config.rollout.engine.max_num_seqs, batches.completions_per_engine]
    if cache_tokens is not None:
        share_of_prompt = lengths.prompt / batches.group_size  # the group's completions share its cache blocks
        bounds.append(int(cache_tokens / (share_of_prompt + lengths.completion)))
    return max(1, min(bounds))


def _prefill(config: ExperimentConfig, shape: ModelShape, lengths: Lengths, batches: BatchPlan, rates: Rates) -> Phase:
    per_prompt = (
        FORWARD * block_parameters(shape) * lengths.prompt
        + lengths.prompt * attention_flops(shape, lengths.prompt / 2)
        + image_flops(shape, lengths.image)
    )
    prompts = batches.groups / config.rollout.engines
    how = f"{prompts:,.4g} prompts per engine, images included"
    return Phase(name="prefill", seconds=prompts * per_prompt / rates.engine_flops, how=how)


def _decode(
    config: ExperimentConfig, shape: ModelShape, lengths: Lengths, batches: BatchPlan, rates: Rates, concurrency: int
) -> Phase:
    """Return the decoding phase: a token step reads the weights once, and the cache of all running completions."""
    engine = config.rollout.engine
    # A mixture's step over many completions reads all experts.
    weights = block_parameters(shape) + head_parameters(shape)
    read = count_elements(tensor for tensor in shape.tensors if tensor.part == "language_model")
    read -= 0 if shape.text.is_tied else head_parameters(shape)
    context = lengths.prompt + lengths.completion / 2
    operations = concurrency * (FORWARD * weights + attention_flops(shape, context))
    token_s = operations / rates.engine_flops
    if rates.decode_bytes is not None:
        size = DTYPE_BYTES[engine.dtype]
        cache = (token_bytes(shape, 1, size) * context + state_bytes(shape, 1, size)) * concurrency
        token_s = max(token_s, (read * size + cache) / rates.decode_bytes)
    rounds = batches.completion_tokens / config.rollout.engines / concurrency
    if config.training.steps_ahead == 0:
        rounds = max(rounds, lengths.completion_most)  # a synchronous step waits for its longest completion
    how = f"{concurrency} completions at once, {token_s * 1000:.3g} ms per token"
    return Phase(name="decode", seconds=rounds * token_s, how=how)


def _host_traffic(config: ExperimentConfig, shape: ModelShape, batches: BatchPlan, rates: Rates) -> list[Phase]:
    """Return the traffic of offloaded state between GPU and host: gradients and weights, once per update."""
    learner = config.learner
    keeps_optimizer = learner.backend == "deepspeed" and learner.deepspeed.offload_optimizer
    keeps_weights = learner.fsdp.cpu_offload if learner.backend == "fsdp" else learner.deepspeed.offload_params
    if learner.device == "cpu" or not (keeps_optimizer or keeps_weights):
        return []
    share = count_parameters(shape).total * FLOAT32 / batches.ranks
    passes = 2 * batches.updates
    if keeps_weights:
        passes += 2 * batches.updates * batches.expected.num_micro_batches  # once forward, once backward
    return [Phase(name="host memory", seconds=share * passes / rates.host_bytes, how="offloaded weights and gradients")]


def _transfer(config: ExperimentConfig, shape: ModelShape, rates: Rates) -> Phase:
    """Return the weight transfer: all weights if engines slept, else those of layers that have a trained parameter."""
    num = count_parameters(shape).total
    if config.rollout.weight_channel.backend != "ipc":
        num = sum(tensor.numel for tensor in changing_tensors(shape, config.learner.freeze, config.learner.lora))
    size = num * DTYPE_BYTES[config.rollout.engine.dtype]
    seconds = size / rates.transfer_bytes + config.plan.assume.pause_s
    return Phase(name="new weights", seconds=seconds, how=f"{format_size(size)} to all engines at once")


def hand_over(config: ExperimentConfig, shape: ModelShape, rates: Rates) -> Phase:
    """Return the time to move a colocated learner's state to the host and back; fixed weights have a copy there."""
    kept = learner_parts(config, shape).kept
    back = sum(item.bytes for item in kept)
    away = sum(item.bytes for item in kept if item.name not in (FIXED, REFERENCE))
    how = f"{format_size(away)} of learner state to the host, {format_size(back)} back"
    return Phase(name="GPU handover", seconds=(away + back) / rates.host_bytes, how=how)


def _bound(
    config: ExperimentConfig, rollout_s: float, train_s: float, reward_s: float, *, takes_turns: bool
) -> tuple[Bound, str]:
    if rollout_s <= reward_s:
        return "rollout", "scoring takes longer than sampling: raise cluster.reward_pool.num_actors"
    if takes_turns:
        share = rollout_s / (rollout_s + train_s)
        longer = f"rollout takes {share:.0%} of their time"
        if config.cluster.layout == "colocated":
            return "turns", f"engines and learner take turns on the same GPUs; {longer}"
        return "turns", f"engines and learner take turns; {longer}; training.max_staleness=1 lets them overlap"
    what = "GPUs" if config.learner.device == "cuda" else "cores"
    idle = 1 - min(rollout_s, train_s) / max(rollout_s, train_s)
    if rollout_s > BALANCE * train_s:
        more = f"raise rollout.engines, or take {what} from learner.num_ranks"
        return "rollout", f"the learner waits {idle:.0%} of the time: {more}"
    if train_s > BALANCE * rollout_s:
        more = f"raise learner.num_ranks, or take {what} from rollout.engines"
        return "learner", f"engines wait {idle:.0%} of the time: {more}"
    return "balanced", "neither side waits long"


def _assumptions(config: ExperimentConfig, assume: AssumeConfig, lengths: Lengths) -> dict[str, float]:
    """Return the values of plan.assume that the estimate uses."""
    unused = {"prompt_tokens", "image_tokens"} if lengths.are_measured or is_drawn(config) else set()
    of_engine = "prefill_mfu", "decode_bandwidth_frac", "transfer_gb_s", "cpu_engine_gflop_s", "cpu_transfer_gb_s"
    of_learner = "learner_mfu", "cpu_learner_gflop_s"
    for device, keys in ((config.rollout.engine.device, of_engine), (config.learner.device, of_learner)):
        unused |= {key for key in keys if key.startswith("cpu_") is (device == "cuda")}
    return {field.name: getattr(assume, field.name) for field in fields(assume) if field.name not in unused}


def block_parameters(shape: ModelShape) -> int:
    """Return the parameters applied to each token of the language model, without embedding table and output head.

    Of a mixture, those of a token's own experts.
    """
    ends = (shape.table, shape.head)
    return active_elements(
        shape, [tensor for tensor in shape.tensors if tensor.part == "language_model" and tensor.name not in ends]
    )


def head_parameters(shape: ModelShape) -> int:
    """Return the parameters of the output head, which may be the embedding table."""
    return shape.text.vocab_size * shape.text.width


def attention_flops(shape: ModelShape, context: float) -> float:
    """Return the operations of one token's attention over `context` tokens, all layers: scores and weighted values.

    Layers of sliding attention look back at most one window; those of linear attention have a state instead, which is
    updated and read once.
    """
    text, found = shape.text, 0.0
    for block in text.blocks:
        if block.kind == "linear_attention":
            found += 2 * FORWARD * text.state[0]
        else:
            seen = min(context, text.window) if block.kind == "sliding_attention" and text.window else context
            found += 2 * FORWARD * seen * block.queries
    return found


def image_flops(shape: ModelShape, num_image_tokens: float) -> float:
    """Return the operations of vision tower and projector for a prompt's images."""
    if num_image_tokens <= 0:
        return 0.0
    counts = count_parameters(shape)
    rows = vision_rows(shape, round(num_image_tokens))
    return FORWARD * (counts.vision_tower * rows + counts.projector * num_image_tokens)


def train_flops(config: ExperimentConfig, shape: ModelShape, lengths: Lengths, batches: BatchPlan) -> float:
    """Return the operations of a training step, all ranks: updates, and scoring passes before them."""
    algorithm, learner = config.algorithm, config.learner
    prompt = lengths.prompt * (1 if batches.prefix_sharing else batches.group_size)
    completions = lengths.completion * batches.group_size
    per_group = (
        FORWARD * block_parameters(shape) * (prompt + completions)
        + prompt * attention_flops(shape, lengths.prompt / 2)
        + completions * attention_flops(shape, lengths.prompt + lengths.completion / 2)
        + FORWARD * head_parameters(shape) * completions
    )
    language, vision = per_group * batches.groups, image_flops(shape, lengths.image) * batches.groups
    recompute = 1 if learner.activation_checkpointing else 0
    vision_factor = backward_factor(learner, "vision_tower")
    trained = language * (1 + recompute + backward_factor(learner, "language_model"))
    trained += vision * (1 + (recompute if vision_factor else 0) + vision_factor)
    return algorithm.num_epochs * trained + num_scoring_passes(config) * (language + vision)


def backward_factor(learner: LearnerConfig, part: str) -> int:
    """Return backward operations in units of a forward pass: 1 for gradients of inputs, 1 for those of weights."""
    if part not in learner.freeze and learner.lora is None:
        return 2
    return 0 if part == "vision_tower" else 1


def num_scoring_passes(config: ExperimentConfig) -> int:
    """Return the forward passes before the first update: policy if `old` is recomputed, reference for KL."""
    algorithm = config.algorithm
    recomputes = algorithm.old_logprobs == "recomputed" and algorithm.num_epochs * algorithm.num_minibatches > 1
    return int(recomputes) + int(algorithm.uses_reference)
