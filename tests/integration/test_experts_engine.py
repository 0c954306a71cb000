"""A mixture of experts in a real engine: after a sync each expert is compared in its own place, and generates."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tests.integration.environment  # noqa: F401
from tests.families.case import find_cases, write_model
from tests.families.cases.qwen3_vl_moe import config
from tests.integration.loop_client import LoopClient
from tests.integration.tiny import image_sample, rollout_config, text_sample

pytestmark = pytest.mark.slow

# Width of an expert: 2F is the hidden size of 64, F is, and neither is. The kernel of a CPU rounds the last one up.
WIDTHS = (32, 64, 48)


def save_experts(folder: Path, width: int) -> None:
    case = find_cases()["qwen3_vl_moe"]
    write_model(folder, replace(case, config=partial(config, moe_intermediate_size=width)), tie_word_embeddings=False)


def start_trainer(folder: Path) -> Any:
    from learner.config import LearnerConfig, OptimizerConfig
    from learner.training.trainer import PolicyTrainer

    config = LearnerConfig(model_path=str(folder), optimizer=OptimizerConfig(learning_rate=1e-3))
    return PolicyTrainer(config, rank=0, world_size=1, master_address="127.0.0.1", master_port=0)


def change_every_weight(trainer: Any) -> None:
    import torch

    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trainer.backend.policy.parameters():
            local = parameter.to_local()
            local.add_(torch.randn_like(local) * 0.08)


def send(trainer: Any, client: LoopClient, change: Callable[[str, Any], Any] = lambda name, tensor: tensor) -> None:
    """Publish the learner's weights over gloo; `change` alters a tensor on its way."""
    from learner.weight_sender import WeightSender

    def tensors(names: Any) -> Iterator[tuple[str, Any]]:
        for name, tensor in trainer.backend.full_tensors(names):
            yield name, change(name, tensor).contiguous()

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    sender = WeightSender(
        trainer.backend.full_shapes(), tensors, client=client, backend="gloo", dtype="float32", rank=0, num_receivers=1,
        address="127.0.0.1", port=port, bucket_bytes=100_000, timeout_s=20.0,
    )  # fmt: skip
    sender.send()
    sender.close()


async def wrong_tensors(trainer: Any, engine: Any) -> list[str]:
    """Names of the engine's tensors that differ from the learner's; all that it holds are compared."""
    from orchestration.workers.weight_sync import compare_fingerprints
    from rollout.fingerprint import fingerprint

    own = {name: fingerprint(tensor) for name, tensor in trainer.backend.full_tensors()}
    layout = await engine.weight_layout(list(own))
    held = await engine.weight_fingerprints(sorted(set(layout.values())))
    wrong, count = compare_fingerprints(own, held, layout)
    # Linear layers that vLLM packs for a CPU leave nothing that could be read back; experts are unpacked.
    assert {name for name in own if ".experts." in name} <= layout.keys()
    assert count == len(held) == len(await engine.weight_names())
    return wrong


def as_scored(group: Any) -> Any:
    from learner.records import ScoredGroup, ScoredSequence

    sequences = tuple(
        ScoredSequence(completion_token_ids=g.token_ids, behaviour_logprobs=g.logprobs, reward=0.0, truncated=False)
        for g in group.generations
    )
    return ScoredGroup(
        group_id=group.group_id,
        task=group.sample.task,
        prompt_token_ids=group.prompt_token_ids,
        images=tuple(image.data for image in group.sample.images),
        sequences=sequences,
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_synced_experts_are_equal_each_in_its_place_and_generate_with_the_learners_logprobs(
    tmp_path: Path, width: int, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from rollout.engine import GenerationEngine
    from rollout.records import SamplingSpec

    folder = tmp_path / "model"
    save_experts(folder, width)
    trainer = start_trainer(folder)
    samples = [*(image_sample(i) for i in range(4)), text_sample(4), image_sample(5, (112, 112), (56, 84))]
    spec = SamplingSpec(group_size=2, temperature=1.0, max_completion_tokens=16, seed=3)

    async def generate(engine: GenerationEngine) -> list[Any]:
        return list(await asyncio.gather(*(engine.generate_group(s.sample_id, s, spec) for s in samples)))

    async def differences(engine: GenerationEngine, groups: list[Any]) -> list[float]:
        found = []
        for group in groups:
            ours = trainer.sequence_logprobs(as_scored(group))
            for generation, logprobs in zip(group.generations, ours, strict=True):
                scored = await engine.score_completion(group.sample, generation.token_ids)
                found += np.abs(scored - logprobs).tolist()
        return found

    async def live() -> None:
        engine = GenerationEngine(rollout_config(max_images_per_prompt=2), folder)
        client = LoopClient(engine, asyncio.get_running_loop())
        fresh = await differences(engine, await generate(engine))
        change_every_weight(trainer)
        await engine.pause()
        await asyncio.to_thread(send, trainer, client)
        assert await wrong_tensors(trainer, engine) == []
        await asyncio.to_thread(send, trainer, client)  # a second update packs again
        assert await wrong_tensors(trainer, engine) == []
        await engine.resume()
        synced = await differences(engine, await generate(engine))
        with capsys.disabled():
            print(f"F = {width}: |dlogp| fresh {max(fresh):.2g}, synced {max(synced):.2g}")
        assert max(fresh) < 2e-5
        assert max(synced) < 2e-5

        # Two rows of one expert change places in the learner.
        first = "model.language_model.layers.1.mlp.experts.gate_up_proj"
        with torch.no_grad():
            rows = trainer.backend.policy.hf_model.get_parameter(first).to_local()[3]
            rows[[0, 1]] = rows[[1, 0]]
        changed = "language_model.model.layers.1.mlp.experts.routed_experts.w13_weight"
        assert await wrong_tensors(trainer, engine) == [changed]

        # Experts on their way with swapped axes: where sizes are equal, nothing but the comparison could tell.
        sizes = dict(trainer.backend.full_shapes())
        swapped = [name for name, shape in sizes.items() if ".experts." in name and shape[1] == shape[2]]
        await engine.pause()
        await asyncio.to_thread(send, trainer, client, lambda name, tensor: tensor.mT if name in swapped else tensor)
        await engine.resume()
        assert sorted(await wrong_tensors(trainer, engine)) == sorted((await engine.weight_layout(swapped)).values())
        assert bool(swapped) == (width != 48)
        engine.close()

    try:
        asyncio.run(live())
    finally:
        trainer.close()
