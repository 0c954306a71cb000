"""Both ends of the gloo weight wire against a real engine: what is generated after a sync is what was sent."""

import asyncio
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tests.integration.environment  # noqa: F401
from tests.integration.loop_client import LoopClient
from tests.integration.tiny import copy_processor, image_sample, perturb, rollout_config, save_tiny_model

TIMEOUT_S = 20.0
BROKEN_S = 6.0
"""After which an engine gives up on a sender that died; the test waits for it."""


def new_sender(
    model: Any,
    client: LoopClient,
    *,
    fail_at: int | None = None,
    changing: Collection[str] | None = None,
    dtype: str = "float32",
) -> Any:
    import socket

    from learner.weight_sender import WeightSender

    def tensors(names: Collection[str]) -> Iterator[tuple[str, Any]]:
        for i, (name, tensor) in enumerate(model.named_parameters()):
            if i == fail_at:
                raise RuntimeError("the learner died here")
            if name in names:
                yield name, tensor

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shapes = {name: tensor.shape for name, tensor in model.named_parameters()}
    return WeightSender(
        shapes, tensors, client=client, backend="gloo", dtype=dtype, rank=0, num_receivers=1, address="127.0.0.1",
        port=port, bucket_bytes=100_000, timeout_s=TIMEOUT_S if fail_at is None else BROKEN_S,
        changing=changing,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("family", "tied"),
    [
        # A minute each. InternVL's tensors are compared, and its completions probed, in test_training_run as well.
        pytest.param("qwen2_5_vl", True, id="qwen2_5_vl_tied_head"),
        pytest.param("internvl", False, id="internvl", marks=pytest.mark.slow),
        pytest.param("qwen2_5_vl", False, id="qwen2_5_vl", marks=pytest.mark.slow),
        pytest.param("internvl", True, id="internvl_tied_head", marks=pytest.mark.slow),
    ],
)
def test_synced_engine_generates_what_a_fresh_engine_of_the_new_weights_generates(
    tmp_path: Path, family: str, tied: bool
) -> None:
    from rollout.engine import GenerationEngine
    from rollout.fingerprint import fingerprint
    from rollout.records import SamplingSpec

    model = save_tiny_model(tmp_path / "old", family=family, tied=tied)
    samples = [image_sample(i) for i in range(6)]
    greedy = SamplingSpec(group_size=1, temperature=0.0, max_completion_tokens=12)

    async def generate(engine: GenerationEngine) -> list[Any]:
        groups = await asyncio.gather(*(engine.generate_group(f"g{i}", s, greedy) for i, s in enumerate(samples)))
        return [group.generations[0] for group in groups]

    async def synced() -> tuple[list[Any], list[Any], list[Any]]:
        engine = GenerationEngine(rollout_config(), tmp_path / "old")
        before = await generate(engine)
        client = LoopClient(engine, asyncio.get_running_loop())

        # A transfer that breaks half-way leaves the engine on its old weights, and usable.
        broken = await asyncio.to_thread(new_sender, perturb(model), client, fail_at=20)
        await engine.pause()
        with pytest.raises(RuntimeError, match="the learner died here"):
            await asyncio.to_thread(broken.send)
        await engine.resume()
        survived = await generate(engine)

        # Then of one block alone: what did not travel again stays as it was sent.
        block = [name for name, _ in model.named_parameters() if "language_model.layers.1." in name]
        sender = await asyncio.to_thread(new_sender, model, client, changing=block)
        await engine.pause()
        await asyncio.to_thread(sender.send)
        perturb(model.get_submodule(block[0].partition(".layers.1.")[0]).layers[1])
        client.weight_version = "7"
        await asyncio.to_thread(sender.send)
        await engine.resume()
        assert [meta.name for meta in sender._source.metadata()] == block
        after = await generate(engine)
        layout = await engine.weight_layout(sender.names())
        held = await engine.weight_fingerprints(sorted(set(layout.values())))
        own = dict(model.named_parameters())
        assert "model.language_model.norm.weight" in layout or "model.norm.weight" in layout
        for name, mine in layout.items():
            if list(layout.values()).count(mine) == 1:
                assert held[mine] == fingerprint(own[name]), name
        sender.close()
        engine.close()
        return before, survived, after

    async def fresh() -> list[Any]:
        engine = GenerationEngine(rollout_config(), tmp_path / "new")
        generations = await generate(engine)
        engine.close()
        return generations

    before, survived, after = asyncio.run(synced())
    model.save_pretrained(tmp_path / "new")
    copy_processor(tmp_path / "old", tmp_path / "new")
    expected = asyncio.run(fresh())

    for old, kept in zip(before, survived, strict=True):
        np.testing.assert_array_equal(old.token_ids, kept.token_ids)
    for new, reference in zip(after, expected, strict=True):
        np.testing.assert_array_equal(new.token_ids, reference.token_ids)
        np.testing.assert_allclose(new.logprobs, reference.logprobs, atol=1e-5)
        assert (new.weight_version_start, new.weight_version_end) == (7, 7)
    assert any(not np.array_equal(old.token_ids, new.token_ids) for old, new in zip(before, after, strict=True))
