"""The independent reference: transformers' own forward pass, eager attention, one right-padded batch of sequences."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tiny_learner import CASES

from learner.attention.kernel import AttentionKernel
from learner.attention.sdpa import SdpaKernel
from learner.families.base import ImageInputs
from learner.policy.model import Policy
from learner.policy.source import FolderSource, PretrainedWeights
from learner.records import ScoredGroup


def load_plain(model_path: Path, family: str = "qwen2_5_vl") -> torch.nn.Module:
    model: torch.nn.Module = CASES[family].model_class.from_pretrained(
        model_path, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    )
    return model


def padded_logprobs(
    model: torch.nn.Module,
    sequences: Sequence[tuple[ScoredGroup, ImageInputs | None, int]],
    *,
    temperature: float,
    banned_token_ids: Sequence[int] = (),
    family: str = "qwen2_5_vl",
) -> list[torch.Tensor]:
    """Logprobs [T] of each (group, images, index), all in one padded batch, images repeated for every sequence."""
    rows = [
        np.concatenate([group.prompt_token_ids, group.sequences[index].completion_token_ids]).astype(np.int64)
        for group, _, index in sequences
    ]
    longest = max(map(len, rows))
    ids = torch.tensor(np.stack([np.pad(row, (0, longest - len(row)), constant_values=1) for row in rows]))
    mask = torch.tensor(np.stack([np.arange(longest) < len(row) for row in rows])).long()
    inputs = {"input_ids": ids, "attention_mask": mask}
    images = [image for _, image, _ in sequences if image is not None]
    if images:
        inputs["pixel_values"] = torch.cat([image.pixel_values for image in images])
        inputs |= CASES[family].plain_inputs(ids, torch.cat([image.grids for image in images]))
    logits = model(**inputs, use_cache=False).logits.float() / temperature
    logits[..., list(banned_token_ids)] = -torch.inf
    log_softmax = torch.log_softmax(logits, -1)
    found = []
    for row, (group, _, index), scores in zip(rows, sequences, log_softmax, strict=True):
        length = group.sequences[index].num_tokens
        target = torch.tensor(row[len(row) - length :])
        found.append(scores[len(row) - length - 1 : len(row) - 1].gather(-1, target[:, None])[:, 0])
    return found


def whole_policy(
    model_path: Path,
    *,
    kernel: AttentionKernel | None = None,
    temperature: float = 1.0,
    banned_token_ids: Sequence[int] = (),
    own_family: str | None = None,
) -> Policy:
    """Our policy with all its weights in this process, without a backend."""
    source = FolderSource(
        model_path,
        kernel or SdpaKernel(),
        temperature=temperature,
        banned_token_ids=banned_token_ids,
        own_family=own_family,
    )
    policy = source.skeleton()
    weights = PretrainedWeights(model_path, policy.hf_model)
    buffers = {name: buffer.clone() for name, buffer in policy.named_buffers()}
    policy.to_empty(device="cpu")
    policy.hf_model.tie_weights()
    with torch.no_grad():
        for name, parameter in policy.hf_model.named_parameters():
            parameter.copy_(weights.rows(name))
        for name, buffer in policy.named_buffers():
            buffer.copy_(buffers[name])
    return policy
