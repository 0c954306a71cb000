"""The generic path beside its numbers: what it freezes, trains and feeds, and what it refuses by name."""

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from generic_models import IDS, VISION, step_with_text_apart, write_text, write_vision
from learner_scenarios import start_trainer, weights_of
from plain_model import whole_policy
from safetensors.torch import load_file, save_file
from test_generic_family import CPU, build, text_group, vision_groups
from tiny_learner import run_ranks

from learner.attention.sdpa import SdpaKernel
from learner.batching import TrainSequence, make_pieces, plan_micro_batches
from learner.config import ExpertsConfig
from learner.errors import LearnerError
from learner.families.base import PARTS
from learner.families.registry import get_family
from learner.policy.padding import PaddedBuilder, join_tensors, load_encoder
from learner.policy.source import FolderSource

DYNAMIC_ROPE = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
LONG_ROPE = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 48, "long_factor": [2.0] * 48}


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    path = tmp_path_factory.mktemp("gemma4")
    write_vision(path, "gemma4")
    return path


@pytest.fixture(scope="module")
def gemma_groups(gemma):
    from transformers import AutoProcessor

    return vision_groups(AutoProcessor.from_pretrained(gemma))


@pytest.mark.parametrize("name", VISION)
def test_every_parameter_is_in_one_part_and_every_layer_is_a_block(name, tmp_path):
    write_vision(tmp_path, name)
    policy = FolderSource(tmp_path, SdpaKernel(), temperature=1.0).skeleton()
    family = policy.family

    for parameter, _ in policy.hf_model.named_parameters():
        assert sum(parameter.startswith(family.parts[part]) for part in PARTS) == 1, parameter
    text, vision = policy.hf_model.config.get_text_config(), policy.hf_model.config.vision_config
    assert len(family.language_blocks(policy.hf_model)) == text.num_hidden_layers
    depth = vision.depth if hasattr(vision, "depth") else vision.num_hidden_layers
    assert len(family.vision_blocks(policy.hf_model)) == depth


def test_a_text_only_batch_runs_the_tower_and_leaves_its_logprobs_alone(gemma, gemma_groups):
    """Ranks gather the tower's blocks together, so a small image stands in a row that predicts nothing."""
    policy = whole_policy(gemma)
    text, square = gemma_groups[:2]

    alone, beside = build(policy, gemma, [text]), build(policy, gemma, [text, square])
    num_text = sum(sequence.num_tokens for sequence in text.sequences)
    logprobs, _ = policy(alone)
    logprobs.sum().backward()

    with torch.no_grad():
        together = policy(beside)[0]
    assert alone.inputs.input_ids.shape[0] == len(text.sequences) + 1
    torch.testing.assert_close(logprobs, together[:num_text], rtol=0, atol=1e-5)
    named = dict(policy.hf_model.named_parameters())
    tower = [p for name, p in named.items() if name.startswith(policy.family.parts["vision_tower"])]
    assert all(p.grad is not None and not p.grad.any() for p in tower)


def test_recomputation_changes_no_gradient(gemma, gemma_groups):
    """Later layers of Gemma 4 read keys and values of earlier ones."""
    policy = whole_policy(gemma)
    batch = build(policy, gemma, gemma_groups)
    policy.train()
    policy(batch)[0].sum().backward()
    kept = {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}
    policy.zero_grad()

    policy.hf_model.gradient_checkpointing_enable({"use_reentrant": False})
    policy(batch)[0].sum().backward()

    scale = max(float(gradient.abs().max()) for gradient in kept.values())
    for name, parameter in policy.named_parameters():
        if name in kept:
            torch.testing.assert_close(parameter.grad / scale, kept[name] / scale, rtol=0, atol=1e-6)


