"""Memory of one worker of a vLLM engine, tokens that its key-value cache holds, and the buffers of a weight transfer.

Which tensors a worker holds whole and which are split over the engine's workers is read from vLLM 0.32: the language
model is split, its norms are not; so is a vision tower, but of InternVL's only the MLPs. A worker may use
`gpu_memory_utilization` of its GPU for everything but the buffers of a weight transfer.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from orchestration.models.image_tokens import largest_image_tokens, processor_of, vision_rows
from orchestration.models.shapes import ModelShape, Tensor
from orchestration.models.tensors import count_elements, sent_tensors
from orchestration.plan.activations import DTYPE_BYTES, FLOAT32
from orchestration.plan.records import CONTEXT_BYTES, Items, MemoryUse, make_item, make_product
from orchestration.settings.errors import ConfigError
from orchestration.settings.experiment import ExperimentConfig, adapter_of

VOCAB_PADDING = 64
"""vLLM rounds the vocabulary up to a multiple of this."""
SERVER_BATCHED_TOKENS = {160: 16384, 70: 8192, 0: 2048}
"""Tokens per step of vLLM's server, by the least GiB of the GPU. vLLM uses 2,048 on an A100 of 80 GB, which is counted
by its size here, so it has a little more cache than planned."""
GPU_BLOCK = 16
CPU_BLOCK = 128
"""Tokens of a cache block where `block_size` is null."""
GRAPH_BYTES = 1024 * 2**20
"""CUDA graphs and what torch.compile keeps: an assumption; vLLM logs the true figure when it starts."""
SAMPLER_COPIES = 3
"""Float32 copies of the logits of all sequences: logits, log-probabilities, and a temporary."""
MOST_WORKERS = 16
WHOLE_ATTENTION = ("internvl",)
"""Families of whose vision tower vLLM splits the MLPs alone."""
OUTPUTS = ("o_proj", "out_proj", "proj", "down_proj", "linear_fc2", "fc2", "2")
"""Layers that vLLM splits by their inputs; the others by their outputs."""
WHOLE_LAYERS = ("gate", "shared_expert_gate", "in_proj_a", "in_proj_b", "in_proj_ba")
"""Small linear layers of the language model that each worker holds: routers, gates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePlan:
    """Key-value cache of an engine, its workers together."""

    num_tokens: int
    """Tokens that fit; completions of a group share those of their prompt."""
    num_whole_sequences: int
    """Sequences of max_model_len tokens that fit without sharing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineMemory:
    """Memory of one worker of an engine, and the cache of all its workers together."""

    use: MemoryUse
    cache: CachePlan


def engine_memory(config: ExperimentConfig, shape: ModelShape, limit_bytes: int | None) -> EngineMemory:
    """Count one worker of an engine whose workers can split the model (see `undivided`).

    `limit_bytes` is the memory of the GPU, None if unknown; it is not used on a CPU.

    Raises:
        ConfigError: the cache size depends on a GPU whose memory is unknown.
    """
    engine = config.rollout.engine
    size = DTYPE_BYTES[engine.dtype]
    weights = (*_weight_items(shape, engine.tensor_parallel_size, size), *_adapter_items(config, shape, size))
    working = _working_items(config, shape, size, limit_bytes)
    buffers = receiver_items(config, shape)
    if engine.device == "cpu":
        # An engine is paused while weights arrive, and a CPU's allocator frees what a forward pass has used.
        working, buffers = (working, ()) if _total(working) >= _total(buffers) else ((), buffers)
        weights += kept_items(config, shape)
    fixed = (*weights, *working)
    taken = _total(fixed)
    if engine.kv_cache_bytes is not None:
        cache, formula = engine.kv_cache_bytes, f"rollout.engine.kv_cache_bytes={engine.kv_cache_bytes:,}"
    elif limit_bytes is None:
        raise ConfigError(
            "rollout.engine.kv_cache_bytes is null, so the cache takes what a GPU has left, and the size of "
            "the GPU is unknown; set cluster.nodes with a kind of plan.gpus, or rollout.engine.kv_cache_bytes"
        )
    else:
        allowed = int(engine.gpu_memory_utilization * limit_bytes)
        cache = max(0, allowed - taken)
        formula = f"{engine.gpu_memory_utilization} x {limit_bytes:,} B minus {taken:,} B of the above"
    block = engine.block_size or (CPU_BLOCK if engine.device == "cpu" else GPU_BLOCK)
    growing = max(0, cache - engine.max_num_seqs * state_bytes(shape, engine.tensor_parallel_size, size))
    tokens = growing // (token_bytes(shape, engine.tensor_parallel_size, size) * block) * block
    is_gpu = engine.device == "cuda"
    use = MemoryUse(
        place="GPU of an engine worker" if is_gpu else "process of an engine worker",
        items=(*fixed, make_item("key-value cache", cache, formula), *buffers),
        limit_bytes=limit_bytes if is_gpu else None,
    )
    return EngineMemory(use=use, cache=CachePlan(num_tokens=tokens, num_whole_sequences=tokens // engine.max_model_len))


def _total(items: Items) -> int:
    return sum(item.bytes for item in items)


def token_bytes(shape: ModelShape, workers: int, size: int) -> int:
    """Return the bytes of a token's keys and values on one worker; more workers than key heads hold copies.

    Layers of linear attention keep none; those of sliding attention are counted as if they kept all.

    Example:
        A language model of 3 layers with 3 key heads of 32 keeps 3 x 2 x 96 numbers of 4 bytes: 2,304.
    """
    heads = shape.text.num_kv_heads
    keys = sum(block.keys for block in shape.text.blocks)
    return 2 * keys * max(1, heads // workers) // heads * size


def state_bytes(shape: ModelShape, workers: int, size: int) -> int:
    """Return what a running sequence holds on one worker in layers of linear attention, however long it is.

    vLLM keeps the recurrent state in float32 and the convolution's in the engine's type.
    """
    recurrent, convolution = shape.text.state
    layers = shape.text.num_layers - shape.text.num_cached
    return layers * (FLOAT32 * recurrent + size * convolution) // workers


def undivided(shape: ModelShape, workers: int) -> dict[str, int]:
    """Return the dimensions, by name, that `workers` does not divide, as vLLM 0.32 splits the model; empty if none."""
    text, tower = shape.text, shape.tower
    parts = {
        "attention heads": text.num_heads,
        "key-value heads": text.num_kv_heads,
        "columns of the MLP": text.mlp_width,
        "columns of the vision MLP": tower.mlp_width,
    }
    if workers % text.num_kv_heads == 0:  # several workers hold copies of a head then
        del parts["key-value heads"]
    if shape.family not in WHOLE_ATTENTION:
        parts["vision heads"] = tower.num_heads
    return {name: number for name, number in parts.items() if number % workers}


def widths(shape: ModelShape, most: int = MOST_WORKERS) -> list[int]:
    """Return the tensor-parallel sizes that divide a model, up to `most`."""
    return [workers for workers in range(1, most + 1) if not undivided(shape, workers)]


def worker_parameters(shape: ModelShape, workers: int) -> tuple[int, int]:
    """Return the elements of one worker: (its share of split tensors, tensors that each worker holds whole)."""
    shares = [(tensor, _share(tensor, shape, workers)) for tensor in shape.tensors]
    split = sum(share for _, share in shares if share is not None)
    return split, sum(tensor.numel for tensor, share in shares if share is None)


def _weight_items(shape: ModelShape, workers: int, size: int) -> Items:
    split, whole = worker_parameters(shape, workers)
    if workers == 1:
        return (make_product("weights", size, split + whole),)
    return (
        make_product("weights, this worker's share", size, split, f" of {workers} workers"),
        make_product("weights, whole on each worker", size, whole, " (norms, what vLLM does not split)"),
    )


def _working_items(config: ExperimentConfig, shape: ModelShape, size: int, limit_bytes: int | None) -> Items:
    """Return the largest forward pass of vLLM's profiling run, and what a GPU process always holds."""
    engine, text, tower = config.rollout.engine, shape.text, shape.tower
    workers = engine.tensor_parallel_size
    tokens = engine.batched_tokens(_server_batched_tokens(limit_bytes))
    pictures = min(engine.max_model_len, largest_image_tokens(shape, processor_of(config.model)))
    features = max(tokens, pictures)
    rows = vision_rows(shape, features)
    # Of a mixture, all experts of a token together; half of a gated MLP's inner row is its gate.
    inner = max(text.mlp_width, *(block.inner // 2 for block in text.blocks))
    found = [
        make_item(
            "activations of a prompt batch",
            size * tokens * (3 * text.width + 3 * inner / workers),
            f"{size} B x {tokens:,} tokens x (3 D + 3 F / {workers})",
        ),
        make_item(
            "logits and log-probabilities",
            SAMPLER_COPIES * FLOAT32 * engine.max_num_seqs * text.vocab_size,
            f"{SAMPLER_COPIES} x 4 B x {engine.max_num_seqs} sequences x {text.vocab_size:,}",
        ),
        make_item(
            "vision tower activations",
            size * rows * (8 * tower.width + 3 * tower.mlp_width / workers),
            f"{size} B x {rows:,} rows x (8 W + 3 F / {workers})",
        ),
        make_item("image features kept", size * features * text.width, f"{size} B x {features:,} image tokens x D"),
    ]
    if engine.device == "cuda":
        found.append(make_item("CUDA context", CONTEXT_BYTES, "assumed"))
        if not engine.enforce_eager:
            found.append(make_item("CUDA graphs", GRAPH_BYTES, "assumed"))
    return tuple(found)


def _server_batched_tokens(limit_bytes: int | None) -> int:
    """Return the tokens per step of vLLM's server on a GPU of this size; of an H100 if the size is unknown."""
    if limit_bytes is None:
        return SERVER_BATCHED_TOKENS[70]
    return next(tokens for gib, tokens in SERVER_BATCHED_TOKENS.items() if limit_bytes >= gib << 30)


def _share(tensor: Tensor, shape: ModelShape, workers: int) -> int | None:
    """Return the elements of a worker's share of a tensor; None if each worker holds it whole."""
    layer, _, kind = tensor.name.rpartition(".")
    last, heads = layer.rpartition(".")[2], shape.text.num_kv_heads
    if tensor.name in (shape.table, shape.head):
        padded = -(-tensor.shape[0] // VOCAB_PADDING) * VOCAB_PADDING
        return -(-padded // workers) * tensor.shape[1]
    if tensor.is_expert:
        return tensor.numel // workers
    is_language = tensor.part == "language_model"
    if is_language and last in ("k_proj", "v_proj"):
        return tensor.numel * max(1, heads // workers) // heads
    is_linear = tensor.is_linear or (kind == "bias" and f"{layer}.weight" in _linear_names(shape))
    if not is_linear or (is_language and last in WHOLE_LAYERS):
        return None
    if not is_language and shape.family in WHOLE_ATTENTION and last not in ("fc1", "fc2"):
        return None
    # In a layer that is split by its inputs, each worker holds the whole bias.
    return None if last in OUTPUTS and kind == "bias" else tensor.numel // workers


@lru_cache(maxsize=16)
def _linear_names(shape: ModelShape) -> frozenset[str]:
    return frozenset(tensor.name for tensor in shape.tensors if tensor.is_linear)


def sender_items(config: ExperimentConfig, shape: ModelShape) -> Items:
    """Return the buffers of the weight channel in which rank 0 packs weights."""
    channel = config.rollout.weight_channel
    size = DTYPE_BYTES[config.rollout.engine.dtype]
    if channel.backend == "gloo":
        bucket = min(channel.bucket_bytes, size * count_elements(_sent(config, shape)))
        peak, text = 2 * bucket, f"2 x {bucket:,} B: the bucket, and the tensors copied into it"
    elif channel.backend == "ipc":
        largest, buffer = size * max(tensor.numel for tensor in _sent(config, shape)), shared_buffer(config, shape)
        peak = buffer + largest
        text = f"{buffer:,} B shared with engines, and {largest:,} B of a tensor being copied into it"
    else:
        peak = max(before + 2 * now for before, now in pairwise([0, *packed_buffers(config, shape)]))
        text = f"buffers of {channel.bucket_bytes:,} B and a tensor each: one being sent, one being filled, its tensors"
    return (make_item("weight channel", peak, text),)


def packed_buffers(config: ExperimentConfig, shape: ModelShape) -> list[int]:
    """Return the bytes of each NCCL buffer in order; a buffer ends with the tensor that overflows it."""
    size = DTYPE_BYTES[config.rollout.engine.dtype]
    buffers = [0]
    # Blocks first: the order of learner/backends/fsdp.py.
    for tensor in sorted(_sent(config, shape), key=lambda tensor: tensor.block is None):
        if buffers[-1] > config.rollout.weight_channel.bucket_bytes:
            buffers.append(0)
        buffers[-1] += size * tensor.numel
    return buffers


def shared_buffer(config: ExperimentConfig, shape: ModelShape) -> int:
    """Return the bytes of the buffer that both sides share over ipc; no tensor may be larger."""
    size = DTYPE_BYTES[config.rollout.engine.dtype]
    return max(config.rollout.weight_channel.bucket_bytes, size * max(t.numel for t in _sent(config, shape)))


def receiver_items(config: ExperimentConfig, shape: ModelShape) -> Items:
    """Return what an engine's worker holds while new weights arrive."""
    channel, size = config.rollout.weight_channel, DTYPE_BYTES[config.rollout.engine.dtype]
    tensors = _sent(config, shape)
    if channel.backend == "gloo":
        total = size * count_elements(tensors)
        if channel.differences:
            return (make_item("weight channel", channel.bucket_bytes, "one bucket; received weights are kept"),)
        return (
            make_item(
                "received weights", total, f"{size} B x what is sent: staged, so that a broken transfer changes nothing"
            ),
            make_item("weight channel", min(channel.bucket_bytes, total), f"one bucket of {channel.bucket_bytes:,} B"),
        )
    layer = size * max(*(tensor.numel for tensor in tensors), 2 * shape.text.mlp_width * shape.text.width)
    workers = config.rollout.engine.tensor_parallel_size
    reloaded = make_item("layer being reloaded", layer / workers, f"{size} B x the largest / {workers} workers")
    if channel.backend == "ipc":
        clones = shared_buffer(config, shape)
        peak, text = clones + layer, f"copies of {clones:,} B, and of an incomplete layer"
    else:
        peak = max(before + now for before, now in pairwise([0, *packed_buffers(config, shape)]))
        text = f"two buffers of {channel.bucket_bytes:,} B and a tensor each, on every worker"
    if adapter_of(config.learner) is not None:  # nothing is loaded into a layer
        return (make_item("weight channel", peak, text),)
    return make_item("weight channel", peak, text), reloaded


def _sent(config: ExperimentConfig, shape: ModelShape) -> list[Tensor]:
    return sent_tensors(shape, config.learner.freeze, config.learner.lora)


def kept_items(config: ExperimentConfig, shape: ModelShape) -> Items:
    """Return what rank 0 and each engine worker keep in host memory to send and apply differences."""
    if not config.rollout.weight_channel.differences:
        return ()
    size, num = DTYPE_BYTES[config.rollout.engine.dtype], count_elements(_sent(config, shape))
    return (make_product("last publication", size, num, ", kept for differences"),)


def _adapter_items(config: ExperimentConfig, shape: ModelShape, size: int) -> Items:
    """Return the buffers of an adapter's layers, and the factors from which they were filled.

    Of several workers each holds A of the layers that are split by rows, and B of the others, whole.
    """
    adapter = adapter_of(config.learner)
    if adapter is None:
        return ()
    factors = count_elements(_sent(config, shape))
    buffers = factors * adapter.buffer_rank // adapter.rank
    return (
        make_product("adapter buffers", size, buffers, f" of rank {adapter.buffer_rank}"),
        make_product("adapter", size, factors, f" of rank {adapter.rank}"),
    )
