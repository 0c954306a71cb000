"""Qwen2.5-VL-7B on four FSDP ranks of 80 GB, bfloat16, recomputation, frozen tower: every figure worked by hand.

The arithmetic stands here and uses nothing of the code under test. 32,768 tokens a micro-batch: with prompts of 6,144
tokens and completions of 2,048 that is one group of 8 (6,144 + 8 x 2,047) and a prompt with 2 completions more.
"""

from pathlib import Path

import pytest

from orchestration.models.shapes import read_shape
from orchestration.plan.activations import largest_load
from orchestration.plan.engine_memory import engine_memory
from orchestration.plan.host_memory import checkpoint_bytes, export_bytes
from orchestration.plan.learner_memory import FIXED, TRANSFER, learner_memory, learner_parts
from orchestration.plan.seconds import Rates, hand_over
from orchestration.settings.experiment import ExperimentConfig
from tests.unit.plan.published import PUBLISHED
from tests.unit.plan.runs import gpu_config

GIB = 2**30
V, D, F, LAYERS = 152_064, 3_584, 18_944, 28
HEADS, KEY_HEADS, HEAD = 28, 4, 128
BLOCK = (D * D + D) + 2 * (D * 512 + 512) + D * D + 3 * D * F + 2 * D
"""q with bias, k and v with biases, o, three matrices of the MLP, two norms: 233,057,792."""
TOWER = 32 * (1280 * 3840 + 3840 + 1280 * 1280 + 1280 + 3 * 1280 * 3420 + 2 * 3420 + 1280 + 2 * 1280) + 1280 * 1176
PROJECTOR = 1280 + 5120 * 5120 + 5120 + 5120 * D + D
OUTSIDE = 2 * V * D + D + PROJECTOR + 1280 * 1176
"""Embeddings, output head, last norm, projector, patch embedding: one group of FSDP, whole all through a step."""
TOTAL = LAYERS * BLOCK + 2 * V * D + D + PROJECTOR + TOWER
TRAINED = TOTAL - TOWER
L = 6144 + 8 * 2047 + 6144 + 2 * 2047
PREDICTED = 10 * 2048
RANKS = 4


def test_the_hand_counts_are_those_of_the_published_model() -> None:
    assert (BLOCK, TOTAL, TRAINED, L) == (233_057_792, 8_292_166_656, 7_660_190_976, 32_758)


@pytest.fixture
def config(tmp_path: Path) -> ExperimentConfig:
    return gpu_config(tmp_path, "learner.attention=flash")


SHAPE = read_shape(PUBLISHED["qwen2_5_vl_7b"])


def test_the_assumed_micro_batch_holds_longest_prompts_and_completions(
    config: ExperimentConfig,
) -> None:
    load = largest_load(config, SHAPE)

    assert (load.num_tokens, load.num_predicted, load.num_image_tokens) == (L, PREDICTED, 2 * 6144)


def test_trained_parameters_take_16_bytes_and_fixed_ones_2_over_four_ranks(
    config: ExperimentConfig,
) -> None:
    use = learner_memory(config, SHAPE, None)
    items = {item.name: item.bytes for item in use.items}

    # Rows that do not divide by 4 are rounded up: a few kilobytes in all.
    assert items["weights (float32 shards)"] == pytest.approx(4 * TRAINED / RANKS, rel=1e-4)
    assert items[FIXED] == pytest.approx(2 * TOWER / RANKS, rel=1e-4)
    assert items["optimiser state (AdamW)"] == pytest.approx(8 * TRAINED / RANKS, rel=1e-4)
    assert items["gradients (float32 shards)"] == pytest.approx(4 * TRAINED / RANKS, rel=1e-4)
    # 7.13 + 0.29 + 14.27 + 7.13 GiB
    assert pytest.approx(28.83, abs=0.01) == (16 * TRAINED + 2 * TOWER) / RANKS / GIB


def test_the_fullest_moment_is_the_last_blocks_backward_pass_and_adds_up(
    config: ExperimentConfig,
) -> None:
    inputs = LAYERS * L * D * 2  # each block's input, bfloat16
    norms = 2 * (4 + 2 + 2) * L * D  # float32 copy, normalised, output; two of them
    # q, output, output for the projection: 3 D; k and v: 2 x 512; a float32 sum for each head
    attention = 2 * L * (3 * D + 2 * KEY_HEADS * HEAD) + 4 * L * HEADS
    mlp = 4 * L * F * 2
    recomputed = norms + attention + mlp
    extra = 2 * L * (2 * F + 2 * D)
    whole = 2 * OUTSIDE + 2 * 2 * BLOCK  # outside of blocks; the block, and the next one on its way
    gradients = 2 * V * D + (2 + 4) * BLOCK  # of the head; of the block, and the float32 sum of the one before
    projector = (4 + 2 + 2) * 4 * 12_288 * 1280 + 2 * 2 * 4 * 12_288 * 1280
    ends = (4 + 2 + 2) * L * D + 2 * PREDICTED * D + 2 * 2 * L * HEAD + 4 * 4 * 12_288 * (1176 + 2 * 80)
    moment = inputs + recomputed + extra + whole + gradients + projector + ends + 4 * TRAINED / RANKS

    phase, items = learner_parts(config, SHAPE).fullest

    assert phase == "backward: blocks of the language model"
    assert sum(item.bytes for item in items) == pytest.approx(moment, rel=1e-3)
    assert moment / GIB == pytest.approx(30.4, abs=0.1)


