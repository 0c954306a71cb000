"""One engine as recipes build it, compiled and with CUDA graphs, beside a learner rank on the same GPU."""

import asyncio
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "learner"))

from tiny_learner import free_port, make_config

from rollout.placeholders import banned_token_ids
from rollout.records import SamplingSpec
from tests.gpu.test_colocated import scored_group
from tests.integration.tiny import image_sample, rollout_config, save_tiny_model

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

NUM_GROUPS = 32
NUM_PAUSES = 20
SPEC = SamplingSpec(group_size=4, temperature=1.0, max_completion_tokens=64, seed=5)
MISMATCH = 0.05
"""Mean difference of logprobs: bfloat16 on both sides, other kernels."""


def engine_config(*, backend: str) -> Any:
    config = rollout_config(
        device="cuda", dtype="bfloat16", kv_cache_bytes=2 << 30, gpu_memory_utilization=0.3, block_size=None,
        enforce_eager=False,
    )  # fmt: skip
    return replace(config, weight_channel=replace(config.weight_channel, backend=backend, bucket_bytes=1 << 20))


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny"
    save_tiny_model(path)
    return path


@pytest.fixture
def trainer(model_path: Path) -> Any:
    from learner.training.trainer import PolicyTrainer

    config = make_config(model_path, num_ranks=1, device="cuda", dtype="bfloat16", micro_batch_tokens=512)
    made = PolicyTrainer(
        config, rank=0, world_size=1, master_address="127.0.0.1", master_port=free_port(), seed=1,
        banned_token_ids=banned_token_ids(model_path),
    )  # fmt: skip
    yield made
    made.close()


def test_groups_sampled_through_graphs_and_pauses_have_the_learners_logprobs(model_path: Path, trainer: Any) -> None:
    pytest.importorskip("vllm")
    from rollout.engine import GenerationEngine

    async def sampled() -> list[Any]:
        engine = GenerationEngine(engine_config(backend="nccl"), model_path)
        try:
            waiting = [
                asyncio.create_task(engine.generate_group(f"g{i}", image_sample(i), SPEC)) for i in range(NUM_GROUPS)
            ]
            for _ in range(NUM_PAUSES):
                await engine.pause()
                await engine.resume()
            return await asyncio.gather(*waiting)
        finally:
            engine.close()

    groups = [scored_group(group) for group in asyncio.run(sampled())]

    report = trainer.train_step(groups, step=0)

    mismatch, num_tokens = report.metrics["policy/mismatch"], sum(s.num_tokens for g in groups for s in g.sequences)
    print(f"found: {num_tokens} tokens, engine and learner apart by {mismatch:.5f} in the mean")
    assert [len(group.sequences) for group in groups] == [SPEC.group_size] * NUM_GROUPS
    assert mismatch < MISMATCH


def test_the_production_client_brings_weights_over_by_ipc(
    model_path: Path, trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("vllm")
    if "ray" not in sys.modules:  # a machine may be without it; nothing of it is used here
        monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))
    from learner.weight_sender import WeightSender
    from orchestration.workers import learner_actor as engine_client
    from rollout.engine import GenerationEngine

    monkeypatch.setattr(
        engine_client, "ray", SimpleNamespace(get=lambda answers: [answer.result() for answer in answers])
    )

    async def scenario() -> tuple[Any, np.ndarray, np.ndarray]:
        engine = GenerationEngine(engine_config(backend="ipc"), model_path)
        loop = asyncio.get_running_loop()

        class Actor:
            """The engine as an actor's handle shows it."""

            def __getattr__(self, method: str) -> Any:
                call = getattr(engine, method)
                return SimpleNamespace(remote=lambda *told: asyncio.run_coroutine_threadsafe(call(*told), loop))

        try:
            group = scored_group(await engine.generate_group("g", image_sample(0), SPEC))
            await asyncio.to_thread(partial(trainer.train_step, [group], step=0))
            client = engine_client.EngineClient([Actor()], workers_per_engine=1)  # type: ignore[list-item]
            sender = await asyncio.to_thread(
                lambda: WeightSender(
                    trainer.backend.full_shapes(), trainer.backend.full_tensors, client=client, backend="ipc",
                    dtype="bfloat16", rank=0, num_receivers=1, address="", port=0, bucket_bytes=1 << 20, timeout_s=60.0,
                )
            )  # fmt: skip
            client.weight_version = "1"
            await engine.pause()
            await asyncio.to_thread(sender.send)
            await engine.resume()
            sent = await asyncio.to_thread(trainer.sequence_logprobs, group)
            scored = await engine.score_completion(image_sample(0), group.sequences[0].completion_token_ids)
            after = await engine.generate_group("after", image_sample(0), SPEC)
        finally:
            engine.close()
        return after, scored, sent[0]

    after, scored, sent = asyncio.run(scenario())

    print(f"found: version {after.generations[0].weight_version_end}, difference {np.abs(scored - sent).mean():.5f}")
    assert after.generations[0].weight_version_end == 1
    assert np.abs(scored - sent).mean() < MISMATCH
