"""Memory of engines: what vLLM splits over the workers of an engine and what every worker holds."""

from pathlib import Path

import pytest

from orchestration.models.shapes import read_shape
from orchestration.models.tensors import count_parameters
from orchestration.plan.engine_memory import engine_memory, token_bytes, undivided, widths, worker_parameters
from orchestration.plan.memory import colocated_memory
from orchestration.settings.errors import ConfigError
from tests.tiny_models import tiny
from tests.unit.plan.published import PUBLISHED
from tests.unit.plan.runs import cpu_config, gpu_config

GIB = 2**30
LIMIT = int(79.1 * GIB)
SHAPES = {name: read_shape(values) for name, values in PUBLISHED.items()}


@pytest.mark.parametrize("name", ["qwen2_5_vl_3b", "qwen2_5_vl_72b", "internvl3_38b"])
def test_a_single_worker_holds_every_parameter(name: str) -> None:
    shape = SHAPES[name]
    split, whole = worker_parameters(shape, 1)

    # The vocabulary is rounded up to a multiple of 64.
    padding = -shape.text.vocab_size % 64 * shape.text.width * (1 if shape.text.is_tied else 2)
    assert split + whole == count_parameters(shape).total + padding


def test_two_workers_share_all_of_qwen_but_norms_biases_of_outputs_and_the_patch_embedding() -> None:
    shape = SHAPES["qwen2_5_vl_7b"]
    split, whole = worker_parameters(shape, 2)

    norms = 28 * 2 * 3584 + 3584 + 32 * 2 * 1280 + 1280
    output_biases = 32 * (1280 + 1280) + 3584
    assert whole == norms + output_biases + 1280 * 1176
    assert 2 * split + whole == count_parameters(shape).total


def test_attention_of_internvits_tower_stands_whole_on_every_worker() -> None:
    _, whole = worker_parameters(SHAPES["internvl3_38b"], 4)

    attention = 45 * 4 * 3200 * 3200
    projector = 12800 * 5120 + 5120 * 5120
    assert whole == pytest.approx(attention + projector, rel=0.01)


def test_key_heads_repeat_where_there_are_more_workers_than_heads() -> None:
    shape = SHAPES["qwen2_5_vl_7b"]

    assert [token_bytes(shape, workers, 2) for workers in (1, 2, 4)] == [57344, 28672, 14336]
    assert token_bytes(SHAPES["qwen2_5_vl_3b"], 8, 2) == token_bytes(SHAPES["qwen2_5_vl_3b"], 2, 2)


@pytest.mark.parametrize(
    ("name", "workers", "heads"), [("qwen2_5_vl_7b", 8, 28), ("qwen2_5_vl_32b", 16, 40), ("internvl3_8b", 3, 28)]
)
def test_what_workers_cannot_share_is_named(name: str, workers: int, heads: int) -> None:
    assert undivided(SHAPES[name], workers)["attention heads"] == heads
    assert workers not in widths(SHAPES[name])


def test_without_a_known_gpu_the_cache_cannot_be_sized(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"kv_cache_bytes is null, .*set cluster.nodes"):
        engine_memory(gpu_config(tmp_path), SHAPES["qwen2_5_vl_7b"], None)


def test_a_model_that_leaves_nothing_holds_no_token_and_exceeds_the_gpu(tmp_path: Path) -> None:
    memory = engine_memory(gpu_config(tmp_path), SHAPES["qwen2_5_vl_72b"], LIMIT)

    assert (memory.cache.num_tokens, memory.cache.num_whole_sequences) == (0, 0)
    assert memory.use.excess_bytes > 50 * GIB


def test_four_workers_hold_the_72b_with_a_cache(tmp_path: Path) -> None:
    config = gpu_config(tmp_path, "rollout.engine.tensor_parallel_size=4", "rollout.engines=2")
    memory = engine_memory(config, SHAPES["qwen2_5_vl_72b"], LIMIT)

    assert memory.use.excess_bytes == 0
    assert memory.cache.num_whole_sequences > 30


