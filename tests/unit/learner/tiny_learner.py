"""Makers shared by the learner's tests: a model folder, groups, configs, and several ranks at once."""

import io
import multiprocessing
import multiprocessing.connection
import pickle
import random
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from learner.config import AlgorithmConfig, LearnerConfig, OptimizerConfig
from learner.records import ScoredGroup, ScoredSequence
from tests.families.case import IMAGE_TOKEN, VISION_END, VISION_START, VOCAB_SIZE, find_cases, write_model

PRELOADED = [
    "learner.training.trainer",
    "torch._dynamo",
    "transformers.models.internvl.modeling_internvl",
    "transformers.models.got_ocr2.image_processing_got_ocr2",
    "transformers.models.qwen2.modeling_qwen2",
    "torch._dynamo.testing",
    "torch._inductor.compile_fx",
    "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
    "transformers.models.qwen3_vl_moe.modeling_qwen3_vl_moe",
    "transformers.models.qwen2_vl.image_processing_qwen2_vl",
]
"""Imports that take seconds: done once, in the server from which ranks are forked."""

FAMILIES = ("qwen2_5_vl", "internvl", "qwen3_vl_moe")
"""Of the tests that are of no family; what is proved of each one is in tests/families."""
CASES = find_cases()


def write_tiny_model(folder: Path, family: str = "qwen2_5_vl", *, tie_word_embeddings: bool = True) -> None:
    write_model(folder, CASES[family], tie_word_embeddings=tie_word_embeddings)


def make_image(width: int, height: int, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def make_group(
    group_id: str,
    *,
    image_sizes: tuple[tuple[int, int], ...] = ((112, 112),),
    lengths: tuple[int, ...] = (5, 3, 1, 4),
    rewards: tuple[float, ...] | None = None,
    masked: tuple[bool, ...] | None = None,
    num_text_tokens: int = 7,
    seed: int = 0,
    family: str = "qwen2_5_vl",
) -> ScoredGroup:
    """A group of random tokens; image sides are multiples of 28, so the number of image tokens is known.

    Language models get none.
    """
    rng = np.random.default_rng([seed, *group_id.encode()])

    def text(length: int) -> list[int]:
        return rng.integers(7, VOCAB_SIZE, length).tolist()

    prompt, image_sizes = text(2), image_sizes if CASES[family].takes_images else ()
    for width, height in image_sizes:
        num_tokens = CASES[family].num_image_tokens(width, height)
        prompt += [VISION_START, *[IMAGE_TOKEN] * num_tokens, VISION_END, *text(1)]
    prompt += text(num_text_tokens)
    rewards = rewards or tuple(float(i % 2) for i in range(len(lengths)))
    masked = masked or (False,) * len(lengths)
    sequences = tuple(
        ScoredSequence(
            completion_token_ids=text(length),
            behaviour_logprobs=rng.normal(-6.0, 0.5, length),
            reward=reward,
            truncated=False,
            masked=is_masked,
            parts=(reward, float(index % 3 == 0)),
        )
        for index, (length, reward, is_masked) in enumerate(zip(lengths, rewards, masked, strict=True))
    )
    return ScoredGroup(
        group_id=group_id,
        task="match_text",
        prompt_token_ids=prompt,
        images=tuple(make_image(w, h, seed=i + len(group_id)) for i, (w, h) in enumerate(image_sizes)),
        sequences=sequences,
        parts=(("task", 1.0), ("format", 0.5)),
    )


def mixed_groups(family: str = "qwen2_5_vl") -> list[ScoredGroup]:
    """Images of several sizes, two images, no image, one-token completions, one completion."""
    return [
        make_group("square", family=family),
        make_group("wide", image_sizes=((140, 84),), lengths=(2, 9, 4), family=family),
        make_group("pair", image_sizes=((56, 84), (112, 28)), lengths=(1, 1, 6, 2), family=family),
        make_group("text", image_sizes=(), lengths=(3, 8), family=family),
        make_group("single", image_sizes=((84, 84),), lengths=(5,), family=family),
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
    """A port that nobody listens on, and below those that the system gives away: it is still free minutes later."""
    first_given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    draw = random.SystemRandom()
    while True:
        port = draw.randrange(10_000, max(11_000, first_given))
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def run_ranks(num_ranks: int, function: Callable[..., Any], folder: Path, *arguments: Any) -> list[Any]:
    """Run `function(rank, num_ranks, port, *arguments)` in one process a rank; gives what each returned.

    A process may start several trainers one after the other, with a port of its own for each: see `free_port`.
    """
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
    running = set(processes)
    while running:
        multiprocessing.connection.wait([process.sentinel for process in running])
        running = {process for process in running if process.is_alive()}
        if any(process.exitcode for process in processes):
            for process in running:  # it would wait for the one that failed
                process.kill()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * num_ranks
    return [pickle.loads((folder / f"rank_{rank}.pickle").read_bytes()) for rank in range(num_ranks)]


def _call(function: Callable[..., Any], rank: int, num_ranks: int, port: int, folder: Path, arguments: Any) -> None:
    result = function(rank, num_ranks, port, *arguments)
    (folder / f"rank_{rank}.pickle").write_bytes(pickle.dumps(result))
