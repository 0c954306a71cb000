"""Activations of the learner's largest micro-batch: what autograd keeps, and what the backward pass adds temporarily.

What a row of a block keeps is counted from the block's modules (`orchestration.models.meta_blocks`); here stands what
the learner's own attention and logits add (learner/attention, learner/algorithms/logprobs.py).

Axes: L tokens of the micro-batch, N rows of the vision tower, C predicted tokens, V vocabulary, D width.
"""

from dataclasses import dataclass
from math import ceil
from typing import Literal

from learner.config import LearnerConfig, runs_padded
from orchestration.models.image_tokens import largest_image_tokens, processor_of, vision_rows
from orchestration.models.shapes import BlockShape, ModelShape, TextShape, TowerShape
from orchestration.models.tensors import trained_tensors
from orchestration.plan.records import Items, MemoryItem, make_item
from orchestration.settings.experiment import ExperimentConfig

FLOAT32 = 4
DTYPE_BYTES = {"float32": 4, "bfloat16": 2}
CHUNK_ELEMENTS = 2**25
"""Logits of one chunk: learner/algorithms/logprobs.py, which imports torch."""
LOGIT_COPIES = 3
"""Copies of a chunk in the forward pass: log-probabilities, probabilities, and their product."""
GRAD_COPIES = 2
"""Copies of a chunk in the backward pass: logits and their gradient."""
LAST_LOGITS = "forward: last logits"
FIRST_LOGITS = "backward: first logits"
TEXT_BLOCKS = "backward: blocks of the language model"
TOWER_BLOCKS = "backward: blocks of the vision tower"
FROZEN_TOWER = "forward: frozen vision tower"
"""Phases of forward and backward that can need most memory."""

Kernel = Literal["sdpa", "flash", "flex", "own"]
"""Attention of a stream, or the model's own over padded rows."""

