"""Packed against right-padded, prefix-shared against packed, one vision pass a group against one a completion.

    python -m tests.benchmarks.learner_layouts [--rounds 5] [--threads 1]

Forward and backward pass of a Qwen2.5-VL with random weights. The right-padded batch is transformers' own forward pass
with torch's SDPA and the same chunked logprobs over the same completion tokens.
"""

import argparse
from collections.abc import Sequence

import numpy as np
import torch

from learner.algorithms.logprobs import token_logprobs
from learner.attention.sdpa import SdpaKernel
from learner.families.base import join_images
from learner.policy.model import Policy
from learner.records import ScoredGroup
from tests.benchmarks.learner_batch import (
    IMAGE_TOKEN,
    alternate,
    forward_backward,
    make_encoder,
    make_group,
    make_policy,
    micro_batches,
    qwen_config,
    ratio_line,
)

VOCAB = 2048
KERNEL = SdpaKernel()
NUM_SKEWED = 64


def padded_step(policy: Policy, groups: Sequence[ScoredGroup], *, attention: str) -> None:
    """One right-padded batch of all sequences; an image stands as often as its prompt."""
    model = policy.hf_model
    model.set_attn_implementation({"text_config": attention, "vision_config": "sdpa"})
    rows = [
        np.concatenate([group.prompt_token_ids, sequence.completion_token_ids]).astype(np.int64)
        for group in groups
        for sequence in group.sequences
    ]
    lengths = [sequence.num_tokens for group in groups for sequence in group.sequences]
    longest = max(map(len, rows))
    ids = torch.tensor(np.stack([np.pad(row, (0, longest - len(row)), constant_values=1) for row in rows]))
    mask = torch.tensor(np.stack([np.arange(longest) < len(row) for row in rows])).long()
    inputs = {"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": (ids == IMAGE_TOKEN).int()}
    encoded = zip(groups, make_encoder(policy).encode(groups), strict=True)
    images = [image for group, image in encoded for _ in group.sequences if image is not None]
    if images:
        joined = join_images(images)
        inputs |= {"pixel_values": joined.pixel_values, "image_grid_thw": joined.grids}
    policy.zero_grad()
    hidden = model.model(**inputs, use_cache=False).last_hidden_state
    spots = [
        (i, j) for i, (row, n) in enumerate(zip(rows, lengths, strict=True)) for j in range(len(row) - n, len(row))
    ]
    which, where = (torch.tensor(values) for values in zip(*spots, strict=True))
    logprobs, _ = token_logprobs(hidden[which, where - 1], model.lm_head.weight, ids[which, where])
    (logprobs * 1e-3).sum().backward()


def tower_step(policy: Policy, group: ScoredGroup, copies: int) -> None:
    """The tower alone, forward and backward, on the image of a group as often as it is told."""
    [image] = make_encoder(policy).encode([group])
    assert image is not None
    inputs = join_images([image] * copies)
    policy.zero_grad()
    policy.family.image_features(policy.hf_model, inputs.pixel_values, inputs.grids).sum().backward()


def main() -> None:
    """Print the ratios, each from one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = qwen_config(width=256, layers=4, vision_width=128, vision_layers=4, vocab_size=VOCAB)
    policy = make_policy(config, KERNEL)
    ours = f"mixed_r1_{KERNEL.name}"

    def stream(groups: Sequence[ScoredGroup], sharing: str) -> None:
        policy.hf_model.set_attn_implementation({"text_config": ours, "vision_config": "sdpa"})
        forward_backward(policy, micro_batches(policy, KERNEL, groups, sharing=sharing, tokens=8192))

    print(f"Qwen2.5-VL, {sum(p.numel() for p in policy.parameters()) / 1e6:.1f} M parameters, float32, ", end="")
    print(f"{options.threads} thread(s), median of {options.rounds} alternating rounds\n")

    lengths = np.clip(np.random.default_rng(0).lognormal(4.0, 1.0, NUM_SKEWED), 1, 1024).astype(int)
    skewed = [
        make_group(f"s{i}", lengths=[length], prompt_tokens=50, image_side=0, vocab_size=VOCAB)
        for i, length in enumerate(lengths)
    ]
    tokens, padded = int(lengths.sum()) + 50 * NUM_SKEWED, NUM_SKEWED * (50 + int(lengths.max()))
    print(
        f"{NUM_SKEWED} sequences, prompts of 50, log-normal completions of {lengths.min()} to {lengths.max()}: ", end=""
    )
    print(f"{tokens:,} tokens, {padded:,} with padding")
    variants = {
        "right-padded": lambda: padded_step(policy, skewed, attention="sdpa"),
        "packed": lambda: stream(skewed, "never"),
    }
    print(ratio_line("right-padded", "packed", alternate(variants, options.rounds)), end="\n\n")

    shared = [
        make_group(f"g{i}", lengths=[100] * 8, prompt_tokens=300, image_side=448, vocab_size=VOCAB) for i in range(2)
    ]
    print("2 groups of 8, prompts of 300 tokens of which 256 are an image, completions of 100")
    variants = {
        "right-padded, image repeated": lambda: padded_step(policy, shared, attention="sdpa"),
        "packed": lambda: stream(shared, "never"),
        "prefix-shared": lambda: stream(shared, "always"),
    }
    seconds = alternate(variants, options.rounds)
    print(ratio_line("packed", "prefix-shared", seconds))
    print(ratio_line("right-padded, image repeated", "prefix-shared", seconds), end="\n\n")

    print("vision tower alone, forward and backward, one image of 448 x 448, G = 8")
    variants = {
        "once a completion": lambda: tower_step(policy, shared[0], 8),
        "once a group": lambda: tower_step(policy, shared[0], 1),
    }
    print(ratio_line("once a completion", "once a group", alternate(variants, options.rounds)))


if __name__ == "__main__":
    main()
