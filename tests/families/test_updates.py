"""Whole steps of each family: on two ranks as on one, in many micro-batches as in one."""

from pathlib import Path

import pytest
from learner_scenarios import (
    check_two_ranks,
    keep_first_gradients,
    live_case,
    run_in_turn,
    start_trainer,
    train,
)

from learner.config import DeepSpeedConfig, LoraConfig

PLAIN, ADAPTERS = "plain", "LoRA, KL in the loss"
"""Scenarios: all parameters by FSDP2; adapters with recomputation and a frozen tower by ZeRO-3."""
ZERO_3 = {"backend": "deepspeed", "deepspeed": DeepSpeedConfig(zero_stage=3)}


def scenarios(case, own_family):
    """By scenario: what differs from it for this family."""
    plain = {"model": case.name, "family": own_family}
    lora = LoraConfig(rank=4, target_modules=case.lora_targets)
    freeze = ("vision_tower",) if case.takes_images else ()
    return {PLAIN: plain, ADAPTERS: {**plain, "lora": lora, "freeze": freeze, "activation_checkpointing": True}}


@pytest.fixture(scope="session")
def two_ranks(request, folders, own_families, tmp_path_factory):
    """By family: what two ranks made of each scenario; all families in two processes, which take seconds to start."""
    pytest.importorskip("deepspeed", reason="an extra of its own: mixed-r1[deepspeed]")
    mine = [item for item in request.session.items if item.path == Path(__file__) and "two_ranks" in item.fixturenames]
    cases = [item.callspec.params["case"] for item in mine]
    calls = []
    for case in cases:
        paths, changes = {case.name: folders(case)}, scenarios(case, own_families(case))
        calls += [
            (live_case, paths, PLAIN, changes[PLAIN]),
            (live_case, paths, ADAPTERS, {**changes[ADAPTERS], **ZERO_3}),
        ]
    lives = run_in_turn(2, tmp_path_factory.mktemp("two"), calls)
    return {case.name: (lives[2 * place], lives[2 * place + 1]) for place, case in enumerate(cases)}


def test_two_ranks_update_as_one_does(case, folder, own_family, two_ranks, differences):
    plain, adapters = two_ranks[case.name]
    changes = scenarios(case, own_family)

    one = live_case(0, 1, 0, {case.name: folder}, PLAIN, changes[PLAIN])
    check_two_ranks(differences, "2 ranks = 1 rank", case.name, one, plain)
    one = live_case(0, 1, 0, {case.name: folder}, ADAPTERS, changes[ADAPTERS])
    check_two_ranks(differences, "2 ranks of ZeRO-3 = 1 rank", case.name, one, adapters)


def test_the_cut_into_micro_batches_changes_no_update(family, folder, own_family, differences):
    """The second loss is of the weights that the first update has moved."""
    lives = []
    for budget in (10_000, 40):
        trainer = start_trainer(0, 1, 0, folder, family=own_family, micro_batch_tokens=budget)
        gradients = keep_first_gradients(trainer)
        metrics = train(trainer, 0, 1, 0, 2, family)
        lives.append((gradients, metrics))
        trainer.close()

    (gradients, metrics), (cut_gradients, cut_metrics) = lives
    what = "k micro-batches = one"
    differences.check(f"{what}: gradients", family, cut_gradients, gradients, atol=1e-5)
    loss, cut_loss = ([step["policy/loss"] for step in steps] for steps in (metrics, cut_metrics))
    differences.check(f"{what}: loss", family, cut_loss, loss, atol=1e-5)
    for step, (cut, uncut) in enumerate(zip(cut_metrics, metrics, strict=True)):
        # The load of experts counts a prompt as often as it is fed.
        for name in {name for name in uncut if not name.startswith("experts/")} - {"learner/num_forward_tokens"}:
            # Adam's first update moves a weight by the whole rate whatever the size of its gradient, rounding included.
            rel = 1e-2 if name == "policy/grad_norm" and step > 0 else 1e-4
            assert cut[name] == pytest.approx(uncut[name], rel=rel, abs=1e-5), name
