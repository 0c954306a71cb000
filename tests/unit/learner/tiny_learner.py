"""Makers shared by the learner's tests: a model folder, groups, configs, and several ranks at once."""

import io
import multiprocessing
import pickle
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from learner.config import AlgorithmConfig, LearnerConfig, OptimizerConfig
from learner.records import EncodedImage, ScoredGroup, ScoredSequence

VOCAB_SIZE = 512
VISION_START, VISION_END, IMAGE_TOKEN, VIDEO_TOKEN = 3, 4, 5, 6
TOKEN_PIXELS = 28
"""Side of the square of pixels that becomes one token: 2 x 2 patches of 14."""


PRELOADED = [
    "learner.trainer",
    "torch._dynamo",
    "torch._dynamo.testing",
    "torch._inductor.compile_fx",
    "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
    "transformers.models.qwen2_vl.image_processing_qwen2_vl",
]
"""Imports that take seconds: done once, in the server from which ranks are forked."""


def write_tiny_model(folder: Path) -> None:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

    torch.manual_seed(0)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": VOCAB_SIZE,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 512,
            "rope_parameters": rope,
            "bos_token_id": 0,
            "eos_token_id": 1,
            # Wide enough that attention is not uniform: errors in mask or positions then show in the logprobs.
            "initializer_range": 0.1,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "out_hidden_size": 64,
            "patch_size": 14,
            "window_size": 56,
            "fullatt_block_indexes": [1],
            "initializer_range": 0.1,
        },
        image_token_id=IMAGE_TOKEN,
        video_token_id=VIDEO_TOKEN,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
        tie_word_embeddings=True,
    )
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    Qwen2VLImageProcessor(min_pixels=TOKEN_PIXELS**2, max_pixels=(8 * TOKEN_PIXELS) ** 2).save_pretrained(folder)


def make_image(width: int, height: int, seed: int = 0) -> EncodedImage:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return EncodedImage(data=buffer.getvalue(), width=width, height=height)


def make_group(
    group_id: str,
    *,
    image_sizes: tuple[tuple[int, int], ...] = ((112, 112),),
    lengths: tuple[int, ...] = (5, 3, 1, 4),
    rewards: tuple[float, ...] | None = None,
    masked: tuple[bool, ...] | None = None,
    num_text_tokens: int = 7,
    seed: int = 0,
) -> ScoredGroup:
    """A group of random tokens; image sides are multiples of 28, so the number of image tokens is known."""
    rng = np.random.default_rng([seed, *group_id.encode()])

    def text(length: int) -> list[int]:
        return rng.integers(7, VOCAB_SIZE, length).tolist()

    prompt = text(2)
    for width, height in image_sizes:
        num_tokens = (width // TOKEN_PIXELS) * (height // TOKEN_PIXELS)
        prompt += [VISION_START, *[IMAGE_TOKEN] * num_tokens, VISION_END, *text(1)]
    prompt += text(num_text_tokens)
    rewards = rewards or tuple(float(i % 2) for i in range(len(lengths)))
    masked = masked or (False,) * len(lengths)
    sequences = tuple(
        ScoredSequence(
            completion_token_ids=text(length),
            behaviour_logprobs=rng.normal(-6.0, 0.5, length),
            reward=reward,
            breakdown={"match": reward},
            weight_version=0,
            truncated=False,
            masked=is_masked,
        )
        for length, reward, is_masked in zip(lengths, rewards, masked, strict=True)
    )
    return ScoredGroup(
        group_id=group_id,
        sample_id=group_id,
        source="test",
        task="match_text",
        prompt_token_ids=prompt,
        images=tuple(make_image(w, h, seed=i + len(group_id)) for i, (w, h) in enumerate(image_sizes)),
        sequences=sequences,
    )


def mixed_groups() -> list[ScoredGroup]:
    """Images of several sizes, two images, no image, one-token completions, one completion."""
    return [
        make_group("square"),
        make_group("wide", image_sizes=((140, 84),), lengths=(2, 9, 4)),
        make_group("pair", image_sizes=((56, 84), (112, 28)), lengths=(1, 1, 6, 2)),
        make_group("text", image_sizes=(), lengths=(3, 8)),
    ]


def make_config(model_path: Path, **changes: Any) -> LearnerConfig:
    algorithm = changes.pop("algorithm", {})
    optimizer = {"learning_rate": 1e-3, **changes.pop("optimizer", {})}
    return LearnerConfig(
        model_path=str(model_path),
        algorithm=AlgorithmConfig(**algorithm),
        optimizer=OptimizerConfig(**optimizer),
        **changes,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_ranks(num_ranks: int, function: Callable[..., Any], folder: Path, *arguments: Any) -> list[Any]:
    """Run `function(rank, num_ranks, port, *arguments)` in one process a rank; gives what each returned."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    processes = [
        context.Process(target=_call, args=(function, rank, num_ranks, port, folder, arguments))
        for rank in range(num_ranks)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * num_ranks
    return [pickle.loads((folder / f"rank_{rank}.pickle").read_bytes()) for rank in range(num_ranks)]


def _call(function: Callable[..., Any], rank: int, num_ranks: int, port: int, folder: Path, arguments: Any) -> None:
    result = function(rank, num_ranks, port, *arguments)
    (folder / f"rank_{rank}.pickle").write_bytes(pickle.dumps(result))
