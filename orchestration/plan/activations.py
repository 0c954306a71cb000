"""What autograd keeps of one forward pass, and what its backward pass adds for a moment.

Counted operation by operation from the modules that the learner runs (transformers 5.19, learner/attention,
learner/algorithms/logprobs.py). Per row of a layer, with s bytes an element of forward and backward:

    RMS norm      4 (what it squares, float32) + 2 s (normalised, and its output, which the layers behind it keep)
    layer norm    2 s (input and output)
    gated MLP     4 s an inner unit (gate, its activation, up, their product)
    plain MLP     2 s an inner unit (before and after the activation)

Axes: L tokens of the stream, N rows of the vision tower, C predicted tokens, V vocabulary, D width.
"""

from dataclasses import dataclass
from typing import Literal

from learner.config import LearnerConfig
from orchestration.models.image_tokens import vision_rows
from orchestration.models.shapes import ModelShape, PatchTower, TextShape, TileTower
from orchestration.plan.stream_load import StreamLoad
from orchestration.plan.trained import trained_tensors

FLOAT32 = 4
CHUNK_ELEMENTS = 2**25
"""Logits of one chunk: learner/algorithms/logprobs.py, which imports torch."""
LOGIT_COPIES = 3
"""Of a chunk at once: log-probabilities, probabilities, and their product."""
GRAD_COPIES = 2
"""Of a chunk in the backward pass: logits and their gradient."""