def test_a_model_without_a_family_trains_with_a_part_frozen_and_says_that_it_is_slower(gemma, gemma_groups, caplog):
    trainer = start_trainer(0, 1, 0, gemma, freeze=("vision_tower",))
    before = weights_of(trainer)

    report = trainer.train_step(gemma_groups, step=0)
    after = weights_of(trainer)
    trainer.close()

    assert report.metrics["policy/grad_norm"] > 0
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert any(".embed_vision." in name for name in moved)
    assert not any(".vision_tower." in name for name in moved)
    assert caplog.text.count("model_type gemma4 has no family of its own and runs on the generic path") == 1


def test_a_language_model_trains_and_refuses_images_by_group(tmp_path, gemma_groups):
    write_text(tmp_path, "qwen3")
    trainer = start_trainer(0, 1, 0, tmp_path)

    report = trainer.train_step([text_group()], step=0)
    with pytest.raises(LearnerError, match=r"group square has 1 images, and the model is a language model"):
        trainer.train_step([gemma_groups[1]], step=1)
    trainer.close()

    assert report.metrics["policy/grad_norm"] > 0


def test_the_budget_counts_padding():
    group = text_group(lengths=(1, 40, 3, 5), num_prompt=10)
    sequences = [
        TrainSequence(index=i, advantages=np.zeros(s.num_tokens, dtype=np.float32), token_weight=0.0)
        for i, s in enumerate(group.sequences)
    ]
    settings: dict[str, Any] = {"prefix_sharing": "never", "is_padded": True}

    whole = make_pieces(group, sequences, micro_batch_tokens=4 * 49, **settings)
    cut = make_pieces(group, sequences, micro_batch_tokens=4 * 49 - 1, **settings)
    short = text_group("short", lengths=(2, 2), num_prompt=4)
    pieces = [*whole, *make_pieces(short, sequences[:2], micro_batch_tokens=1000, **settings)]

    assert [len(piece.sequences) for piece in whole] == [4]
    assert [len(piece.sequences) for piece in cut] == [3, 1]
    # Two rows of 5 tokens beside one of 49 are padded to 49.
    assert len(plan_micro_batches(pieces, 6 * 49, is_padded=True)) == 1
    assert len(plan_micro_batches(pieces, 6 * 49 - 1, is_padded=True)) == 2


def test_a_prompt_with_other_image_tokens_and_an_image_token_in_a_completion_are_refused_by_group(gemma, gemma_groups):
    policy = whole_policy(gemma)
    encoder = load_encoder(gemma, policy.family)
    square = gemma_groups[1]
    short = replace(square, prompt_token_ids=square.prompt_token_ids[8:])
    completion = square.sequences[0].completion_token_ids.copy()
    completion[1] = IDS["image_token"]
    claimed = replace(square, sequences=(replace(square.sequences[0], completion_token_ids=completion),))

    with pytest.raises(LearnerError, match=r"group square: its prompt holds \d+ image tokens, its 1 images make \d+"):
        encoder.encode([short])
    with pytest.raises(LearnerError, match=r"group square: a completion holds the image token 3"):
        encoder.encode([claimed])


