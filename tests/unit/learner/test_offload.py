"""A learner whose state leaves its device between steps is bit for bit the learner that stays."""

import pytest
import torch
from learner_scenarios import load, run_in_turn, save, start_trainer, weights_of
from offload_scenarios import held_bytes, live, resume_and_leave, same_bits, save_after_leaving
from tiny_learner import run_ranks

from learner.backends.offload import Offloader, reachable_tensors
from learner.config import DeepSpeedConfig, LoraConfig

CPU = torch.device("cpu")
WITH_REFERENCE = {"algorithm": {"kl_coef": 0.05}, "activation_checkpointing": True}
NARROW = {"dtype": "bfloat16", "freeze": ("vision_tower",)}
LORA = {"lora": LoraConfig(rank=4, target_modules=("q_proj",)), "freeze": ("vision_tower",)}


def zero(stage, **changes):
    return {"backend": "deepspeed", "deepspeed": DeepSpeedConfig(zero_stage=stage), **changes}


def test_offloaded_bytes_leave_the_device_and_come_back_under_the_same_objects():
    weight = torch.nn.Parameter(torch.randn(300, 7))
    view, copy = weight.detach()[10:20], weight.detach().clone()
    offloader = Offloader(CPU)

    freed = offloader.offload([weight, view, view.t(), torch.ones((), device="meta")])

    assert (freed, weight.untyped_storage().nbytes()) == (300 * 7 * 4, 0)
    offloader.restore()
    assert torch.equal(weight, copy)
    assert torch.equal(view, copy[10:20])
    assert view.untyped_storage()._cdata == weight.untyped_storage()._cdata


def test_offloading_again_holds_what_was_written_since_and_more_of_it():
    offloader = Offloader(CPU)
    weight = torch.zeros(1000)
    offloader.offload([weight])
    offloader.restore()
    weight.fill_(3.0)
    momentum = torch.full((5000,), 2.0)

    freed = offloader.offload([weight, momentum])
    offloader.restore()

    assert freed == 24_000
    assert (weight.unique().tolist(), momentum.unique().tolist()) == ([3.0], [2.0])


def test_what_is_fixed_is_copied_to_the_host_once_and_back_each_time():
    fixed, trained, offloader = torch.ones(1000), torch.zeros(10), Offloader(CPU)

    def leave_and_return():
        assert offloader.offload([trained], fixed=[fixed, fixed[:7]]) == 4040
        assert fixed.untyped_storage().nbytes() == 0
        offloader.restore()
        return trained.unique().tolist(), fixed.unique().tolist()

    assert leave_and_return() == ([0.0], [1.0])
    trained.fill_(2.0)
    fixed.fill_(3.0)  # against the rule, and so it is lost
    assert leave_and_return() == ([2.0], [1.0])
    fixed.fill_(4.0)
    offloader.forget()
    assert leave_and_return() == ([2.0], [4.0])


def test_another_tensor_among_the_fixed_ones_is_copied_with_all_of_them():
    first, second, offloader = torch.ones(10), torch.full((10,), 2.0), Offloader(CPU)
    offloader.offload([], fixed=[first])
    offloader.restore()

    offloader.offload([], fixed=[second, first])
    offloader.restore()

    assert (first.unique().tolist(), second.unique().tolist()) == ([1.0], [2.0])


def test_fixed_weights_that_a_checkpoint_brings_are_offloaded_anew(model_path, tmp_path):
    writer = start_trainer(0, 1, 0, model_path, freeze=("vision_tower",), dtype="bfloat16")
    with torch.no_grad():
        for parameter in writer.backend.policy.parameters():
            parameter.to_local().mul_(2.0)
    folder, written = save(writer, tmp_path, step=1), weights_of(writer)
    writer.close()

    # Another type than the writer's: float32 holds every value of bfloat16.
    reader = start_trainer(0, 1, 0, model_path, freeze=("vision_tower",))
    reader.backend.offload()
    reader.backend.onload()
    load(reader, folder)
    reader.backend.offload()
    reader.backend.onload()
    found = weights_of(reader)
    reader.close()

    towers = [name for name in written if name.startswith("visual.blocks")]
    assert towers
    assert all((found[name] == written[name]).all() for name in towers)


