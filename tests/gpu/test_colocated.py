"""One GPU, an engine and a learner rank: memory changes hands, weights go over by CUDA IPC, both sides then agree."""

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "learner"))

from tiny_learner import free_port, make_config

from rollout.records import SamplingSpec
from tests.integration.loop_client import LoopClient
from tests.integration.tiny import image_sample, rollout_config, save_tiny_model

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

CACHE_BYTES = 2 << 30
MLP_WIDTH = 8192
"""Wide enough that weights are seen among what CUDA itself takes."""
ROUNDS = 3
SPEC = SamplingSpec(group_size=4, temperature=1.0, max_completion_tokens=16, seed=5)


def free_bytes() -> int:
    """Of the whole GPU, whichever process has the rest."""
    return torch.cuda.mem_get_info()[0]


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny"
    save_tiny_model(path, mlp_width=MLP_WIDTH)
    return path


@pytest.fixture
def trainer(model_path: Path) -> Iterator[Any]:
    from learner.training.trainer import PolicyTrainer

    config = make_config(model_path, num_ranks=1, device="cuda", dtype="bfloat16", micro_batch_tokens=512)
    made = PolicyTrainer(config, rank=0, world_size=1, master_address="127.0.0.1", master_port=free_port(), seed=1)
    yield made
    made.close()


def shared_rollout() -> Any:
    config = rollout_config(
        device="cuda", dtype="bfloat16", kv_cache_bytes=CACHE_BYTES, gpu_memory_utilization=0.3, block_size=None
    )
    return replace(config, weight_channel=replace(config.weight_channel, backend="ipc", bucket_bytes=1 << 20))


def scored_group(group: Any) -> Any:
    """As the conductor hands it to the learner, with rewards that differ."""
    from orchestration.workers.tickets import to_scored_group
    from rewards.core.base import Reason, RewardResult

    def result(reward: float) -> RewardResult:
        return RewardResult(
            reward=reward, task_reward=reward, format_reward=1.0, breakdown={"match": reward}, parsed_answer="4",
            reason=Reason.OK,
        )  # fmt: skip

    return to_scored_group(group, [result(float(i % 2)) for i in range(len(group.generations))])


async def steps(engine: Any, trainer: Any) -> dict[str, list[float]]:
    """Whole colocated steps; gives the free bytes at each hand-over, and how far both sides are apart after each."""
    from learner.weight_sender import WeightSender

    found: dict[str, list[float]] = {name: [] for name in ("slept", "kept", "offloaded", "cache", "mismatch", "moved")}
    client = LoopClient(engine, asyncio.get_running_loop())
    sender = None
    for step in range(ROUNDS):
        group = scored_group(await engine.generate_group(f"g{step}", image_sample(step), SPEC))
        before = free_bytes()
        await engine.sleep()
        found["slept"].append(free_bytes() - before)

        await asyncio.to_thread(trainer.backend.onload)
        report = await asyncio.to_thread(partial(trainer.train_step, [group], step=step))
        found["moved"].append(report.metrics["policy/grad_norm"])
        expected = await asyncio.to_thread(trainer.sequence_logprobs, group)

        await asyncio.to_thread(trainer.release_cache)
        # What a step took at its peak is the GPU's again; blocks of a few megabytes hold something small that stays.
        found["kept"].append(torch.cuda.memory_reserved() / torch.cuda.memory_allocated())
        await engine.wake_weights()
        if sender is None:
            sender = await asyncio.to_thread(
                lambda: WeightSender(
                    trainer.backend.full_shapes(), trainer.backend.full_tensors, client=client, backend="ipc",
                    dtype="bfloat16", rank=0, num_receivers=1, address="", port=0, bucket_bytes=1 << 20, timeout_s=60.0,
                )
            )  # fmt: skip
        client.weight_version = str(step + 1)
        await asyncio.to_thread(sender.send)

        before = free_bytes()
        freed = await asyncio.to_thread(trainer.backend.offload)
        found["offloaded"].append((free_bytes() - before) / freed)
        before = free_bytes()
        await engine.wake_cache()
        found["cache"].append(before - free_bytes())
        await engine.resume()

        scored = await engine.score_completion(image_sample(step), group.sequences[0].completion_token_ids)
        found["mismatch"].append(float(np.abs(scored - expected[0]).mean()))
    return found


def test_memory_changes_hands_and_weights_arrive_in_every_step(model_path: Path, trainer: Any) -> None:
    pytest.importorskip("vllm", reason="the engine", exc_type=ImportError)
    from rollout.engine import GenerationEngine

    async def scenario() -> tuple[dict[str, list[float]], int]:
        trainer.backend.offload()
        engine = GenerationEngine(shared_rollout(), model_path)
        try:
            found = await steps(engine, trainer)
            again = await engine.generate_group("last", image_sample(0), SPEC)
        finally:
            engine.close()
        return found, again.generations[0].weight_version_end

    found, version = asyncio.run(scenario())

    assert version == ROUNDS
    assert min(found["slept"]) > 0.95 * CACHE_BYTES
    assert max(found["kept"]) < 1.2
    assert min(found["cache"]) > 0.95 * CACHE_BYTES
    # The allocator gives whole segments back; a few of them hold something small that stays.
    assert min(found["offloaded"]) > 0.9
    assert min(found["moved"]) > 0.0
    # bfloat16 on both sides, other kernels.
    assert max(found["mismatch"]) < 0.05


def test_offloaded_trainer_goes_on_as_one_that_stayed(model_path: Path) -> None:
    from learner_scenarios import start_trainer, train

    def weights(leaves: bool) -> dict[str, torch.Tensor]:
        made = start_trainer(0, 1, 0, model_path, device="cuda", dtype="bfloat16")
        for step in range(2):
            train(made, 0, 1, step, step + 1)
            if leaves:
                held = torch.cuda.memory_allocated()
                freed = made.offload()
                assert torch.cuda.memory_allocated() < 0.1 * held
                assert freed > 0.9 * held
                made.onload()
        found = {name: tensor.cpu() for name, tensor in made.backend.full_tensors()}
        made.close()
        return found

    stayed, left = weights(False), weights(True)
    for name, tensor in stayed.items():
        torch.testing.assert_close(left[name], tensor, rtol=0, atol=1e-3)
