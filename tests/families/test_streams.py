"""Packed and prefix-shared streams against transformers' own forward on right-padded sequences, for every family.

Rows of the generic path are in test_rows.py.
"""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from plain_model import padded_logprobs, whole_policy
from tiny_learner import make_group, mixed_groups

from learner.attention.sdpa import SdpaKernel
from learner.errors import LearnerError
from learner.policy.packing import MicroBatchBuilder
from tests.families.case import IMAGE_TOKEN
from tests.families.conftest import TEMPERATURE
from tests.families.packing import CPU, pack

NAMES = {"always": "prefix-shared = padded", "never": "packed = padded", "auto": "auto = padded"}
ALL = ("square", "wide", "pair", "text", "single")


def takes(case):
    return not case.is_padded


def test_raw_logprobs_know_neither_temperature_nor_banned_tokens(folder, family, own_family, encoder):
    """Engines score given tokens so; the policy itself is what they sample from."""
    banned = [IMAGE_TOKEN]
    policy = whole_policy(folder, temperature=TEMPERATURE, banned_token_ids=banned, own_family=own_family)
    batch = pack(policy, encoder, [group for group in mixed_groups(family) if group.group_id == "text"])

    with torch.no_grad():
        sampled_from, raw = policy(batch)[0], policy(batch, is_raw=True)[0]
        plain = whole_policy(folder, own_family=own_family)(batch)[0]

    assert torch.equal(raw, plain)
    assert (sampled_from - raw).abs().max() > 0.01


def weighted_sum(logprobs, batch):
    """A loss that tells every token from every other."""
    return (logprobs * batch.advantages * batch.token_weights * (1.0 + torch.arange(len(logprobs)) % 7)).sum()


@pytest.mark.parametrize(
    ("sharing", "names"),
    [
        *product(("always", "never"), [("square",), ("text",), ("pair",), ("text", "wide"), ALL]),
        ("auto", ALL),
    ],
)
def test_stream_equals_padded_batch_in_logprobs_and_gradients(
    policy, plain, encoder, case, names, sharing, differences
):
    """The padded batch repeats each image for every completion; the stream runs the tower once a group."""
    family, atol = case.name, case.atol
    groups = [group for group in mixed_groups(family) if group.group_id in names]
    batch = pack(policy, encoder, groups, sharing)

    logprobs, _ = policy(batch)
    loss = weighted_sum(logprobs, batch)
    loss.backward()
    sequences = [
        (group, image, index)
        for group, image in zip(groups, encoder.encode(groups), strict=True)
        for index in range(len(group.sequences))
    ]
    expected = torch.cat(padded_logprobs(plain, sequences, temperature=TEMPERATURE, family=family))
    expected_loss = weighted_sum(expected, batch)
    expected_loss.backward()

    found = {name: p.grad for name, p in policy.hf_model.named_parameters()}
    wanted = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in plain.named_parameters()}
    # Of the largest gradient: a deep sum's rounding grows with it.
    scale = max(1.0, *(float(gradient.abs().max()) for gradient in wanted.values()))
    vision = policy.family.parts["vision_tower"]
    differences.check(f"{NAMES[sharing]}: logprobs", family, logprobs, expected, atol=atol)
    differences.check(f"{NAMES[sharing]}: loss", family, loss, expected_loss, atol=atol)
    for name, gradient in wanted.items():
        shares = "one vision pass a group = repeated" if name.startswith(vision) else NAMES[sharing]
        differences.check(f"{shares}: gradients", family, found[name] / scale, gradient / scale, atol=atol)


def test_logprobs_do_not_depend_on_what_else_is_packed(policy, encoder, family):
    groups = mixed_groups(family)

    with torch.no_grad():
        packed, _ = policy(pack(policy, encoder, groups))
        alone = torch.cat([policy(pack(policy, encoder, [group]))[0] for group in groups])

    assert (packed - alone).abs().max() < 1e-5


def test_shared_prompts_feed_fewer_tokens_and_each_image_once(policy, encoder, family):
    groups = [make_group("g", lengths=(5, 3, 1, 4), family=family)]
    shared, repeated = (pack(policy, encoder, groups, sharing) for sharing in ("always", "never"))
    num_prompt = len(groups[0].prompt_token_ids)

    assert shared.inputs.input_ids.shape[1] == num_prompt + 4 + 2 + 0 + 3
    assert repeated.inputs.input_ids.shape[1] == 4 * num_prompt + 4 + 2 + 0 + 3
    assert shared.inputs.pixel_values.shape == repeated.inputs.pixel_values.shape


def test_activation_recomputation_changes_no_gradient(policy, encoder, family):
    batch = pack(policy, encoder, mixed_groups(family))
    policy.train()
    weighted_sum(policy(batch)[0], batch).backward()
    kept = {name: p.grad.clone() for name, p in policy.named_parameters()}
    policy.zero_grad()

    policy.hf_model.gradient_checkpointing_enable({"use_reentrant": False})
    weighted_sum(policy(batch)[0], batch).backward()

    for name, parameter in policy.named_parameters():
        torch.testing.assert_close(parameter.grad, kept[name], rtol=1e-5, atol=1e-7)


def test_a_dummy_reaches_every_parameter_and_moves_none(policy, family):
    builder = MicroBatchBuilder(policy.family, SdpaKernel(), device=CPU, dtype=torch.float32)
    batch = builder.dummy()

    logprobs, entropy = policy(batch)
    ((logprobs + entropy) * batch.token_weights).sum().backward()

    unused = {name for name, p in policy.hf_model.named_parameters() if p.grad is None}
    # InternVL's tower has a mask token that no forward pass of an image reads.
    assert all("mask_token" in name for name in unused)
    assert all(not p.grad.any() for p in policy.parameters() if p.grad is not None)


@pytest.mark.usefixtures("_takes_images")
def test_a_prompt_with_the_wrong_number_of_image_tokens_is_refused_by_group(encoder, family):
    group = make_group("short", family=family)
    broken = replace(group, prompt_token_ids=group.prompt_token_ids[4:])

    with pytest.raises(LearnerError, match=r"group short: its prompt holds \d+ image tokens, its 1 images make"):
        encoder.encode([broken])


@pytest.mark.usefixtures("_takes_images")
def test_image_tokens_that_do_not_stand_together_are_refused_by_group(policy, encoder, family):
    group = make_group("torn", family=family)
    ids = group.prompt_token_ids.copy()
    first = int(np.argmax(ids == IMAGE_TOKEN))
    ids[first], ids[first - 1] = ids[first - 1], ids[first]
    ids[first + 1], ids[-1] = ids[-1], IMAGE_TOKEN

    with pytest.raises(LearnerError, match=r"group torn: an image of .* is not contiguous in the prompt"):
        pack(policy, encoder, [replace(group, prompt_token_ids=ids)])


@pytest.mark.usefixtures("_takes_images")
def test_an_image_that_does_not_decode_is_refused_by_group(encoder, family):
    group = make_group("torn", family=family)
    torn = group.images[0][:50]

    with pytest.raises(LearnerError, match="group torn: image 0 of 1 does not decode"):
        encoder.encode([make_group("whole", family=family), replace(group, images=(torn,))])
