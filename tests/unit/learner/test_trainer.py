"""One rank, in this process."""

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from learner_scenarios import (
    assert_same_weights,
    load,
    nan_group,
    save,
    start_trainer,
    step_groups,
    train,
    weights_of,
    wrong_image_group,
)
from plain_model import load_plain, padded_logprobs
from pyarrow import fs
from safetensors.torch import load_file, save_file
from tiny_learner import make_group, mixed_groups

from learner import checkpoint
from learner.config import FsdpConfig, LoraConfig
from learner.errors import CheckpointError, ExplodingGradientError, LearnerError, NonFiniteLossError
from learner.store import FileStore, open_store
from tests.unit.memory_store import MemoryHandler


@pytest.fixture
def start(model_path):
    """Start trainers; each ends before the next begins, because a process has one process group."""
    trainers = []

    def start_one(**changes):
        while trainers:
            trainers.pop().close()
        trainers.append(start_trainer(0, 1, 0, model_path, **changes))
        return trainers[0]

    yield start_one
    trainers.pop().close()


def test_a_step_moves_weights_and_reports(start):
    trainer = start()
    before = weights_of(trainer)

    report = trainer.train_step(step_groups(0), step=5)

    assert (report.step, report.weight_version, trainer.weight_version) == (5, 1, 1)
    assert any(not np.array_equal(before[name], after) for name, after in weights_of(trainer).items())
    metrics = report.metrics
    # Of eight groups one is flat (13 tokens) and one has a single sequence (5); one of 24 sequences is masked.
    assert metrics["learner/num_groups"] == 8
    assert metrics["learner/zero_signal_frac"] == pytest.approx(2 / 8)
    assert metrics["learner/masked_frac"] == pytest.approx(1 / 24)
    assert metrics["learner/num_completion_tokens"] - metrics["learner/num_trained_tokens"] == 13 + 5
    assert all(np.isfinite(list(metrics.values())))
    assert set(report.seconds) == {"plan", "score", "forward_backward", "optimizer"}


def test_leaving_out_groups_without_signal_changes_no_update(start):
    """With a negligible KL term every sequence stays in; without one, zero advantages are left out."""
    trainer = start()
    train(trainer, 0, 1, 0, 1)
    without = weights_of(trainer)

    trainer = start(algorithm={"kl_coef": 1e-12})
    [metrics] = train(trainer, 0, 1, 0, 1)

    assert metrics["learner/trained_sequence_frac"] == pytest.approx(23 / 24)
    assert_same_weights(weights_of(trainer), without, atol=2e-5)


def test_logprobs_of_a_group_are_the_behaviour_of_the_next_step(start):
    """With behaviour logprobs from the learner itself, the ratio is 1, nothing is clipped, the mismatch is 0."""
    trainer = start()
    group = make_group("own", lengths=(6, 1, 9))
    logprobs = trainer.sequence_logprobs(group)
    sequences = tuple(replace(s, behaviour_logprobs=own) for s, own in zip(group.sequences, logprobs, strict=True))

    metrics = trainer.train_step([replace(group, sequences=sequences)], step=0).metrics

    assert [len(own) for own in logprobs] == [6, 1, 9]
    assert metrics["policy/mismatch"] < 1e-5
    assert metrics["policy/ratio_mean"] == pytest.approx(1.0, abs=1e-5)
    assert metrics["policy/clip_frac"] == 0


def test_logprobs_of_a_step_and_its_reference_are_of_what_engines_sample_from(start, model_path):
    """The behaviour is transformers' own, tempered and without the banned tokens: neither policy differs from it."""
    temperature, banned = 0.7, tuple(range(7))  # make_group draws no such token
    group = make_group("text", image_sizes=(), lengths=(3, 8))
    pairs = [(group, None, index) for index in range(2)]
    with torch.no_grad():
        behaviour = padded_logprobs(load_plain(model_path), pairs, temperature=temperature, banned_token_ids=banned)
    sequences = tuple(
        replace(sequence, behaviour_logprobs=logprobs.numpy())
        for sequence, logprobs in zip(group.sequences, behaviour, strict=True)
    )
    trainer = start(algorithm={"temperature": temperature, "kl_coef": 0.1}, banned_token_ids=banned)

    metrics = trainer.train_step([replace(group, sequences=sequences)], step=0).metrics

    assert metrics["policy/mismatch"] < 1e-5
    assert metrics["policy/kl_ref"] < 1e-9


def test_training_raises_rewarded_completions(start):
    trainer = start(optimizer={"learning_rate": 3e-3})
    group = make_group("learn", lengths=(4, 4), rewards=(1.0, 0.0))

    def gap():
        good, bad = trainer.sequence_logprobs(group)
        return good.sum() - bad.sum()

    before = gap()
    for step in range(3):
        trainer.train_step([group], step=step)

    assert gap() > before + 0.1


def test_kl_to_the_reference_is_zero_at_first_and_grows(start):
    trainer = start(algorithm={"kl_coef": 0.1})

    first, second = train(trainer, 0, 1, 0, 2)

    assert first["policy/kl_ref"] == pytest.approx(0.0, abs=1e-6)
    assert second["policy/kl_ref"] > 1e-6


