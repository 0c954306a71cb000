"""Mixtures of experts: the layout of their tensors, the load of experts, and the loss that balances it."""

import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.distributed as dist
from learner_scenarios import keep_first_gradients, start_trainer, weights_of
from plain_model import load_plain, padded_logprobs, whole_policy
from safetensors.torch import load_file, save_file
from tiny_learner import CASES, mixed_groups
from transformers.models.qwen3_vl_moe.modeling_qwen3_vl_moe import load_balancing_loss_func

from learner.config import ExpertsConfig, LoraConfig
from learner.errors import LearnerError
from learner.policy.conversion import checkpoint_names, swapped_names
from learner.policy.images import ImageEncoder
from learner.policy.source import PretrainedWeights
from learner.training.expert_balance import balance_loss
from tests.families.case import IMAGE_TOKEN, write_model
from tests.families.cases.qwen3_vl_moe import EXPERTS, config, swap_experts

FAMILY = "qwen3_vl_moe"
NUM_EXPERTS, NUM_CHOSEN = EXPERTS["num_experts"], EXPERTS["num_experts_per_tok"]
# Width of an expert where 2F is the hidden size of 64, where F is, and where neither is.
WIDTHS = (32, 64, 48)


@pytest.fixture
def folder(model_paths):
    return model_paths[FAMILY]


@pytest.fixture(params=WIDTHS)
def both_forms(request, tmp_path):
    """A folder as published checkpoints are, and the same model as transformers 5 saves it."""
    published, saved = tmp_path / "published", tmp_path / "saved"
    case = replace(CASES[FAMILY], config=partial(config, moe_intermediate_size=request.param))
    write_model(published, case)
    shutil.copytree(published, saved)
    swap_experts(saved)
    return published, saved


def sequences_of(groups, images):
    return [(g, image, i) for g, image in zip(groups, images, strict=True) for i in range(len(g.sequences))]


def test_experts_are_read_right_whatever_the_form_and_the_sizes(both_forms):
    """transformers itself reads only its own form right where two sizes are equal."""
    _, saved = both_forms
    groups = mixed_groups(FAMILY)[3:4]
    [expected] = [padded_logprobs(load_plain(saved), sequences_of(groups, [None]), temperature=1.0, family=FAMILY)]

    for folder in both_forms:
        trainer = start_trainer(0, 1, 0, folder)
        found = trainer.sequence_logprobs(groups[0])
        trainer.close()
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs.detach(), atol=1e-5)


def test_experts_are_sent_and_exported_as_published_checkpoints_hold_them(both_forms, tmp_path):
    published, _ = both_forms
    stored = load_file(published / "model.safetensors")

    for folder in both_forms:
        trainer = start_trainer(0, 1, 0, folder)
        shapes, sent = trainer.backend.full_shapes(), weights_of(trainer)
        trainer.export(tmp_path / "export")
        trainer.close()
        exported = load_file(tmp_path / "export" / "model.safetensors")
        assert sent.keys() == exported.keys() == stored.keys()
        for name, tensor in stored.items():
            assert shapes[name] == tuple(tensor.shape)
            np.testing.assert_array_equal(sent[name], tensor, err_msg=name)
            assert torch.equal(exported[name], tensor), name


def test_an_export_loads_in_transformers_with_every_name(folder, tmp_path):
    from transformers import AutoModelForImageTextToText

    trainer = start_trainer(0, 1, 0, folder)
    trainer.export(tmp_path / "export")
    trainer.close()
    model, report = AutoModelForImageTextToText.from_pretrained(tmp_path / "export", output_loading_info=True)
    plain = dict(load_plain(folder).named_parameters())

    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.float(), plain[name]), name


