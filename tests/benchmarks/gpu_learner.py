"""Training steps of Qwen2.5-VL-3B and 7B shapes with random weights on one GPU: tokens/s, MFU, peak memory, by part.

    python -m tests.benchmarks.gpu_learner [--shapes 3b,7b] [--kernels sdpa,flex] [--groups 16] [--steps 2]

Needs neither Ray nor vLLM nor a checkpoint; `--device cpu --shapes tiny --groups 1` tries the program itself. The
vision tower is frozen, as conf/learner/fsdp_gpu.yaml has it: a 7B with float32 master weights and AdamW fills a GPU of
141 GB. MFU counts 6 floating-point operations per trained weight and token, 2 per frozen one, and 12 per head dimension
and visible pair; recomputation is not counted.
"""

import argparse
import json
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from learner.algorithms.registry import get_algorithm
from learner.attention.kernel import AttentionKernel
from learner.backends.fsdp import FsdpBackend
from learner.config import AlgorithmConfig, LearnerConfig, OptimizerConfig
from learner.families.registry import get_family
from learner.policy.model import Policy, build_skeleton, choose_kernel
from learner.policy.packing import MicroBatchBuilder
from learner.records import ScoredGroup
from learner.training.step import StepRunner
from tests.benchmarks.learner_batch import IMAGE_TOKEN, VIDEO_TOKEN, VISION_END, VISION_START, make_encoder, make_group

PEAK_FLOPS = {"NVIDIA H200": 989e12, "NVIDIA H100": 989e12, "NVIDIA A100": 312e12}
"""bfloat16 without sparsity, from the makers' data sheets."""
VOCAB = 151_936
SHAPES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "heads": 2, "kv_heads": 1},
    "3b": {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "heads": 16, "kv_heads": 2},
    "7b": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "heads": 28, "kv_heads": 4},
}
TOWERS = {
    "tiny": {"depth": 2, "hidden_size": 64, "num_heads": 2, "intermediate_size": 64, "fullatt_block_indexes": [1]}
}
"""Where it is not the published tower, which is the same in all sizes."""
IMAGE_SIDE = 784
PROMPT_TOKENS = 900


def shape_config(name: str) -> Any:
    """Give the configuration of a published size, or of the tiny one."""
    from transformers import Qwen2_5_VLConfig

    shape = dict(SHAPES[name])
    heads, kv_heads = shape.pop("heads"), shape.pop("kv_heads")
    return Qwen2_5_VLConfig(
        text_config={
            **shape,
            "vocab_size": VOCAB,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "max_position_embeddings": 32768,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
            "bos_token_id": 0,
            "eos_token_id": 1,
        },
        vision_config={"out_hidden_size": shape["hidden_size"], **TOWERS.get(name, {})},
        image_token_id=IMAGE_TOKEN,
        video_token_id=VIDEO_TOKEN,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
        tie_word_embeddings=name == "3b",
    )