def test_frozen_parameters_stay_and_the_rest_moves(start):
    trainer = start(freeze=("model.visual.*",))
    before = weights_of(trainer)

    train(trainer, 0, 1, 0, 1)

    moved = {name for name, after in weights_of(trainer).items() if not np.array_equal(before[name], after)}
    assert moved
    assert not any(name.startswith("visual.") for name in moved)


def test_bfloat16_compute_trains_float32_weights(start):
    trainer = start(dtype="bfloat16", activation_checkpointing=True)

    [metrics] = train(trainer, 0, 1, 0, 1)

    assert np.isfinite(metrics["policy/loss"])
    # What travels is what forward passes use; what is trained and saved is float32.
    assert all(tensor.dtype == torch.bfloat16 for _, tensor in trainer.backend.full_tensors())
    assert all(parameter.dtype == torch.float32 for parameter in trainer.backend.policy.parameters())


def test_a_nan_raises_with_step_and_group_before_any_weight_moves(start):
    trainer = start()
    before = weights_of(trainer)

    with pytest.raises(NonFiniteLossError, match=r"step 4: loss nan.* in groups poisoned;") as caught:
        trainer.train_step([*mixed_groups(), nan_group()], step=4)

    assert caught.value.group_ids == ("poisoned",)
    assert trainer.weight_version == 0
    assert_same_weights(weights_of(trainer), before, atol=0)


def test_an_unusable_group_is_named(start):
    trainer = start()

    with pytest.raises(LearnerError, match="rank 0: group wrong_image: its prompt holds 16 image tokens"):
        trainer.train_step([wrong_image_group()], step=0)


def test_save_load_and_export_in_one_process(start, tmp_path):
    trainer = start()
    train(trainer, 0, 1, 0, 2)
    folder = save(trainer, tmp_path / "checkpoints", step=2)
    trainer.export(tmp_path / "exported")
    saved = weights_of(trainer)
    train(trainer, 0, 1, 2, 3)
    gone_on = weights_of(trainer)

    trainer = start()
    load(trainer, folder)
    assert_same_weights(weights_of(trainer), saved, atol=0)
    train(trainer, 0, 1, 2, 3)

    assert_same_weights(weights_of(trainer), gone_on, atol=0)
    from transformers import AutoModelForImageTextToText

    exported = AutoModelForImageTextToText.from_pretrained(tmp_path / "exported")
    np.testing.assert_array_equal(exported.lm_head.weight.detach().numpy(), saved["model.embed_tokens.weight"])


@pytest.mark.parametrize(("before", "after"), [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_a_checkpoint_loads_in_the_other_precision(before, after, start, tmp_path):
    trainer = start(dtype=before)
    train(trainer, 0, 1, 0, 1)
    saved = shards_of(trainer)
    folder = save(trainer, tmp_path, step=1)

    trainer = start(dtype=after)
    load(trainer, folder)

    assert {array.dtype.name for array in saved.values()} == {"float32"}
    assert_same_weights(shards_of(trainer), saved, atol=0)
    train(trainer, 0, 1, 1, 2)


def shards_of(trainer):
    """Float32 values as the optimiser moves them."""
    named = trainer.backend.policy.hf_model.named_parameters()
    return {name: parameter.detach().to_local().clone().numpy() for name, parameter in named}


def test_a_staging_folder_that_takes_nothing_is_named_and_a_full_one_leaves_the_older_checkpoint(
    start, tmp_path, monkeypatch
):
    trainer = start()
    save(trainer, tmp_path, step=1)

    def fill_up(folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(trainer.backend, "save", fill_up)
    with pytest.raises(
        CheckpointError, match=r"step 2 was not staged in .*mixed-r1-staging.*No space left.*staging_dir"
    ):
        trainer.stage(step=2)

    assert checkpoint.marked_steps(open_store(tmp_path)) == [1]
    monkeypatch.undo()
    assert save(trainer, tmp_path, step=2).name == "step_00000002"
    with pytest.raises(CheckpointError, match=r"training\.staging_dir: /dev/null/below cannot be written"):
        start(staging_dir=Path("/dev/null/below"))
    start()


def test_a_checkpoint_is_fetched_from_a_store_that_is_not_local_and_the_copy_is_gone_afterwards(start, tmp_path):
    memory = FileStore(fs.PyFileSystem(MemoryHandler()), "bucket/run")
    trainer = start(staging_dir=tmp_path)
    train(trainer, 0, 1, 0, 1)
    saved = weights_of(trainer)
    share = trainer.stage(step=1)
    checkpoint.mark(memory, share, trainer.upload(memory, step=1), extra={}, scores={})
    train(trainer, 0, 1, 1, 2)

    trainer.load(memory, step=1)

    assert_same_weights(weights_of(trainer), saved, atol=0)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_a_checkpoint_of_other_weights_is_refused(start, tmp_path):
    folder = save(start(freeze=("model.visual.*",)), tmp_path, step=1)

    with pytest.raises(CheckpointError, match="does not load into this model and optimiser"):
        load(start(), folder)


def test_weights_are_gathered_one_block_at_a_time(start, monkeypatch):
    trainer = start()
    largest = max(
        sum(parameter.numel() for parameter in module.parameters()) for module in trainer.backend.policy.units()
    )
    gathered = []
    gather = dist.all_gather_into_tensor

    def gather_and_note(output, own):
        gathered.append(output.numel())
        gather(output, own)

    monkeypatch.setattr(dist, "all_gather_into_tensor", gather_and_note)
    tensors = dict(trainer.backend.full_tensors())

    assert sum(gathered) == sum(tensor.numel() for tensor in tensors.values())
    # Blocks first, then one by one the large layers outside of them.
    num_blocks = len(trainer.backend.policy.units())
    assert max(gathered[:num_blocks]) == largest
    assert len(gathered) > num_blocks


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4, target_modules=("q_proj", "down_proj"))])
def test_shapes_are_known_in_the_order_of_the_weights_and_without_a_gather(lora, start, monkeypatch):
    trainer = start(lora=lora)
    weights = weights_of(trainer)

    def refuse(*_):
        raise AssertionError("nothing is to be gathered")

    monkeypatch.setattr(dist, "all_gather_into_tensor", refuse)

    assert list(trainer.backend.full_shapes().items()) == [(name, array.shape) for name, array in weights.items()]