CHUNK_TOKENS = 64
"""Tokens of a chunk of linear attention: learner/attention/linear.py, which imports torch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLoad:
    """The tokens of one micro-batch, laid out as in learner/policy/packing.py: each prompt once, then its completions.

    Example:
        >>> load = StreamLoad(num_prompts=2, prompt_tokens=160, image_tokens=121, num_completions=16,
        ...                   completion_tokens=60)
        >>> load.num_tokens, load.num_predicted, load.branch_rows
        (1264, 960, 3504)
    """

    num_prompts: int
    prompt_tokens: int
    """Tokens of one prompt, including its image tokens."""
    image_tokens: int
    """Image tokens of one prompt."""
    num_completions: int
    """In all; spread evenly over the prompts."""
    completion_tokens: int
    """Tokens of one completion."""

    @property
    def num_tokens(self) -> int:
        """Input tokens of the model; the last token of a completion is only predicted."""
        return self.num_prompts * self.prompt_tokens + self.num_completions * (self.completion_tokens - 1)

    @property
    def num_chunk_rows(self) -> int:
        """Rows of whole chunks: linear attention fills up each prompt and each completion."""
        prompt, completion = (
            CHUNK_TOKENS * ceil(tokens / CHUNK_TOKENS) for tokens in (self.prompt_tokens, self.completion_tokens - 1)
        )
        return self.num_prompts * prompt + self.num_completions * completion

    @property
    def num_predicted(self) -> int:
        return self.num_completions * self.completion_tokens

    @property
    def num_image_tokens(self) -> int:
        return self.num_prompts * self.image_tokens

    @property
    def branch_rows(self) -> int:
        """Keys of completions if each has its own copy: those of its prompt and its own."""
        return self.num_completions * (self.prompt_tokens + self.completion_tokens - 1)


def largest_load(config: ExperimentConfig, shape: ModelShape) -> StreamLoad:
    """Return a micro-batch at the token budget, or the groups of one update if they are fewer tokens.

    Prompts and completions have maximum length, prompts as many image tokens as fit. Shorter completions would leave
    room for more image tokens, at most `learner.micro_batch_tokens`.
    """
    sampling, engine = config.rollout.sampling, config.rollout.engine
    completion = sampling.longest_completion
    prompt = engine.max_model_len - completion
    largest = largest_image_tokens(shape, processor_of(config.model))
    # A sequence longer than the budget is a micro-batch of its own.
    budget = max(config.learner.micro_batch_tokens, prompt + completion - 1)
    group = prompt + sampling.largest_group * (completion - 1)
    groups_per_update = ceil(config.training.groups_per_step / config.algorithm.num_minibatches)
    most_prompts = max(1, ceil(groups_per_update / config.learner.num_ranks))
    if runs_padded(shape.family):  # a prompt in each row
        num_prompts = num_completions = min(most_prompts * sampling.largest_group, budget // (prompt + completion - 1))
    else:
        num_prompts = min(most_prompts, budget // group)
        num_completions = num_prompts * sampling.largest_group
        left = budget - num_prompts * group
        if left > prompt and num_prompts < most_prompts:
            num_prompts += 1
            num_completions += (left - prompt) // max(1, completion - 1)
    return StreamLoad(
        num_prompts=num_prompts,
        prompt_tokens=prompt,
        image_tokens=min(prompt, engine.max_images_per_prompt * largest),
        num_completions=num_completions,
        completion_tokens=completion,
    )


def element_bytes(config: LearnerConfig) -> int:
    """Return the bytes of an element in forward and backward."""
    return DTYPE_BYTES[config.dtype]


def kernel_of(config: LearnerConfig, shape: ModelShape) -> Kernel:
    """Return the attention kernel; `auto` on a GPU counts as flash, which needs an Ampere GPU or newer."""
    if runs_padded(shape.family):
        return "own"
    if config.device == "cpu" or config.attention == "sdpa":
        return "sdpa"
    if config.attention == "flex":
        return "flex"
    return "flash" if config.dtype == "bfloat16" else "sdpa"


def activation_items(config: LearnerConfig, shape: ModelShape, load: StreamLoad) -> dict[str, Items]:
    """Return activations and logits in each phase that can need most memory.

    A trained vision tower has a backward phase; of a frozen one the forward phase is counted, which keeps nothing.
    """
    size, tower, kernel = element_bytes(config), shape.tower, kernel_of(config, shape)
    trained = trained_tensors(shape, config.freeze, config.lora)
    rows = vision_rows(shape, load.num_image_tokens)
    is_recomputed, is_tower_trained = config.activation_checkpointing, trained.trains("vision_tower")
    kept = "block inputs kept for recomputation" if is_recomputed else "activations kept"
    text, tokens = shape.text, load.num_tokens
    is_on_gpu = config.device == "cuda"
    layers = [_text_layer(block, text, load, size, kernel, is_on_gpu=is_on_gpu) for block in text.blocks]
    text_layer, text_stored = (
        max(layers),
        text.num_layers * size * tokens * text.width if is_recomputed else sum(layers),
    )
    tower_layers = [_tower_layer(block, tower, rows, size) for block in tower.blocks]
    tower_layer = max(tower_layers, default=0)
    tower_stored = tower.num_layers * size * rows * tower.width if is_recomputed else sum(tower_layers)

    def again(layer: int) -> Items:
        """Return what the backward pass of one block recomputes."""
        item = make_item("one block recomputed", layer, "what it keeps without recomputation")
        return (item,) if is_recomputed else ()

    stored = [
        make_item(
            f"{kept}, language model",
            text_stored,
            f"{text.num_layers} blocks x {tokens:,} tokens; a block keeps {text_layer:,} B without recomputation",
        )
    ]
    if is_tower_trained:
        how = f"{tower.num_layers} blocks x {rows:,} rows of {load.num_image_tokens:,} image tokens"
        stored.append(make_item(f"{kept}, vision tower", tower_stored, how))
    if is_tower_trained or trained.trains("projector"):
        float32, narrow = tower.projector
        projector = load.num_image_tokens * (FLOAT32 * float32 + size * narrow)
        stored.append(make_item("activations kept, projector", projector, f"{load.num_image_tokens:,} image tokens"))
    ends = _ends(shape, load, rows, size, kernel)
    how = f"{tokens:,} tokens, {load.num_predicted:,} of them predicted; pixels float32"
    stored.append(make_item("last norm, predicting rows, positions, pixels", ends, how))
    is_head_trained = config.lora is None and any(
        "embed_tokens" in tensor.name or "lm_head" in tensor.name for tensor in trained.trained
    )
    forward, backward = _logits(text, load, size, is_head_trained=is_head_trained)
    how = f"of {tokens:,} tokens: the MLP's inner rows and two stream rows"
    inner = max(block.inner for block in text.blocks)
    inside = make_item("gradients within a block", size * tokens * (inner + 2 * text.width), how)
    phases: dict[str, Items] = {
        LAST_LOGITS: (*stored, forward),
        FIRST_LOGITS: (*stored, backward),
        TEXT_BLOCKS: (*stored, *again(text_layer), inside),
    }
    if not tower.blocks:
        return phases
    inner = max(block.inner for block in tower.blocks)
    if is_tower_trained:
        phases[TOWER_BLOCKS] = (
            make_item("kept, vision tower", tower_stored, f"{tower.num_layers} blocks"),
            *again(tower_layer),
            make_item("gradients within a block", size * rows * (inner + 2 * tower.width), f"{rows:,} rows"),
        )
    else:
        how = f"{rows:,} rows; nothing is kept"
        # The residual stream, its norm, and the wider of MLP and attention.
        wider = size * rows * (2 * tower.width + max(inner + tower.mlp_width, 6 * tower.width))
        phases[FROZEN_TOWER] = (make_item("one block of the tower", wider, how),)
    return phases


def _logits(text: TextShape, load: StreamLoad, size: int, *, is_head_trained: bool) -> tuple[MemoryItem, MemoryItem]:
    """Return the logits of one chunk, forward and backward, with the output head's gradient if it is trained."""
    rows = min(load.num_predicted, max(1, CHUNK_ELEMENTS // text.vocab_size))
    chunk = FLOAT32 * rows * text.vocab_size
    # The weight's gradient is summed in float32 and then cast; a narrow one also needs the product of a chunk.
    narrow = size if size < FLOAT32 else 0
    head = (FLOAT32 + narrow) * text.vocab_size * text.width if is_head_trained else 0
    chunks = f"chunks of {rows:,} x {text.vocab_size:,} logits"
    return make_item("logits", LOGIT_COPIES * chunk, f"3 x 4 B x {chunks}"), make_item(
        "logits and the output head's gradient", head + GRAD_COPIES * chunk, f"2 x 4 B x {chunks}, 4 B x V x D"
    )


def _text_layer(
    block: BlockShape, text: TextShape, load: StreamLoad, size: int, kernel: Kernel, *, is_on_gpu: bool
) -> int:
    """Return the bytes that one block of the language model keeps for its backward pass."""
    kept = load.num_tokens * block.kept(size)
    if block.kind == "linear_attention":
        return kept + FLOAT32 * load.num_chunk_rows * block.chunked
    kept += FLOAT32 * load.num_tokens * text.num_heads  # a log-sum-exp a head
    if kernel == "own":
        # Keys and values of each query head, and a mask of a row's tokens by as many.
        kept += 2 * size * load.num_tokens * (block.queries - block.keys)
        kept += size * load.num_tokens * (load.prompt_tokens + load.completion_tokens - 1)
    if kernel == "sdpa":
        # Each completion has its own copy of its prompt's keys and values; on CUDA one per query head.
        width = block.queries if is_on_gpu else block.keys
        kept += 2 * size * load.branch_rows * width
        if is_on_gpu:
            kept += 2 * size * load.num_prompts * load.prompt_tokens * width
    return kept


def _tower_layer(block: BlockShape, tower: TowerShape, rows: int, size: int) -> int:
    """Return the bytes that one block of the vision tower keeps for its backward pass."""
    return rows * (block.kept(size) + FLOAT32 * tower.num_heads)


def picture_values(shape: ModelShape) -> float:
    """Return the float32 values that a processed image has for each row of the vision tower."""
    tower = shape.tower
    patches = tower.patches_per_tile or 1
    return tower.patch_values * patches / (patches + tower.class_tokens)


def _ends(shape: ModelShape, load: StreamLoad, rows: int, size: int, kernel: Kernel) -> int:
    """Return the bytes of the last norm, of predicting rows, and of what layers share: positions, pixels, masks."""
    text, tower = shape.text, shape.tower
    last_norm = (FLOAT32 + 2 * size) * load.num_tokens * text.width
    predicting = size * load.num_predicted * text.width
    positions = 2 * size * load.num_tokens * text.head_dim
    rotary = 2 * tower.width // tower.num_heads if tower.has_rotary else 0
    pixels = FLOAT32 * rows * (picture_values(shape) + rotary)
    branch = load.completion_tokens - 1
    bias = size * load.num_completions * branch * (load.prompt_tokens + branch) if kernel == "sdpa" else 0
    return last_norm + predicting + positions + round(pixels) + bias
