"""Prefix-shared against packed for the layers of Qwen3.5: three gated delta nets and one of full attention.

    python -m tests.benchmarks.linear_layers [--rounds 5] [--threads 1] [--width 256]

Forward and backward pass with random weights, float32, with torch's own gated delta rule. One group of 8: a prompt of
300 text tokens, completions of 64.
"""

import argparse
from typing import Any

import torch

from learner.attention.sdpa import SdpaKernel
from tests.benchmarks.learner_batch import (
    IMAGE_TOKEN,
    VIDEO_TOKEN,
    VISION_END,
    VISION_START,
    alternate,
    forward_backward,
    make_group,
    make_policy,
    micro_batches,
    ratio_line,
)

VOCAB = 2048
PROMPT, COMPLETION, GROUP = 300, 64, 8
KERNEL = SdpaKernel()


def config(width: int) -> Any:
    """Return a Qwen3.5 configuration of 4 layers in the proportions of the 0.8B, with linear heads of 64."""
    from transformers import Qwen3_5Config

    rope = {
        "rope_type": "default",
        "rope_theta": 1e7,
        "partial_rotary_factor": 0.25,
        "mrope_section": [3, 3, 2],
        "mrope_interleaved": True,
    }
    return Qwen3_5Config(
        text_config={
            "vocab_size": VOCAB,
            "hidden_size": width,
            "intermediate_size": 7 * width // 2,
            "num_hidden_layers": 4,
            "num_attention_heads": width // 64,
            "num_key_value_heads": width // 128,
            "head_dim": 64,
            "linear_key_head_dim": 64,
            "linear_value_head_dim": 64,
            "linear_num_key_heads": width // 32,
            "linear_num_value_heads": width // 32,
            "rope_parameters": rope,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 1,
            "out_hidden_size": width,
            "patch_size": 14,
            "num_position_embeddings": 16,
        },
        image_token_id=IMAGE_TOKEN,
        video_token_id=VIDEO_TOKEN,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
        tie_word_embeddings=False,
    )


def main() -> None:
    """Print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--width", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    policy = make_policy(config(options.width), KERNEL)
    groups = [make_group("g", lengths=[COMPLETION] * GROUP, prompt_tokens=PROMPT, image_side=0, vocab_size=VOCAB)]
    batches = {
        name: micro_batches(policy, KERNEL, groups, sharing=sharing, tokens=8192)
        for name, sharing in (("packed", "never"), ("prefix-shared", "always"))
    }
    print(f"Qwen3.5, 4 layers, {sum(p.numel() for p in policy.parameters()) / 1e6:.1f} M parameters, float32, ", end="")
    print(f"{options.threads} thread(s), median of {options.rounds} alternating rounds")
    print(f"a group of {GROUP}, a prompt of {PROMPT} tokens, completions of {COMPLETION}: ", end="")
    print(
        ", ".join(f"{name} {sum(b.inputs.input_ids.shape[1] for b in own):,} tokens" for name, own in batches.items())
    )
    variants = {name: lambda own=own: forward_backward(policy, own) for name, own in batches.items()}
    print(ratio_line("packed", "prefix-shared", alternate(variants, options.rounds)))


if __name__ == "__main__":
    main()