def test_two_seeds_deal_minibatches_differently(start):
    changes = {"algorithm": {"num_minibatches": 2}}

    def trained(seed):
        trainer = start(seed=seed, **changes)
        train(trainer, 0, 1, 0, 1)
        return weights_of(trainer)

    first, second, again = trained(1), trained(2), trained(1)

    assert_same_weights(again, first, atol=0)
    assert any(not np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_export_has_the_types_of_the_checkpoint_it_began_from(dtype, model_path, tmp_path):
    """Mixed ones too: a vision tower in float32 beside a language model in bfloat16."""
    folder = copy_with_types(model_path, tmp_path / "mixed")
    trainer = start_trainer(0, 1, 0, folder, dtype=dtype)
    weights = {name: tensor.clone() for name, tensor in trainer.backend.full_tensors()}
    trainer.export(tmp_path / "exported")
    trainer.close()

    stored, exported = load_file(folder / "model.safetensors"), load_file(tmp_path / "exported" / "model.safetensors")
    assert {name: tensor.dtype for name, tensor in exported.items()} == {
        name: tensor.dtype for name, tensor in stored.items()
    }
    assert {torch.float32, torch.bfloat16} == {tensor.dtype for tensor in exported.values()}
    for name, tensor in exported.items():
        torch.testing.assert_close(tensor, weights[name].to(tensor.dtype), rtol=0, atol=0)
    assert (tmp_path / "exported" / "config.json").read_bytes() == (folder / "config.json").read_bytes()


def copy_with_types(source, target):
    shutil.copytree(source, target)
    tensors = load_file(source / "model.safetensors")
    narrow = {name: tensor.bfloat16() if not name.startswith("visual.") else tensor for name, tensor in tensors.items()}
    save_file(narrow, target / "model.safetensors", metadata={"format": "pt"})
    return target


def test_a_pass_over_the_weights_that_is_broken_off_disturbs_nothing(start):
    trainer = start()
    whole = weights_of(trainer)
    next(trainer.backend.full_tensors())

    assert_same_weights(weights_of(trainer), whole, atol=0)
    train(trainer, 0, 1, 0, 1)


def test_an_exploding_gradient_raises_with_step_and_groups_before_any_weight_moves(start):
    trainer = start(max_grad_norm=1e-6, abort_grad_norm=1e-3)
    before = weights_of(trainer)

    with pytest.raises(
        ExplodingGradientError, match=r"step 7: gradient norm .* is above learner\.abort_grad_norm=0\.001"
    ):
        trainer.train_step(mixed_groups(), step=7)

    assert trainer.weight_version == 0
    assert_same_weights(weights_of(trainer), before, atol=0)


def test_two_groups_of_one_name_are_refused(start):
    with pytest.raises(LearnerError, match="two groups of this step have the id twin; give every group its own"):
        start().train_step([make_group("twin"), make_group("twin", seed=1)], step=0)


def test_keeping_gathered_weights_changes_no_update(start):
    trainer = start()
    train(trainer, 0, 1, 0, 2)
    resharded = weights_of(trainer)

    trainer = start(fsdp=FsdpConfig(reshard_after_forward=False))
    train(trainer, 0, 1, 0, 2)

    assert_same_weights(weights_of(trainer), resharded, atol=0)


@pytest.mark.slow
def test_compiled_blocks_change_no_update(start):
    trainer = start()
    train(trainer, 0, 1, 0, 2)
    plain = weights_of(trainer)

    trainer = start(fsdp=FsdpConfig(compile=True))
    train(trainer, 0, 1, 0, 2)

    assert_same_weights(weights_of(trainer), plain, atol=1e-4)