def test_it_fits_80_gb_and_the_same_on_one_rank_does_not(config: ExperimentConfig, tmp_path: Path) -> None:
    limit = int(79.1 * GIB)

    assert learner_memory(config, SHAPE, limit).excess_bytes == 0
    alone = learner_memory(gpu_config(tmp_path, "learner.num_ranks=1"), SHAPE, limit)
    # Weights, gradients and state alone are 116 GiB.
    assert alone.total_bytes > limit + 60 * GIB


def test_the_engine_holds_weights_once_and_56_kib_a_token(config: ExperimentConfig) -> None:
    limit = int(79.1 * GIB)
    memory = engine_memory(config, SHAPE, limit)
    items = {item.name: item.bytes for item in memory.use.items}

    assert items["weights"] == 2 * TOTAL
    token = 2 * KEY_HEADS * HEAD * LAYERS * 2
    assert token == 57_344
    cache = items["key-value cache"]
    assert memory.cache.num_tokens == cache // (16 * token) * 16
    beside = ("key-value cache", "weight channel", "layer being reloaded")
    others = sum(size for name, size in items.items() if name not in beside)
    assert cache == int(0.9 * limit) - others
    assert memory.cache.num_whole_sequences == memory.cache.num_tokens // 8192


def test_adapters_keep_the_model_in_bfloat16_and_travel_back_alone(tmp_path: Path) -> None:
    """Rank 16 on all seven matrices of a block, one rank of a shared GPU."""
    turns = ("cluster.layout=colocated", "training.max_staleness=0", "rollout.weight_channel.backend=ipc")
    config = gpu_config(tmp_path, *turns, "+learner/lora=default", "learner.num_ranks=1", "rollout.engines=1")
    factors = 16 * LAYERS * (4 * (D + D) - 2 * (D - 512) + 3 * (D + F))
    lot = {item.name: item.bytes for item in learner_parts(config, SHAPE).kept}

    assert lot == {"weights (float32 shards)": 4 * factors, "optimiser state (AdamW)": 8 * factors, FIXED: 2 * TOTAL}
    # 16 GiB and not 31.5.
    assert lot[FIXED] / GIB == pytest.approx(15.45, abs=0.01)
    rates = Rates(engine_flops=1.0, decode_bytes=1.0, rank_flops=1.0, transfer_bytes=1.0, host_bytes=25e9)
    assert hand_over(config, SHAPE, rates).seconds == pytest.approx((2 * 12 * factors + 2 * TOTAL) / 25e9)
    # One weight of the MLP at a time is merged, and the one before not yet gone.
    transfer = {item.name: item.bytes for item in learner_parts(config, SHAPE).phases[TRANSFER]}
    assert transfer["adapters merged"] == 3 * 4 * D * F


def test_a_checkpoint_is_12_bytes_a_trained_parameter_and_2_a_fixed_one(config: ExperimentConfig) -> None:
    assert checkpoint_bytes(config, SHAPE) == pytest.approx(12 * TRAINED + 2 * TOWER, rel=1e-3)
    assert export_bytes(config, SHAPE) == pytest.approx(2 * TOTAL, rel=1e-3)


def test_a_micro_batch_holds_no_more_than_the_groups_of_one_update(tmp_path: Path) -> None:
    # 24 groups in 3 minibatches over 4 ranks: 2 groups a rank, 2 x (100 + 8 x 27) = 632 tokens of a budget of 32,768.
    config = gpu_config(
        tmp_path, "training.groups_per_step=24", "algorithm.num_minibatches=3", "rollout.engine.max_model_len=128",
        "rollout.sampling.max_completion_tokens=28",
    )  # fmt: skip

    load = largest_load(config, SHAPE)

    assert (config.rollout.sampling.group_size, config.learner.num_ranks) == (8, RANKS)
    assert (load.num_prompts, load.num_completions, load.num_tokens) == (2, 16, 632)
