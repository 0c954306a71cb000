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
BROKEN_S = 6.0
"""After which an engine gives up on a sender that died."""
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
    """A sender of what the learner publishes, or of what `read` in the options yields."""
    from learner.weight_sender import WeightSender

    read, timeout_s = options.pop("read", backend.published_tensors), options.pop("timeout_s", TIMEOUT_S)

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return WeightSender(
        backend.published_shapes(), read, client=client, backend="gloo", dtype="float32", rank=0,
        num_receivers=1, address="127.0.0.1", port=port, bucket_bytes=10_000, timeout_s=timeout_s,
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
        try:
            num_bytes: int = await asyncio.to_thread(self.sender.send)
        finally:
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

    def broken(names: Any) -> Any:
        for i, (name, tensor) in enumerate(trainer.backend.published_tensors(names)):
            if i == 5:
                raise RuntimeError("the learner died here")
            yield name, 2 * tensor

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

        # One whose transfer breaks goes on with what it has; a new channel brings the adapter again.
        adapted.sender.close()
        adapted.sender = None
        with pytest.raises(RuntimeError, match="the learner died here"):
            await adapted.publish(4, read=broken, timeout_s=BROKEN_S)
        still = [await adapted.engine.score_completion(g.sample, g.generations[0].token_ids) for g in groups]
        np.testing.assert_array_equal(np.concatenate(still), np.concatenate(kept))
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


@pytest.mark.slow  # an engine and a learner each, half a minute
@pytest.mark.parametrize("in_flight", ["keep", "keep_cache", "wait", "abort"])
def test_completions_that_run_when_an_adapter_arrives_go_on_as_the_settings_say(tmp_path: Path, in_flight: Any) -> None:
    """Each token's logprob is the old or the new policy's, which a merged folder has; sampled tokens tell which."""
    import torch
    from plain_model import whole_policy

    from learner.policy.images import ImageEncoder
    from rollout.engine import GenerationEngine
    from rollout.placeholders import banned_token_ids
    from rollout.records import SamplingSpec
    from tests.families.packing import pack

    model = tmp_path / "model"
    save_tiny_model(model)
    samples = [image_sample(i) for i in range(4)]
    short = SamplingSpec(group_size=4, temperature=1.0, max_completion_tokens=12, seed=3)
    long = replace(short, max_completion_tokens=100)
    trainer = start_trainer(model, LORA)
    folders = [tmp_path / "old", tmp_path / "new"]
    factors = trainer.backend.changing_names()
    published: list[dict[str, Any]] = []
    config = rollout_config()
    config = replace(config, weight_channel=replace(config.weight_channel, in_flight=in_flight))

    def read(names: Any) -> Any:
        return ((name, tensor) for name, tensor in published[-1].items() if name in names)

    async def run() -> tuple[list[Any], int]:
        adapted = Published(trainer, GenerationEngine(config, model, adapter=adapter_of(learner_config(model, LORA))))
        published.append(dict(trainer.backend.published_tensors(factors)))
        await adapted.publish(0, read=read)
        groups = await asyncio.gather(*(adapted.engine.generate_group(s.sample_id, s, short) for s in samples))
        for step, folder in enumerate(folders):
            trainer.train_step([scored(group) for group in groups], step=step)
            trainer.export(folder)
            published.append(dict(trainer.backend.published_tensors(factors)))
        later = published.pop()
        await adapted.publish(1)
        running = [asyncio.ensure_future(adapted.engine.generate_group(s.sample_id, s, long)) for s in samples]
        await adapted.engine.generate_group("clock", samples[0], short)
        published.append(later)
        await adapted.publish(2)
        found = await asyncio.gather(*running)
        adapted.close()
        return found, sum(group.num_aborted_tokens for group in found)

    groups, num_aborted = asyncio.run(run())
    trainer.close()
    pieces = [(one, replace(whole, sequences=(one,))) for whole in map(scored, groups) for one in whole.sequences]
    by_policy = []
    for folder in folders:
        policy = whole_policy(folder, banned_token_ids=banned_token_ids(folder))
        encoder = ImageEncoder.from_pretrained(folder, policy.family)
        with torch.no_grad():
            by_policy.append([policy(pack(policy, encoder, [piece]))[0].numpy() for _, piece in pieces])
    num_old = num_new = num_tokens = 0
    for (one, _), old, new in zip(pieces, *by_policy, strict=True):
        is_old, is_new = (np.abs(one.behaviour_logprobs - own) < 2e-5 for own in (old, new))
        switch = len(is_old) if is_old.all() else int(is_old.argmin())
        num_tokens += len(is_old)
        num_old += switch
        num_new += int(is_new[switch:].sum())
    spans = {(one.weight_version_start, one.weight_version_end) for group in groups for one in group.generations}
    print(f"{in_flight}: {sorted(spans)}; of {num_tokens} tokens {num_old} by the old policy, {num_new} by the new")
    assert num_tokens > 200
    if in_flight == "wait":
        assert (spans, num_old) == ({(1, 1)}, num_tokens)
    elif in_flight == "abort":
        assert num_aborted > 0
        assert (spans, num_new) == ({(2, 2)}, num_tokens)
    else:
        assert (1, 2) in spans
        assert 0 < num_old < num_tokens
        # With the old keys and values in the cache the rest is by neither of the two.
        assert (num_old + num_new == num_tokens) == (in_flight == "keep")
