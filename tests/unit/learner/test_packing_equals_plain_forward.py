"""Prefix-shared packing against transformers' own forward on each sequence alone."""

import numpy as np
import pytest
import torch
from tiny_learner import IMAGE_TOKEN, make_group, mixed_groups

from learner.algorithms.losses import policy_gradient_loss
from learner.batching import Piece
from learner.errors import LearnerError
from learner.images import ImageEncoder
from learner.model import load_policy
from learner.packing import TokenIds, build_micro_batch, dummy_micro_batch, prompt_positions

CPU = torch.device("cpu")
TOKEN_IDS = TokenIds(image=IMAGE_TOKEN, merge_size=2)
TEMPERATURE = 0.7


@pytest.fixture(scope="module")
def encoder(model_path):
    return ImageEncoder.from_pretrained(model_path, image_token_id=IMAGE_TOKEN)


@pytest.fixture
def policy(model_path):
    return load_policy(model_path, temperature=TEMPERATURE)


@pytest.fixture
def plain_model(model_path):
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(model_path, dtype=torch.float32, attn_implementation="eager")


def pack(groups, encoder):
    pieces = [
        Piece(
            group=group,
            sequence_indices=tuple(range(len(group.sequences))),
            advantages=tuple(float((-1) ** i) * (0.5 + i) for i in range(len(group.sequences))),
        )
        for group in groups
    ]
    images = encoder.encode(groups)
    batch = build_micro_batch(
        pieces, images, dummy_image=encoder.dummy(), token_ids=TOKEN_IDS, device=CPU, dtype=torch.float32
    )
    return pieces, images, batch


def plain_logprobs(model, group, image, index):
    """Logprobs of one completion: one sequence, no padding, no packing, positions by transformers."""
    completion = torch.tensor(group.sequences[index].completion_token_ids.astype(np.int64))
    ids = torch.cat([torch.tensor(group.prompt_token_ids.astype(np.int64)), completion])[None]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if image is not None:
        inputs["mm_token_type_ids"] = (ids == IMAGE_TOKEN).int()
        inputs["pixel_values"] = image.pixel_values
        inputs["image_grid_thw"] = image.image_grid_thw
    logits = model(**inputs, use_cache=False).logits[0, -len(completion) - 1 : -1]
    return torch.log_softmax(logits.float() / TEMPERATURE, -1).gather(-1, completion[:, None])[:, 0]


def step_loss(logprobs, behaviour_logprobs, advantages):
    loss, _ = policy_gradient_loss(
        logprobs,
        behaviour_logprobs=behaviour_logprobs,
        advantages=advantages,
        completion_mask=torch.ones(len(logprobs), dtype=torch.bool),
        entropy=torch.zeros_like(logprobs),
        ref_logprobs=None,
        clip_low=0.2,
        clip_high=0.28,
        kl_coef=0.0,
        num_completion_tokens=40,
    )
    return loss


