import pytest

from orchestration.models.shapes import shape_of
from orchestration.plan.batches import Lengths, plan_batches
from orchestration.plan.plan import plan_run
from orchestration.plan.seconds import (
    Rates,
    SecondsPlan,
    backward_factor,
    num_scoring_passes,
    plan_seconds,
    train_flops,
)
from orchestration.settings.experiment import ExperimentConfig
from tests.unit.plan.runs import gpu_settings, settings

LENGTHS = Lengths(prompt=1000.0, image=0.0, prompt_most=6000, completion=500.0, completion_most=2000, are_measured=True)
RATES = Rates(engine_flops=4e14, decode_bytes=2e12, rank_flops=3e14, transfer_bytes=2e10, host_bytes=2e10)


def estimate(config: ExperimentConfig, cache_tokens: int | None = None) -> SecondsPlan:
    batches = plan_batches(config, LENGTHS, None)
    return plan_seconds(
        config, shape_of(config.model), lengths=LENGTHS, batches=batches, rates=RATES, cache_tokens=cache_tokens
    )


def seconds(plan: SecondsPlan) -> dict[str, float]:
    return {phase.name: phase.seconds for phase in plan.phases}


def test_the_phases_of_qwen_7b_agree_with_a_hand_calculation() -> None:
    found = seconds(estimate(gpu_settings()))

    # Published: 28 layers of width 3584, MLP 18944, 28 heads of 128, 4 key-value heads, vocabulary 152064.
    blocks = 28 * (2 * 3584 * 3584 + 2 * 3584 * 512 + 3 * 3584 * 18944 + 3584 + 2 * 512 + 2 * 3584) + 3584
    head = 152064 * 3584
    heads = 28 * 28 * 128  # layers x heads x size
    prefill = 32 * (
        2 * blocks * 1000 + 1000 * 4 * 500 * heads
    )  # 32 prompts an engine, 500 tokens of context on average
    assert found["prefill"] == pytest.approx(prefill / 4e14)

    # 256 at once: weights once and 1,250 tokens of cache each, 2 (key, value) x 28 layers x 4 heads x 128 x 2 bytes.
    token_s = (2 * (blocks + head) + 256 * 1250 * 2 * 28 * 4 * 128 * 2) / 2e12
    assert found["decode"] == pytest.approx(128 * 8 * 500 / 4 / 256 * token_s)

    tokens, attention = 1000 + 8 * 500, 1000 * 4 * 500 * heads + 8 * 500 * 4 * 1250 * heads
    forward = 128 * (2 * blocks * tokens + attention + 2 * head * 8 * 500)
    assert found["train"] == pytest.approx(4 * forward / (4 * 3e14))  # forward, recomputed, and twice that backward

    block = 2 * 1280 + 1280 * 3840 + 3840 + 1280**2 + 1280 + 3 * 1280 * 3420 + 2 * 3420 + 1280
    frozen_tower = 32 * block + 1280 * 3 * 2 * 14 * 14  # and the embedding of its patches
    assert found["new weights"] == pytest.approx(2 * (8292166656 - frozen_tower) / 2e10 + 0.5)


def test_a_step_takes_the_longer_side_or_both_in_turn() -> None:
    overlapped, in_turns = estimate(gpu_settings()), estimate(gpu_settings("training.max_staleness=0"))

    assert overlapped.step_s == pytest.approx(max(overlapped.rollout_s, overlapped.train_s) + overlapped.publish_s)
    assert in_turns.step_s == pytest.approx(in_turns.rollout_s + in_turns.train_s + in_turns.publish_s)
    assert overlapped.run_s == pytest.approx(500 * overlapped.step_s)
    assert (overlapped.bound, in_turns.bound) == ("learner", "turns")