class RandomWeights:
    """Small numbers of the right shape; rows repeat, which costs no time to draw and changes no speed."""

    def __init__(self, policy: Policy) -> None:
        """Know the shapes."""
        self._shapes = {name: parameter.shape for name, parameter in policy.hf_model.named_parameters()}

    def dtype(self, name: str) -> torch.dtype:
        """Return the type of published weights."""
        return torch.bfloat16

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Give some rows."""
        if len(self._shapes[name]) == 1:
            return torch.ones((stop or self._shapes[name][0]) - start)
        row = 0.02 * torch.randn(1, *self._shapes[name][1:])
        return row.expand((stop or self._shapes[name][0]) - start, *row.shape[1:])


class RandomSource:
    """Policies of a configuration."""

    def __init__(self, config: Any, kernel: AttentionKernel) -> None:
        """Keep both."""
        self._config = config
        self._kernel = kernel

    def skeleton(self) -> Policy:
        return build_skeleton(self._config, get_family(self._config), self._kernel, temperature=1.0)

    def weights(self, policy: Policy) -> RandomWeights:
        return RandomWeights(policy)


def step_flops(policy: Policy, groups: Sequence[ScoredGroup]) -> float:
    """Count the floating-point operations of one step with shared prompts; see the top of this file."""
    model, text = policy.hf_model, policy.hf_model.config.text_config
    in_blocks = sum(p.numel() for p in model.model.language_model.layers.parameters())
    in_tower = sum(p.numel() for p in model.model.visual.parameters())
    flops = 0.0
    for group in groups:
        prompt = len(group.prompt_token_ids)
        fed = [sequence.num_tokens - 1 for sequence in group.sequences]
        pairs = prompt**2 / 2 + sum(length * prompt + length**2 / 2 for length in fed)
        flops += 6.0 * in_blocks * (prompt + sum(fed))
        flops += 6.0 * VOCAB * text.hidden_size * group.num_completion_tokens
        flops += 12.0 * text.hidden_size * text.num_hidden_layers * pairs
        # Every token of an image is four patches.
        flops += 2.0 * in_tower * 4 * int((group.prompt_token_ids == IMAGE_TOKEN).sum())
    return flops


def make_groups(number: int) -> list[ScoredGroup]:
    """Groups of 8 with log-normal completions around 400 tokens."""
    lengths = np.clip(np.random.default_rng(0).lognormal(6.0, 0.6, (number, 8)), 16, 2048).astype(int)
    return [
        make_group(f"g{i}", lengths=own, prompt_tokens=PROMPT_TOKENS, image_side=IMAGE_SIDE, vocab_size=VOCAB)
        for i, own in enumerate(lengths.tolist())
    ]


def measure(
    shape: str, kernel_name: str, sharing: str, *, num_groups: int, num_steps: int, tokens: int, device: torch.device
) -> dict[str, Any]:
    """Train some steps; give what was measured."""
    config = LearnerConfig(
        optimizer=OptimizerConfig(learning_rate=1e-6),
        algorithm=AlgorithmConfig(aggregation="token"),
        device=device.type,  # type: ignore[arg-type]
        dtype="bfloat16",
        attention=kernel_name,  # type: ignore[arg-type]
        prefix_sharing=sharing,  # type: ignore[arg-type]
        micro_batch_tokens=tokens,
        activation_checkpointing=True,
        freeze=("vision_tower", "projector"),
    )
    kernel = choose_kernel(kernel_name, device=device, dtype=torch.bfloat16)
    backend = FsdpBackend(config, device, RandomSource(shape_config(shape), kernel))
    family = backend.policy.family
    runner = StepRunner(
        config,
        get_algorithm("grpo", aggregation="token"),
        backend=backend,
        images=make_encoder(backend.policy),
        builder=MicroBatchBuilder(family, kernel, device=device, dtype=torch.bfloat16),
        seed=0,
    )
    groups = make_groups(num_groups)
    runner.run(groups, step=0, learning_rate=1e-6)
    synchronize(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    started, parts = time.perf_counter(), dict[str, float]()
    for step in range(1, num_steps + 1):
        metrics, seconds = runner.run(groups, step=step, learning_rate=1e-6)
        synchronize(device)
        parts = {name: parts.get(name, 0.0) + value / num_steps for name, value in seconds.items()}
    step_s = (time.perf_counter() - started) / num_steps
    sync_started = time.perf_counter()
    num_bytes = sum(tensor.nbytes for _, tensor in backend.full_tensors())
    synchronize(device)
    sync_s = time.perf_counter() - sync_started
    flops = step_flops(backend.policy, groups)
    peak = next((value for name, value in PEAK_FLOPS.items() if device_name(device).startswith(name)), None)
    completion = sum(group.num_completion_tokens for group in groups)
    repeated = completion + sum(len(group.prompt_token_ids) * len(group.sequences) for group in groups)
    return {
        "shape": shape,
        "attention": kernel.name,
        "sharing": sharing,
        "step_s": round(step_s, 2),
        "parts_s": {name: round(value, 2) for name, value in parts.items()},
        "completion_tokens_per_s": round(completion / step_s),
        "fed_tokens_per_s": round(metrics["learner/num_forward_tokens"] / step_s),
        "sequence_tokens_per_s": round(repeated / step_s),
        "mfu": None if peak is None else round(flops / step_s / peak, 3),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1) if device.type == "cuda" else None,
        "sync_s": round(sync_s, 2),
        "sync_gib": round(num_bytes / 2**30, 1),
        "loss": metrics["policy/loss"],
    }


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def device_name(device: torch.device) -> str:
    """Give the maker's name of a GPU."""
    return torch.cuda.get_device_name() if device.type == "cuda" else "CPU"


def main() -> None:
    """Measure every combination and print one JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="3b,7b")
    parser.add_argument("--kernels", default="sdpa,flex")
    parser.add_argument("--sharing", default="always,never")
    parser.add_argument("--groups", type=int, default=16)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    options = parser.parse_args()
    device = torch.device(options.device)
    store = dist.TCPStore("127.0.0.1", 0, 1, is_master=True, timeout=timedelta(minutes=5))
    backends = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backends, store=store, rank=0, world_size=1)
    print(json.dumps({"name": device_name(device), "torch": torch.__version__, **vars(options)}), flush=True)
    for shape in options.shapes.split(","):
        for kernel in options.kernels.split(","):
            for sharing in options.sharing.split(","):
                try:
                    found = measure(
                        shape,
                        kernel,
                        sharing,
                        num_groups=options.groups,
                        num_steps=options.steps,
                        tokens=options.tokens,
                        device=device,
                    )
                except torch.OutOfMemoryError as error:
                    found = {"shape": shape, "attention": kernel, "sharing": sharing, "out_of_memory": str(error)[:200]}
                print(json.dumps(found), flush=True)
                if device.type == "cuda":
                    torch.cuda.empty_cache()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