Kernel = Literal["sdpa", "flash", "flex"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Activations:
    """Bytes of one micro-batch on one rank."""

    num_layers: int
    num_tokens: int
    text_layer: int
    """What one block of the language model keeps for its backward pass."""
    text_stored: int
    """What all blocks keep between forward and backward: all of that, or with recomputation their inputs."""
    text_extra: int
    """Gradients that a block's backward pass holds beside what was kept."""
    tower_layers: int
    tower_rows: int
    tower_layer: int
    """0 where nothing of the vision tower is trained."""
    tower_stored: int
    tower_extra: int
    tower_forward: int
    """What one block of the tower needs while it is computed and nothing is kept."""
    projector: int
    ends: int
    """Last norm, the rows that predict, and what all layers share: positions, pictures, masks."""
    logits_forward: int
    logits_backward: int
    num_chunk_rows: int


def kernel_of(config: LearnerConfig) -> Kernel:
    """Give the attention kernel; `auto` on a GPU is counted as flash, which needs an Ampere GPU or a newer one."""
    if config.device == "cpu" or config.attention == "sdpa":
        return "sdpa"
    if config.attention == "flex":
        return "flex"
    return "flash" if config.dtype == "bfloat16" else "sdpa"


def count_activations(config: LearnerConfig, shape: ModelShape, load: StreamLoad) -> Activations:
    """Count the activations of one micro-batch."""
    size = element_bytes(config)
    text, tower = shape.text, shape.tower
    trained = trained_tensors(shape, config.freeze, config.lora)
    tokens, rows = load.num_tokens, vision_rows(shape, load.num_image_tokens)
    text_layer = _text_layer(text, load, size, kernel_of(config), is_on_gpu=config.device == "cuda")
    is_tower_kept = trained.trains("vision_tower")
    tower_layer = _tower_layer(tower, rows, size) if is_tower_kept else 0
    is_recomputed = config.activation_checkpointing
    chunk_rows = min(load.num_predicted, max(1, CHUNK_ELEMENTS // text.vocab_size))
    chunk = FLOAT32 * chunk_rows * text.vocab_size
    # The weight's gradient is summed in float32 and then cast; a narrow one needs each chunk's product beside it.
    is_head_trained = config.lora is None and any(
        "embed_tokens" in t.name or "lm_head" in t.name for t in trained.trained
    )
    narrow = size * text.vocab_size * text.width if size < FLOAT32 else 0
    head = FLOAT32 * text.vocab_size * text.width + narrow if is_head_trained else 0
    return Activations(
        num_layers=text.num_layers,
        num_tokens=tokens,
        text_layer=text_layer,
        text_stored=text.num_layers * (size * tokens * text.width if is_recomputed else text_layer),
        text_extra=size * tokens * (2 * text.mlp_width + 2 * text.width),
        tower_layers=tower.num_layers,
        tower_rows=rows,
        tower_layer=tower_layer,
        tower_stored=tower.num_layers * (size * rows * tower.width if is_recomputed else tower_layer)
        if is_tower_kept
        else 0,
        tower_extra=_tower_extra(tower, rows, size) if is_tower_kept else 0,
        tower_forward=_tower_forward(tower, rows, size),
        projector=_projector(shape, rows, load.num_image_tokens, size)
        if is_tower_kept or trained.trains("projector")
        else 0,
        ends=_ends(shape, load, rows, size, kernel_of(config)),
        logits_forward=LOGIT_COPIES * chunk,
        logits_backward=head + GRAD_COPIES * chunk,
        num_chunk_rows=chunk_rows,
    )


def element_bytes(config: LearnerConfig) -> int:
    """Give the bytes of an element in forward and backward."""
    return 4 if config.dtype == "float32" else 2


def _text_layer(text: TextShape, load: StreamLoad, size: int, kernel: Kernel, *, is_on_gpu: bool) -> int:
    tokens = load.num_tokens
    queries, keys = text.num_heads * text.head_dim, text.num_kv_heads * text.head_dim
    norms = 2 * (FLOAT32 + 2 * size) * tokens * text.width
    # Queries, keys, values, the output, and the output as the last projection takes it; a log-sum-exp a head.
    attention = size * tokens * (3 * queries + 2 * keys) + FLOAT32 * tokens * text.num_heads
    if kernel == "sdpa":
        # Each completion has its own copy of its prompt's keys and values. CUDA wants them once a query head.
        width = queries if is_on_gpu else keys
        attention += 2 * size * load.branch_rows * width
        if is_on_gpu:
            attention += 2 * size * load.num_prompts * load.prompt_tokens * width
    return norms + attention + 4 * size * tokens * text.mlp_width


def _tower_layer(tower: PatchTower | TileTower, rows: int, size: int) -> int:
    width = rows * tower.width
    sums = FLOAT32 * rows * tower.num_heads
    if isinstance(tower, PatchTower):
        # Queries and keys twice, before and after their rotation: they are views of one tensor with the values.
        return 2 * (FLOAT32 + 2 * size) * width + 7 * size * width + 4 * size * rows * tower.mlp_width + sums
    norms = 2 * (2 * size if tower.norm == "layer_norm" else FLOAT32 + 2 * size) * width
    if tower.has_qk_norm:
        norms += 2 * (FLOAT32 + size) * width
    # Queries, keys, values, output, its projection's input, and both branches before their learned scale.
    return norms + 7 * size * width + 2 * size * rows * tower.mlp_width + sums


def _tower_extra(tower: PatchTower | TileTower, rows: int, size: int) -> int:
    inner = 2 if isinstance(tower, PatchTower) else 1
    return size * rows * (inner * tower.mlp_width + 2 * tower.width)


def _tower_forward(tower: PatchTower | TileTower, rows: int, size: int) -> int:
    """Stream, its norm's output, and the widest moment: of the MLP, or of queries, keys and values."""
    mlp = (3 if isinstance(tower, PatchTower) else 2) * tower.mlp_width
    attention = 6 * tower.width
    return size * rows * (2 * tower.width + max(mlp, attention))


def _projector(shape: ModelShape, rows: int, image_tokens: int, size: int) -> int:
    tower = shape.tower
    if isinstance(tower, PatchTower):
        return (FLOAT32 + 2 * size) * rows * tower.width + 2 * size * rows * tower.width
    merged = tower.width * tower.merge_side**2
    return size * image_tokens * (2 * merged + 2 * shape.text.width)


def _ends(shape: ModelShape, load: StreamLoad, rows: int, size: int, kernel: Kernel) -> int:
    text, tower = shape.text, shape.tower
    last_norm = (FLOAT32 + 2 * size) * load.num_tokens * text.width
    predicting = size * load.num_predicted * text.width
    positions = 2 * size * load.num_tokens * text.head_dim
    if isinstance(tower, PatchTower):
        patch_values = tower.num_channels * tower.temporal_patch * tower.patch_side**2
        pictures = FLOAT32 * rows * (patch_values + 2 * tower.width // tower.num_heads)
    else:
        tiles = rows // (tower.patches_per_tile + 1)
        pictures = FLOAT32 * tiles * tower.num_channels * tower.tile_side**2
    branch = load.completion_tokens - 1
    bias = size * load.num_completions * branch * (load.prompt_tokens + branch) if kernel == "sdpa" else 0
    return last_norm + predicting + positions + pictures + bias