def test_a_synchronous_step_waits_for_a_completion_of_full_length() -> None:
    config = gpu_settings("training.max_staleness=0", "rollout.engines=64", "rollout.engine.max_num_seqs=16")

    plan = estimate(config)

    assert "16 completions at once" in plan.phases[1].how
    one_token_s = float(plan.phases[1].how.split(", ")[1].split()[0]) / 1000
    assert plan.phases[1].seconds == pytest.approx(2000 * one_token_s, rel=0.01)


def test_advice_names_the_side_that_binds() -> None:
    assert estimate(gpu_settings("learner.num_ranks=128", "training.groups_per_step=128")).bound == "rollout"
    assert "learner.num_ranks" in estimate(gpu_settings()).advice
    slow = estimate(gpu_settings("cluster.reward_pool.num_actors=1", "plan.assume.reward_group_s=30"))
    assert (slow.bound, "cluster.reward_pool.num_actors" in slow.advice) == ("rollout", True)


def test_a_small_cache_lets_fewer_completions_run() -> None:
    # A completion of 500 tokens and an eighth of its group's prompt of 1,000.
    assert estimate(gpu_settings(), cache_tokens=6250).concurrency == 10
    assert estimate(gpu_settings(), cache_tokens=10**9).concurrency == 256


def test_what_is_frozen_or_scored_beforehand_is_counted() -> None:
    assert [backward_factor(gpu_settings().learner, part) for part in ("vision_tower", "language_model")] == [0, 2]
    free = gpu_settings("learner.freeze=[]").learner
    assert [backward_factor(free, part) for part in ("vision_tower", "language_model")] == [2, 2]
    lora = gpu_settings("+learner/lora=default").learner
    assert [backward_factor(lora, part) for part in ("vision_tower", "language_model")] == [0, 1]
    assert num_scoring_passes(gpu_settings()) == 0
    assert num_scoring_passes(gpu_settings("algorithm.kl_coef=0.01")) == 1
    assert num_scoring_passes(gpu_settings("algorithm=gspo", "algorithm.num_minibatches=4")) == 1


def test_operations_do_not_depend_on_how_a_step_is_cut() -> None:
    def counted(*overrides: str) -> float:
        config = gpu_settings(*overrides)
        return train_flops(config, shape_of(config.model), LENGTHS, plan_batches(config, LENGTHS, None))

    assert counted("learner.num_ranks=8") == counted("algorithm.num_minibatches=4") == counted()
    assert counted("algorithm.num_epochs=2") == pytest.approx(2 * counted())
    assert counted("learner.activation_checkpointing=false") == pytest.approx(0.75 * counted())


def test_assumptions_that_entered_are_told_and_change_the_estimate() -> None:
    plan = plan_run(gpu_settings()).seconds
    slower = plan_run(gpu_settings("plan.assume.learner_mfu=0.15")).seconds
    on_cores = plan_run(settings("run_dir=/nowhere", "cache_dir=/nowhere")).seconds

    assert plan is not None
    assert slower is not None
    assert on_cores is not None
    assert slower.train_s == pytest.approx(2 * plan.train_s)
    assert plan.assumptions["learner_mfu"] == 0.3
    assert "cpu_engine_gflop_s" not in plan.assumptions
    assert "learner_mfu" not in on_cores.assumptions
    assert on_cores.assumptions["cpu_engine_gflop_s"] == 10.0


def test_nothing_is_estimated_for_a_gpu_that_nobody_described() -> None:
    nodes = "cluster.nodes=[{count: 1, gpus: 8, gpu: b200, cpus: 96, memory_gib: 1024.0}]"

    assert plan_run(gpu_settings(nodes)).seconds is None


def test_weights_reach_engines_on_a_cpu_at_the_rate_of_a_cpu() -> None:
    slow, fast = (plan_run(settings(f"plan.assume.cpu_transfer_gb_s={rate}")).seconds for rate in (0.001, 1000.0))

    assert slow is not None
    assert fast is not None
    assert seconds(slow)["new weights"] > seconds(fast)["new weights"] + 1
    assert "transfer_gb_s" not in slow.assumptions
