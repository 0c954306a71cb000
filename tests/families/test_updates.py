"""Whole steps of each family: on two ranks as on one, in many micro-batches as in one."""

import pytest
from learner_scenarios import (
    check_two_ranks,
    keep_first_gradients,
    live_case,
    run_in_turn,
    start_trainer,
    train,
    weights_of,
)

from learner.config import DeepSpeedConfig, LoraConfig

ZERO_3 = {"backend": "deepspeed", "deepspeed": DeepSpeedConfig(zero_stage=3)}


def test_two_ranks_update_as_one_does(case, folder, tmp_path, differences):
    """All parameters by FSDP2; adapters with recomputation and a frozen tower by ZeRO-3."""
    pytest.importorskip("deepspeed", reason="an extra of its own: mixed-r1[deepspeed]")
    paths, whole = {case.name: folder}, {"family": case.name}
    adapters = {
        **whole,
        "lora": LoraConfig(rank=4, target_modules=case.lora_targets),
        "activation_checkpointing": True,
    }
    of_adapters = "LoRA, KL in the loss"
    calls = [(live_case, paths, "plain", whole), (live_case, paths, of_adapters, {**adapters, **ZERO_3})]

    plain, with_adapters = run_in_turn(2, tmp_path, calls)

    one = live_case(0, 1, 0, paths, "plain", whole)
    check_two_ranks(differences, "2 ranks = 1 rank", case.name, one, plain)
    one = live_case(0, 1, 0, paths, of_adapters, adapters)
    check_two_ranks(differences, "2 ranks of ZeRO-3 = 1 rank", case.name, one, with_adapters)


def test_the_cut_into_micro_batches_changes_no_update(family, folder, differences):
    lives = []
    for budget in (10_000, 40):
        trainer = start_trainer(0, 1, 0, folder, micro_batch_tokens=budget)
        gradients = keep_first_gradients(trainer)
        metrics = train(trainer, 0, 1, 0, 2, family)
        lives.append((gradients, weights_of(trainer), metrics))
        trainer.close()

    (gradients, weights, metrics), (cut_gradients, cut_weights, cut_metrics) = lives
    what = "k micro-batches = one"
    differences.check(f"{what}: gradients", family, cut_gradients, gradients, atol=1e-5)
    # Adam divides by the gradient's own size, which blows rounding up where a gradient is nearly 0.
    differences.check(f"{what}: weights, 2 steps", family, cut_weights, weights, atol=1e-4)
    loss, cut_loss = ([step["policy/loss"] for step in steps] for steps in (metrics, cut_metrics))
    differences.check(f"{what}: loss", family, cut_loss, loss, atol=1e-5)
    for cut, uncut in zip(cut_metrics, metrics, strict=True):
        for name in uncut.keys() - {"learner/num_forward_tokens"}:
            assert cut[name] == pytest.approx(uncut[name], rel=1e-4, abs=1e-5), name
