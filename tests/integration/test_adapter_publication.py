"""An engine that takes adapters alone and keeps the weights of its model, against one that takes merged weights."""

import asyncio
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tests.integration.environment  # noqa: F401
from learner.config import LearnerConfig, LoraConfig, OptimizerConfig
from learner.records import ScoredGroup, ScoredSequence
from orchestration.settings.experiment import adapter_of
from orchestration.workers.weight_sync import compare_fingerprints
from rollout.fingerprint import fingerprint
from tests.integration.loop_client import LoopClient
from tests.integration.tiny import image_sample, rollout_config, save_tiny_model

TIMEOUT_S = 60.0
LORA = LoraConfig(rank=12, alpha=48.0, publish="adapter")
"""Of a rank for which engines have larger buffers."""


def learner_config(model: Path, lora: LoraConfig) -> LearnerConfig:
    return LearnerConfig(
        optimizer=OptimizerConfig(learning_rate=5e-3), model_path=str(model), freeze=("vision_tower", "projector"),
        lora=lora,
    )  # fmt: skip


def start_trainer(model: Path, lora: LoraConfig) -> Any:
    from learner.training.trainer import PolicyTrainer

    return PolicyTrainer(
        learner_config(model, lora), rank=0, world_size=1, master_address="127.0.0.1", master_port=0, seed=1
    )


def connect(backend: Any, client: LoopClient, **options: Any) -> Any:
    from learner.weight_sender import WeightSender

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return WeightSender(
        backend.published_shapes(), backend.published_tensors, client=client, backend="gloo", dtype="float32", rank=0,
        num_receivers=1, address="127.0.0.1", port=port, bucket_bytes=100_000, timeout_s=TIMEOUT_S,
        missing=backend.missing_names(), changing=backend.changing_names(), **options,
    )  # fmt: skip


def scored(group: Any) -> ScoredGroup:
    """The group with made-up rewards, so that a step moves the policy."""
    return ScoredGroup(
        group_id=group.group_id,
        task=group.sample.task,
        prompt_token_ids=group.prompt_token_ids,
        images=tuple(image.data for image in group.sample.images),
        sequences=tuple(
            ScoredSequence(
                completion_token_ids=one.token_ids,
                behaviour_logprobs=one.logprobs,
                reward=float(number % 2),
                truncated=False,
            )
            for number, one in enumerate(group.generations)
        ),
    )


class Published:
    """A learner's weights in one engine."""

    def __init__(self, trainer: Any, engine: Any) -> None:
        self.trainer, self.engine = trainer, engine
        self.client = LoopClient(engine, asyncio.get_running_loop())
        self.sender: Any = None

    async def publish(self, version: int, **options: Any) -> int:
        if self.sender is None:
            self.sender = await asyncio.to_thread(connect, self.trainer.backend, self.client, **options)
        self.client.weight_version = str(version)
        await self.engine.pause()
        num_bytes: int = await asyncio.to_thread(self.sender.send)
        await self.engine.resume()
        return num_bytes

    async def compare(self) -> int:
        """Number of the engine's tensors that equal the learner's; all that can be read must."""
        layout = await self.engine.weight_layout(self.sender.names())
        held = await self.engine.weight_fingerprints(sorted(set(layout.values())))
        sent = self.sender.fingerprints(list(layout), fingerprint)
        wrong, num_compared = compare_fingerprints(sent, held, layout)
        assert wrong == []
        return num_compared

    def close(self) -> None:
        self.sender.close()
        self.engine.close()


@pytest.mark.slow  # two engines and a learner, a minute
@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl"])
def test_an_engine_with_the_adapter_alone_computes_what_one_with_merged_weights_computes(
    tmp_path: Path, family: Any
) -> None:
    from rollout.engine import GenerationEngine
    from rollout.records import SamplingSpec

    model = tmp_path / "model"
    save_tiny_model(model, family=family)
    samples = [image_sample(i) for i in range(4)]
    spec = SamplingSpec(group_size=4, temperature=1.0, max_completion_tokens=12, seed=3)
    trainer = start_trainer(model, LORA)

    async def run() -> None:
        adapted = Published(
            trainer, GenerationEngine(rollout_config(), model, adapter=adapter_of(learner_config(model, LORA)))
        )
        num_tensors = len(trainer.backend.changing_names())
        sizes = []
        groups: list[Any] = []
        before: list[Any] = []
        for version in range(3):
            sizes.append(await adapted.publish(version))
            assert await adapted.compare() > num_tensors
            asked = (adapted.engine.generate_group(f"g{version}-{i}", s, spec) for i, s in enumerate(samples))
            groups = await asyncio.gather(*asked)
            before = [await adapted.engine.score_completion(g.sample, g.generations[0].token_ids) for g in groups]
            trainer.train_step([scored(group) for group in groups], step=version)
        assert len(set(sizes)) == 1
        await adapted.publish(3)
        await adapted.compare()
        kept = [await adapted.engine.score_completion(g.sample, g.generations[0].token_ids) for g in groups]
        moved = max(np.abs(one - other).max() for one, other in zip(kept, before, strict=True))
        own = [trainer.sequence_logprobs(scored(group))[0] for group in groups]

        # One whose update breaks goes on with what it has; a new channel brings the adapter again.
        adapted.sender.close()
        adapted.sender = None
        again = await adapted.publish(4, sends_differences=True)
        assert again == sizes[0]
        assert await adapted.publish(5) < sizes[0] / 100
        assert await adapted.compare() > num_tensors
        adapted.close()

        # The same adapters merged, in an engine that takes whole weights.
        trainer.export_adapter(tmp_path / "adapter")
        trainer.close()
        merging = start_trainer(model, replace(LORA, publish="merged", start=str(tmp_path / "adapter")))
        merged = Published(merging, GenerationEngine(rollout_config(), model))
        full = await merged.publish(4)
        expected = [await merged.engine.score_completion(g.sample, g.generations[0].token_ids) for g in groups]
        merged.close()
        merging.close()

        difference = max(np.abs(one - other).max() for one, other in zip(kept, expected, strict=True))
        to_learner = max(np.abs(one - other).max() for one, other in zip(kept, own, strict=True))
        print(
            f"{family}: |dlogp| adapter to merged {difference:.1e}, adapter to learner {to_learner:.1e}, moved "
            f"{moved:.1e} by training; {sizes[0]:,} of {full:,} bytes"
        )
        assert moved > 1e-3
        assert difference < 1e-5
        assert to_learner < 1e-5

    asyncio.run(run())
