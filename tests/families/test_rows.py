"""Rows of the generic path against transformers' own forward on each sequence alone, for every family that takes it."""

import torch
from test_generic_family import plain_logprobs, vision_groups
from transformers import AutoProcessor

from tests.families.packing import pack


def takes(case):
    return case.is_padded


def test_rows_equal_each_sequence_alone_in_logprobs_and_gradients(case, folder, policy, plain, encoder, differences):
    processor = AutoProcessor.from_pretrained(folder)
    groups = vision_groups(processor)
    batch = pack(policy, encoder, groups)
    weights = batch.advantages * batch.token_weights * (1.0 + torch.arange(len(batch.advantages)) % 7)

    logprobs, _ = policy(batch)
    (logprobs * weights).sum().backward()
    expected = plain_logprobs(plain, groups, processor)
    (expected * weights).sum().backward()

    differences.check("rows = alone: logprobs", case.name, logprobs, expected, atol=case.atol)
    found = {name: p.grad for name, p in policy.hf_model.named_parameters()}
    wanted = {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}
    scale = max(1.0, *(float(gradient.abs().max()) for gradient in wanted.values()))
    assert {name for name, gradient in found.items() if gradient is not None} == wanted.keys()
    for name, gradient in wanted.items():
        differences.check("rows = alone: gradients", case.name, found[name] / scale, gradient / scale, atol=case.atol)