def test_memory_that_no_tensor_holds_is_given_back_and_tensors_stay(model_path, monkeypatch):
    trainer = start_trainer(0, 1, 0, model_path)
    before, calls = weights_of(trainer), []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append(held_bytes(trainer)))

    trainer.release_cache()

    assert calls == [held_bytes(trainer)]
    assert calls[0] > 0
    assert same_bits(weights_of(trainer), before)
    trainer.close()


def test_optimiser_goes_on_with_the_state_that_was_offloaded():
    def train(leaves):
        torch.manual_seed(0)
        model = torch.nn.Linear(16, 16)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        offloader = Offloader(CPU)
        for _ in range(4):
            model(torch.randn(8, 16)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            if leaves:
                offloader.offload(reachable_tensors(model.weight, model.bias, optimizer, packages=()))
                assert {t.untyped_storage().nbytes() for t in model.parameters()} == {0}
                assert optimizer.state[model.weight]["exp_avg"].untyped_storage().nbytes() == 0
                offloader.restore()
        return model.weight.detach().clone()

    assert torch.equal(train(True), train(False))


def test_borrowed_memory_stays_where_it_is():
    numpy_owned = torch.from_numpy(torch.ones(8).numpy())
    offloader = Offloader(CPU)
    assert offloader.offload([numpy_owned]) == 0
    assert numpy_owned.sum() == 8


def test_offloading_twice_is_a_bug_and_says_so():
    offloader = Offloader(CPU)
    offloader.offload([torch.ones(1)])
    with pytest.raises(AssertionError, match="offloaded twice"):
        offloader.offload([torch.ones(1)])


CASES = {
    "fsdp": (2, {}),
    "fsdp, reference": pytest.param((1, WITH_REFERENCE), marks=pytest.mark.slow),
    "fsdp, LoRA": pytest.param((1, LORA), marks=pytest.mark.slow),
    "fsdp, bfloat16": pytest.param((1, NARROW), marks=pytest.mark.slow),
    "zero 3": (1, zero(3)),
    "zero 3, reference": pytest.param((1, zero(3, **WITH_REFERENCE)), marks=pytest.mark.slow),
    "zero 2": pytest.param((1, zero(2)), marks=pytest.mark.slow),
    "zero 1, bfloat16": pytest.param((1, zero(1, dtype="bfloat16")), marks=pytest.mark.slow),
}


def needs_deepspeed(changes):
    if changes.get("backend") == "deepspeed":
        pytest.importorskip("deepspeed", reason="an extra of its own: mixed-r1[deepspeed]")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_learner_that_leaves_between_steps_takes_the_same_steps_to_the_bit(case, model_path, tmp_path):
    num_ranks, changes = case
    needs_deepspeed(changes)
    stayed, left = run_in_turn(num_ranks, tmp_path, [(live, model_path, leaves, changes) for leaves in (False, True)])

    for away, home in zip(left, stayed, strict=True):
        assert away["metrics"] == home["metrics"]
        assert same_bits(away["weights"], home["weights"])
        assert all((a == b).all() for a, b in zip(away["logprobs"], home["logprobs"], strict=True))
        assert all(before > 0 and after == 0 for before, after in away["held"])
        # From the first step on there is the optimiser's state too: two values more for each that is trained.
        assert away["freed"][1] > away["freed"][0]


@pytest.mark.parametrize("changes", [pytest.param(zero(3), id="zero 3"), pytest.param({}, id="fsdp")])
@pytest.mark.slow
def test_a_checkpoint_of_a_learner_that_was_away_is_whole(changes, model_path, tmp_path):
    needs_deepspeed(changes)
    written = run_ranks(1, save_after_leaving, tmp_path / "write", model_path, tmp_path / "checkpoints", changes)[0]
    resumed = run_ranks(1, resume_and_leave, tmp_path / "read", model_path, written["folder"], changes)[0]
    assert same_bits(resumed["gone_on"], written["gone_on"])