def test_a_cpu_engine_takes_the_cache_it_is_told(tmp_path: Path) -> None:
    config = cpu_config(tmp_path)
    memory = engine_memory(config, read_shape(tiny("qwen2_5_vl").hf_config), None)

    # Three blocks of 96 float32 keys and values: 2,304 bytes a token.
    assert [item.bytes for item in memory.use.items if item.name == "key-value cache"] == [134217728]
    assert memory.cache.num_tokens == 134217728 // (2304 * 32) * 32
    assert memory.cache.num_whole_sequences == memory.cache.num_tokens // 256


@pytest.mark.parametrize(
    ("overrides", "gib", "tokens"),
    [
        ([], 39.5, 2048),
        ([], 79.1, 8192),
        ([], 179.0, 16384),
        (["rollout.engine.max_num_batched_tokens=4096"], 79.1, 4096),
    ],
)
def test_what_an_engine_computes_at_once_follows_its_gpu_and_its_setting(
    overrides: list[str], gib: float, tokens: int, tmp_path: Path
) -> None:
    memory = engine_memory(gpu_config(tmp_path, *overrides), SHAPES["qwen2_5_vl_7b"], int(gib * GIB))

    [batch] = [item.bytes for item in memory.use.items if item.name == "activations of a prompt batch"]
    assert batch == 2 * tokens * (3 * 3584 + 3 * 18944)


def test_a_shared_gpu_must_hold_each_phase_with_what_the_sleeping_side_keeps(tmp_path: Path) -> None:
    config = gpu_config(tmp_path, "rollout.engine.gpu_memory_utilization=0.8")
    shape = SHAPES["qwen2_5_vl_7b"]
    generating, training, travelling = colocated_memory(config, shape, LIMIT)

    assert generating.total_bytes > engine_memory(config, shape, LIMIT).use.total_bytes
    assert travelling.total_bytes < max(generating.total_bytes, training.total_bytes)
    # Weights of both, nothing of the cache, no gradients.
    names = {item.name for item in travelling.items}
    assert "engine's weights" in names
    assert not any("cache" in name or "gradients" in name for name in names)


def test_an_engine_that_takes_adapters_alone_holds_their_buffers_and_stages_them_alone(tmp_path: Path) -> None:
    shape = SHAPES["qwen2_5_vl_7b"]
    gpu = ("learner=fsdp_gpu", "rollout=vllm_gpu", "cluster=ray", "rollout.engine.kv_cache_bytes=1000000000")
    lora = (*gpu, "+learner/lora=default", "learner.lora.rank=24", "learner.freeze=[vision_tower,projector]")
    merged = engine_memory(cpu_config(tmp_path, *lora), shape, LIMIT).use
    adapted = engine_memory(cpu_config(tmp_path, *lora, "learner.lora.publish=adapter"), shape, LIMIT).use

    # 28 layers: q and o 3584 x 3584, k and v 512 x 3584, gate, up and down 18944 x 3584; A and B of each.
    columns_and_rows = 28 * (2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18944))
    found = {item.name: item.bytes for item in adapted.items}
    assert found["adapter"] == 2 * 24 * columns_and_rows
    assert found["adapter buffers"] == 2 * 32 * columns_and_rows
    assert found["weight channel"] < {item.name: item.bytes for item in merged.items}["weight channel"]
    assert "layer being reloaded" not in found


def test_differences_cost_a_copy_of_what_is_sent_on_either_side(tmp_path: Path) -> None:
    shape = read_shape(tiny("qwen2_5_vl").hf_config)
    names = []
    for is_on in (False, True):
        config = cpu_config(tmp_path, f"rollout.weight_channel.differences={str(is_on).lower()}")
        items = {item.name: item.bytes for item in engine_memory(config, shape, None).use.items}
        names.append(items.get("last publication"))
    assert names == [None, 4 * count_parameters(shape).total]