@pytest.mark.parametrize(
    "names", [("square",), ("text",), ("pair",), ("text", "wide"), ("square", "wide", "pair", "text")]
)
def test_packed_logprobs_loss_and_gradients_equal_those_of_each_sequence_alone(names, policy, plain_model, encoder):
    groups = [group for group in mixed_groups() if group.group_id in names]
    pieces, images, batch = pack(groups, encoder)

    logprobs, _ = policy(batch)
    loss = step_loss(logprobs, batch.behaviour_logprobs, batch.advantages)
    loss.backward()
    plain, plain_losses = [], []
    for piece, image in zip(pieces, images, strict=True):
        for index, advantage in zip(piece.sequence_indices, piece.advantages, strict=True):
            own = plain_logprobs(plain_model, piece.group, image, index)
            behaviour = torch.tensor(piece.group.sequences[index].behaviour_logprobs)
            plain.append(own)
            plain_losses.append(step_loss(own, behaviour, torch.full_like(own, advantage)))
    plain_loss = torch.stack(plain_losses).sum()
    plain_loss.backward()

    assert (logprobs - torch.cat(plain)).abs().max() < 1e-5
    torch.testing.assert_close(loss, plain_loss, rtol=1e-5, atol=1e-6)
    packed_gradients = {name: p.grad for name, p in policy.hf_model.named_parameters()}
    for name, parameter in plain_model.named_parameters():
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(
            packed_gradients[name], expected, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_logprobs_do_not_depend_on_what_else_is_packed(policy, encoder):
    groups = mixed_groups()
    _, _, together = pack(groups, encoder)

    with torch.no_grad():
        packed, _ = policy(together)
        alone = torch.cat([policy(pack([group], encoder)[2])[0] for group in groups])

    assert (packed - alone).abs().max() < 1e-5


def test_activation_recomputation_changes_no_gradient(policy, encoder):
    _, _, batch = pack(mixed_groups(), encoder)
    policy.train()
    step_loss(policy(batch)[0], batch.behaviour_logprobs, batch.advantages).backward()
    kept = {name: p.grad.clone() for name, p in policy.named_parameters()}
    policy.zero_grad()

    policy.hf_model.gradient_checkpointing_enable({"use_reentrant": False})
    step_loss(policy(batch)[0], batch.behaviour_logprobs, batch.advantages).backward()

    for name, parameter in policy.named_parameters():
        torch.testing.assert_close(parameter.grad, kept[name], rtol=1e-5, atol=1e-7)


def test_a_dummy_reaches_every_parameter_and_moves_none(policy, encoder):
    batch = dummy_micro_batch(encoder.dummy(), token_ids=TOKEN_IDS, device=CPU, dtype=torch.float32)

    logprobs, entropy = policy(batch)
    loss, metrics = policy_gradient_loss(
        logprobs,
        behaviour_logprobs=batch.behaviour_logprobs,
        advantages=batch.advantages,
        completion_mask=batch.completion_mask,
        entropy=entropy,
        ref_logprobs=None,
        clip_low=0.2,
        clip_high=0.2,
        kl_coef=0.0,
        num_completion_tokens=1,
    )
    loss.backward()

    assert metrics["num_tokens"] == 0
    assert all(p.grad is not None and not p.grad.any() for p in policy.parameters())


@pytest.mark.parametrize("index", range(4))
def test_positions_equal_those_of_transformers(index, plain_model, encoder):
    group = mixed_groups()[index]
    [image] = encoder.encode([group])
    ids = torch.tensor(group.prompt_token_ids.astype(np.int64))[None]
    expected, delta = plain_model.model.get_rope_index(
        ids, (ids == IMAGE_TOKEN).int(), image_grid_thw=None if image is None else image.image_grid_thw
    )

    found, following = prompt_positions(group, [] if image is None else image.image_grid_thw.tolist(), TOKEN_IDS)

    np.testing.assert_array_equal(found, expected[:, 0].numpy())
    assert following == len(group.prompt_token_ids) + int(delta)


def test_a_prompt_with_the_wrong_number_of_image_tokens_is_refused_by_group(encoder):
    group = make_group("short")
    broken = type(group)(
        group_id="short",
        sample_id="s",
        source="test",
        task="chart",
        prompt_token_ids=group.prompt_token_ids[4:],
        images=group.images,
        sequences=group.sequences,
    )

    with pytest.raises(LearnerError, match=r"group short: its prompt holds 15 image tokens, its 1 images make 16"):
        encoder.encode([broken])


def test_an_image_that_does_not_decode_is_refused_by_group(encoder):
    group = make_group("torn")
    torn = type(group.images[0])(data=group.images[0].data[:50], width=112, height=112)
    broken = type(group)(
        group_id="torn",
        sample_id="s",
        source="test",
        task="chart",
        prompt_token_ids=group.prompt_token_ids,
        images=(torn,),
        sequences=group.sequences,
    )

    with pytest.raises(LearnerError, match="group torn: image 0 of 1 does not decode"):
        encoder.encode([make_group("whole"), broken])