def test_images_of_several_sizes_are_padded_as_processors_do_and_other_outputs_are_refused():
    wide, high = {"pixel_values": torch.ones(1, 3, 2, 4)}, {"pixel_values": torch.ones(2, 3, 4, 2)}

    joined = join_tensors([wide, high])["pixel_values"]

    assert joined.shape == (3, 3, 4, 4)
    assert joined.sum() == 3 * 2 * 4 + 2 * 3 * 4 * 2
    with pytest.raises(LearnerError, match=r"makes image_position_ids of several shapes"):
        join_tensors([{"image_position_ids": torch.ones(1, 4, 2)}, {"image_position_ids": torch.ones(1, 5, 2)}])


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("paligemma", {}, "its prompts attend both ways"),
        ("t5gemma2", {}, "it is an encoder-decoder"),
        ("bert", {"is_decoder": False}, None),
        ("wav2vec2", {}, "neither for AutoModelForImageTextToText nor for AutoModelForCausalLM"),
        ("llava", {"quantization_config": {"quant_method": "fp8"}}, "its weights are quantised"),
        ("kosmos-2", {}, "names no image_token_id"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
            "embedding is dynamic",
        ),
        ("phi3", {"rope_parameters": LONG_ROPE}, "its rotary embedding is longrope"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(kind, changes, message):
    from transformers import AutoConfig

    config = AutoConfig.for_model(kind, **changes)

    if message is None:
        assert get_family(config).is_text_only
        return
    with pytest.raises(LearnerError, match=rf"model_type is '{kind}', which does not train: .*{re.escape(message)}"):
        get_family(config)


def test_a_model_whose_logits_are_not_head_times_hidden_states_is_refused_in_its_first_pass(tmp_path):
    """Cohere's vision model of transformers leaves out the scale that its configuration states, and the engine not."""
    write_text(tmp_path, "cohere2", logit_scale=0.5)
    config = json.loads((tmp_path / "config.json").read_text())
    policy = whole_policy(tmp_path)
    policy.family.logit_scale = 1.0
    batch = build(policy, tmp_path, [text_group()])

    with pytest.raises(LearnerError, match=r"logits of Cohere2ForCausalLM are not those of its lm_head with scale 1.0"):
        policy(batch)
    assert config["logit_scale"] == 0.5


def test_a_processor_that_marks_other_tokens_than_those_of_images_is_refused(gemma):
    policy = FolderSource(gemma, SdpaKernel(), temperature=1.0).skeleton()
    policy.family.image_token_id = IDS["boi_token"]

    with pytest.raises(LearnerError, match=r"Gemma4Processor returns mm_token_type_ids that are not 1 at image tokens"):
        load_encoder(gemma, policy.family)


def test_a_dummy_moves_nothing(gemma):
    policy = whole_policy(gemma)
    encoder = load_encoder(gemma, policy.family)
    batch = PaddedBuilder(policy.family, encoder, device=CPU).dummy()

    logprobs, entropy = policy(batch)
    ((logprobs + entropy) * batch.token_weights).sum().backward()

    assert batch.is_dummy
    assert all(p.grad is None or not p.grad.any() for p in policy.parameters())


@pytest.mark.slow
def test_two_ranks_update_as_one_does_though_one_of_them_has_no_images(gemma, gemma_groups, tmp_path, differences):
    groups = [*gemma_groups, text_group("other", (4, 2, 7))]

    first, second = run_ranks(2, step_with_text_apart, tmp_path, gemma, groups)
    one = step_with_text_apart(0, 1, 0, gemma, groups)

    differences.check("2 ranks = 1 rank: gradients", "generic: gemma4", first["gradients"], one["gradients"], atol=1e-5)
    differences.check("2 ranks = 1 rank: weights", "generic: gemma4", first["weights"], one["weights"], atol=1e-4)
    assert first["metrics"]["policy/loss"] == pytest.approx(one["metrics"]["policy/loss"], abs=1e-5)
    assert second["metrics"] == first["metrics"]


def test_a_folder_that_lacks_a_buffer_of_its_architecture_is_refused(tmp_path):
    write_vision(tmp_path, "gemma4")
    tensors = load_file(tmp_path / "model.safetensors")
    name = next(name for name in tensors if name.endswith("layers.1.layer_scalar"))
    save_file(
        {k: v for k, v in tensors.items() if k != name}, tmp_path / "model.safetensors", metadata={"format": "pt"}
    )

    with pytest.raises(LearnerError, match=rf"lack 1 buffers of this architecture, such as {re.escape(name)}"):
        FolderSource(tmp_path, SdpaKernel(), temperature=1.0).skeleton()


def test_a_balance_loss_of_routers_that_are_not_known_is_refused(tmp_path):
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    write_text(tmp_path, "qwen3_moe", **experts)

    start_trainer(0, 1, 0, tmp_path).close()
    with pytest.raises(LearnerError, match=r"balance_loss_coef is 0.1, but the routers of a model of type qwen3_moe"):
        start_trainer(0, 1, 0, tmp_path, experts=ExpertsConfig(balance_loss_coef=0.1))
    torch.distributed.destroy_process_group()