def test_experts_in_two_forms_or_of_another_size_are_refused(folder, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    path = broken / "model.safetensors"
    tensors = load_file(path)
    name = "model.language_model.layers.1.mlp.experts.down_proj"

    save_file({**tensors, name: tensors[name].mT.contiguous()}, path, metadata={"format": "pt"})
    with pytest.raises(LearnerError, match=r"layers.1.mlp.experts.down_proj with swapped axes; write all files"):
        whole_policy(broken)
    save_file({**tensors, name: tensors[name][:, 1:].contiguous()}, path, metadata={"format": "pt"})
    with pytest.raises(LearnerError, match=r"experts.down_proj has the shape \[8, 47, 64\]; this architecture has"):
        whole_policy(broken)


def test_balance_loss_is_k_where_all_is_even_and_e_where_one_expert_gets_all():
    even = torch.full((2, 4), 0.25)
    one = torch.tensor([[1.0, 0.0, 0.0, 0.0]])

    assert float(balance_loss(2 * even, even)) == 2.0
    assert float(balance_loss(one, one)) == 4.0
    # Layers by themselves: (4 * (0.75 * 0.5 + 0.25 * 0.5) + 1) / 2.
    loads = torch.tensor([[0.75, 0.25, 0.0, 0.0], [0.25] * 4])
    assert float(balance_loss(loads, torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.25] * 4]))) == 1.5


def test_balance_loss_of_an_update_is_transformers_own_over_every_fed_token(folder, differences):
    """In several micro-batches, with shared prompts; against one padded batch whose mask counts each prompt once."""
    groups = mixed_groups(FAMILY)[:4]  # the fifth has one completion: no signal, so it is not fed
    found = {}
    for coef in (0.0, 1.0):
        trainer = start_trainer(0, 1, 0, folder, experts=ExpertsConfig(balance_loss_coef=coef))
        gradients = keep_first_gradients(trainer)
        metrics = trainer.train_step(groups, step=0).metrics
        encoder = ImageEncoder.from_pretrained(folder, trainer.backend.policy.family)
        trainer.close()
        found[coef] = metrics, gradients
    num_fed = sum(len(g.prompt_token_ids) + sum(s.num_tokens - 1 for s in g.sequences) for g in groups)
    for metrics, _ in found.values():
        assert metrics["learner/num_forward_tokens"] == num_fed

    model = load_plain(folder)
    logits, keep = router_logits(model, groups, encoder)
    layers = [load_balancing_loss_func((own[keep],), NUM_EXPERTS, NUM_CHOSEN) for own in logits]
    expected = torch.stack(layers).mean()
    expected.backward()

    for metrics, _ in found.values():
        differences.check("balance loss", FAMILY, metrics["experts/balance_loss"], expected, atol=1e-5)
        chosen = torch.stack([own[keep].topk(NUM_CHOSEN).indices.flatten().bincount(minlength=8) for own in logits])
        assert metrics["experts/load_max"] == pytest.approx(float((chosen.amax(1) / chosen.sum(1) * 8).mean()))
        assert metrics["experts/unused_frac"] == float((chosen == 0).float().mean())
        entropy = torch.stack([torch.distributions.Categorical(logits=own[keep]).entropy().mean() for own in logits])
        assert metrics["experts/router_entropy"] == pytest.approx(float(entropy.mean()), abs=1e-5)
    for name, parameter in model.named_parameters():
        wanted = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        own = found[1.0][1][name] - found[0.0][1][name]
        differences.check("balance loss: gradients", FAMILY, own, wanted, atol=1e-5)


def router_logits(model, groups, encoder):
    """Each layer's logits [B L, E] in one padded batch, and the rows that a stream with shared prompts feeds."""
    rows = [
        (g, i, np.concatenate([g.prompt_token_ids, s.completion_token_ids]))
        for g in groups
        for i, s in enumerate(g.sequences)
    ]
    longest = max(len(row) for _, _, row in rows)
    ids = torch.tensor(np.stack([np.pad(row, (0, longest - len(row)), constant_values=1) for _, _, row in rows])).long()
    keep = torch.zeros(len(rows), longest, dtype=torch.bool)
    for place, (group, index, row) in enumerate(rows):
        keep[place, len(group.prompt_token_ids) if index else 0 : len(row) - 1] = True
    by_group = {g.group_id: image for g, image in zip(groups, encoder.encode(groups), strict=True)}
    images = [image for group, _, _ in rows if (image := by_group[group.group_id]) is not None]
    output = model(
        input_ids=ids,
        attention_mask=torch.tensor(np.stack([np.arange(longest) < len(row) for _, _, row in rows])).long(),
        pixel_values=torch.cat([image.pixel_values for image in images]),
        image_grid_thw=torch.cat([image.grids for image in images]),
        mm_token_type_ids=(ids == IMAGE_TOKEN).int(),
        output_router_logits=True,
        use_cache=False,
    )
    return output.router_logits, keep.flatten()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("frozen", ["*.mlp.gate.weight", "*.mlp.experts.*"])
