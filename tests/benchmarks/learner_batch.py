"""What the learner benchmarks share: models of a given size, groups of random tokens, paired timing."""

import io
import resource
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from learner.attention.kernel import AttentionKernel, register_kernel
from learner.batching import Piece, TrainSequence, make_pieces, plan_micro_batches
from learner.families.base import ImageInputs
from learner.families.registry import get_family
from learner.policy.images import ImageEncoder
from learner.policy.model import Policy
from learner.policy.packing import MicroBatch, MicroBatchBuilder
from learner.records import ScoredGroup, ScoredSequence

VISION_START, VISION_END, IMAGE_TOKEN, VIDEO_TOKEN = 3, 4, 5, 6
TOKEN_PIXELS = 28


def qwen_config(*, width: int, layers: int, vision_width: int, vision_layers: int, vocab_size: int) -> Any:
    """Give a Qwen2.5-VL configuration of heads of 64 (text) and 32 (vision)."""
    from transformers import Qwen2_5_VLConfig

    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": vocab_size,
            "hidden_size": width,
            "intermediate_size": 3 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": width // 64,
            "num_key_value_heads": max(1, width // 128),
            "max_position_embeddings": 8192,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]},
            "bos_token_id": 0,
            "eos_token_id": 1,
        },
        vision_config={
            "depth": vision_layers,
            "hidden_size": vision_width,
            "intermediate_size": 3 * vision_width,
            "num_heads": vision_width // 32,
            "out_hidden_size": width,
            "fullatt_block_indexes": [vision_layers - 1],
        },
        image_token_id=IMAGE_TOKEN,
        video_token_id=VIDEO_TOKEN,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
        tie_word_embeddings=False,
    )


def make_policy(config: Any, kernel: AttentionKernel) -> Policy:
    """Build a policy with random weights on the CPU."""
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    family = get_family(config)
    model.set_attn_implementation({"text_config": register_kernel(kernel), "vision_config": "sdpa"})
    family.prepare(model)
    return Policy(model, family, temperature=1.0)


def make_encoder(policy: Policy) -> ImageEncoder:
    """Give Qwen2.5-VL's image processing."""
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

    processor = Qwen2VLImageProcessor(min_pixels=TOKEN_PIXELS**2, max_pixels=(64 * TOKEN_PIXELS) ** 2)
    return ImageEncoder(processor, policy.family)


def make_group(
    name: str,
    *,
    lengths: Sequence[int],
    prompt_tokens: int,
    image_side: int,
    vocab_size: int,
    image_token: int = IMAGE_TOKEN,
    seed: int = 0,
) -> ScoredGroup:
    """Give a group of random completions.

    Args:
        name: group id.
        lengths: tokens of each completion.
        prompt_tokens: of the whole prompt, image included.
        image_side: pixels, a multiple of 28; 0 is no image.
        vocab_size: token ids are below it.
        image_token: its id.
        seed: of tokens and pixels.
    """
    rng = np.random.default_rng([seed, *name.encode()])
    images: tuple[bytes, ...] = ()
    prompt: list[int] = []
    if image_side:
        pixels = rng.integers(0, 255, (image_side, image_side, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG")
        images = (buffer.getvalue(),)
        prompt = [VISION_START, *[image_token] * (image_side // TOKEN_PIXELS) ** 2, VISION_END]
    prompt += rng.integers(7, vocab_size, prompt_tokens - len(prompt)).tolist()
    return ScoredGroup(
        group_id=name,
        task="chart",
        prompt_token_ids=prompt,
        images=images,
        sequences=tuple(
            ScoredSequence(
                completion_token_ids=rng.integers(7, vocab_size, length),
                behaviour_logprobs=np.full(length, -6.0),
                reward=float(i % 2),
                truncated=False,
            )
            for i, length in enumerate(lengths)
        ),
    )


def micro_batches(
    policy: Policy,
    kernel: AttentionKernel,
    groups: Sequence[ScoredGroup],
    *,
    sharing: str,
    tokens: int,
    device: torch.device = torch.device("cpu"),  # noqa: B008
    dtype: torch.dtype = torch.float32,
) -> list[MicroBatch]:
    """Lay groups out as the learner does."""
    builder = MicroBatchBuilder(policy.family, kernel, device=device, dtype=dtype)
    pieces: list[Piece] = []
    images: dict[str, ImageInputs | None] = {}
    for group, image in zip(groups, make_encoder(policy).encode(groups), strict=True):
        sequences = [
            TrainSequence(index=i, advantages=np.ones(s.num_tokens, dtype=np.float32), token_weight=1e-3)
            for i, s in enumerate(group.sequences)
        ]
        pieces += make_pieces(group, sequences, micro_batch_tokens=tokens, prefix_sharing=sharing)
        images[group.group_id] = image
    return [
        builder.build(planned, [images[piece.group.group_id] for piece in planned])
        for planned in plan_micro_batches(pieces, tokens)
    ]


def forward_backward(policy: Policy, batches: Sequence[MicroBatch]) -> None:
    """Run a step's micro-batches; gradients add up."""
    policy.zero_grad()
    for batch in batches:
        logprobs, _ = policy(batch)
        (logprobs * batch.token_weights).sum().backward()


def alternate(variants: dict[str, Callable[[], object]], rounds: int) -> dict[str, np.ndarray]:
    """Time variants in turn, so that what disturbs the machine disturbs all; seconds [rounds] of each."""
    for run in variants.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return {name: np.array(values) for name, values in seconds.items()}


def ratio_line(slow: str, fast: str, seconds: dict[str, np.ndarray]) -> str:
    """Say how much faster one is: median of the rounds' ratios, and their range."""
    ratios = seconds[slow] / seconds[fast]
    return (
        f"{slow:<34} {1e3 * np.median(seconds[slow]):9.1f} ms\n{fast:<34} {1e3 * np.median(seconds[fast]):9.1f} ms\n"
        f"{'  ratio':<34} {np.median(ratios):9.2f}     (rounds: {ratios.min():.2f} to {ratios.max():.2f})"
    )


def resident_mib() -> float:
    """Give the largest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