def test_a_frozen_router_or_frozen_experts_stay_and_the_rest_moves(folder, frozen, dtype):
    trainer = start_trainer(0, 1, 0, folder, freeze=(frozen,), dtype=dtype)
    before = weights_of(trainer)
    trainer.train_step(mixed_groups(FAMILY)[:2], step=0)
    after = weights_of(trainer)
    trainer.close()

    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    part = frozen.strip("*")
    assert not [name for name in moved if part in name]
    assert [name for name in moved if "self_attn" in name]
    assert [name for name in moved if (".mlp.experts." if part == ".mlp.gate.weight" else ".mlp.gate.weight") in name]


def test_adapters_of_attention_train_and_those_of_experts_are_refused_by_name(folder):
    with pytest.raises(LearnerError, match=r"names 'gate_proj'.*k_proj.*; experts are stacked in two tensors a layer"):
        start_trainer(0, 1, 0, folder, lora=LoraConfig(rank=4))
    dist.destroy_process_group()

    trainer = start_trainer(0, 1, 0, folder, lora=LoraConfig(rank=4, target_modules=("q_proj", "v_proj")))
    before = weights_of(trainer)
    trainer.train_step(mixed_groups(FAMILY)[:2], step=0)
    after = weights_of(trainer)
    trainer.close()

    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved == {name for name in before if name.endswith(("q_proj.weight", "v_proj.weight"))}


@pytest.fixture(params=["one by one", "stacked"])
def qwen3_5_moe(request, tmp_path):
    """A tiny Qwen3.5-MoE of transformers and its folder, with a tensor for each expert or one for all of a layer."""
    from transformers import Qwen3_5MoeConfig, Qwen3_5MoeForConditionalGeneration

    torch.manual_seed(0)
    model = Qwen3_5MoeForConditionalGeneration(
        Qwen3_5MoeConfig(
            text_config={
                **{"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "layer_types": ["full_attention"] * 2},
                **{"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "num_experts": 12},
                **{"num_experts_per_tok": 2, "moe_intermediate_size": 24, "shared_expert_intermediate_size": 24},
            },
            vision_config={
                "depth": 1,
                "hidden_size": 32,
                "intermediate_size": 32,
                "num_heads": 2,
                "out_hidden_size": 32,
            },
        )
    )
    model.save_pretrained(tmp_path)
    if request.param == "stacked":
        names = checkpoint_names(model)
        tensors = {names[name]: parameter.detach() for name, parameter in model.named_parameters()}
        save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    return model, tmp_path


def test_experts_are_read_one_by_one_or_stacked_and_sent_stacked(qwen3_5_moe):
    model, folder = qwen3_5_moe
    weights = PretrainedWeights(folder, model)

    for name, parameter in model.named_parameters():
        assert name in weights
        assert torch.equal(weights.rows(name), parameter), name
        assert torch.equal(weights.rows(name, 3, 7), parameter[3:7]), name
        assert weights.rows(name, len(parameter)).shape == (0, *parameter.shape[1:])
    names = checkpoint_names(model)
    assert names["model.language_model.layers.1.mlp.experts.gate_up_proj"].endswith("layers.1.mlp.experts.gate_up_proj")
    assert len(set(names.values())) == len(names)
    assert not swapped_names(model, names)


def test_one_expert_that_is_missing_is_noticed(qwen3_5_moe):
    model, folder = qwen3_5_moe
    path = folder / "model.safetensors"
    tensors = load_file(path)
    lost = next(name for name in tensors if ".experts." in name)
    del tensors[lost]
    save_file(tensors, path, metadata={"format": "pt"})

    with pytest.raises(LearnerError, match=r"lack 1 parameters of this architecture, one is .*layers\.0\.mlp\.experts"):
        PretrainedWeights(folder, model)
