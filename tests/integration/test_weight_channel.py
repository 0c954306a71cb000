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
    fail_at: Collection[int] = (),
    changing: Collection[str] | None = None,
    dtype: str = "float32",
    timeout_s: float = TIMEOUT_S,
    sends_differences: bool = False,
) -> Any:
    import socket

    from learner.weight_sender import WeightSender

    def tensors(names: Collection[str]) -> Iterator[tuple[str, Any]]:
        for i, (name, tensor) in enumerate(model.named_parameters()):
            if i in fail_at:
                raise RuntimeError("the learner died here")
            if name in names:
                yield name, tensor

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shapes = {name: tensor.shape for name, tensor in model.named_parameters()}
    return WeightSender(
        shapes, tensors, client=client, backend="gloo", dtype=dtype, rank=0, num_receivers=1, address="127.0.0.1",
        port=port, bucket_bytes=100_000, timeout_s=timeout_s, changing=changing, sends_differences=sends_differences,
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
        broken = await asyncio.to_thread(new_sender, perturb(model), client, fail_at={20}, timeout_s=BROKEN_S)
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


def nudge(model: Any, seed: int) -> None:
    """Change a few elements of every weight."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            flat = parameter.view(-1)
            flat[torch.randint(len(flat), (1 + len(flat) // 50,), generator=generator)] += 0.1


@pytest.mark.slow  # half a minute each
@pytest.mark.parametrize(("family", "tied"), [("qwen2_5_vl", False), ("qwen2_5_vl", True), ("internvl", False)])
def test_an_engine_that_is_sent_differences_has_the_whole_model_after_each(
    tmp_path: Path, family: str, tied: bool
) -> None:
    """All its tensors are compared; copies that are packed, by logprobs: they are those after whole tensors."""
    from orchestration.workers.weight_sync import compare_fingerprints
    from rollout.engine import GenerationEngine
    from rollout.fingerprint import fingerprint
    from rollout.records import SamplingSpec

    model = save_tiny_model(tmp_path / "model", family=family, tied=tied)
    sample = image_sample(0)
    greedy = SamplingSpec(group_size=1, temperature=0.0, max_completion_tokens=12)

    async def run() -> None:
        engine = GenerationEngine(rollout_config(dtype="bfloat16"), tmp_path / "model")
        client = LoopClient(engine, asyncio.get_running_loop())
        completion = (await engine.generate_group("g", sample, greedy)).generations[0].token_ids

        async def publish(sender: Any) -> int:
            await engine.pause()
            try:
                num_bytes: int = await asyncio.to_thread(sender.send)
            finally:
                await engine.resume()
            return num_bytes

        async def check_all(sender: Any) -> None:
            own = await asyncio.to_thread(sender.fingerprints, list(layout), fingerprint)
            assert compare_fingerprints(own, await engine.weight_fingerprints(names), layout) == ([], len(names))

        fails: set[int] = set()
        options = {"dtype": "bfloat16", "fail_at": fails, "timeout_s": BROKEN_S, "sends_differences": True}
        sender = await asyncio.to_thread(lambda: new_sender(model, client, **options))
        sent = [await publish(sender)]
        layout, names = await engine.weight_layout(sender.names()), await engine.weight_names()
        before = await engine.score_completion(sample, completion)
        for version in range(4):
            nudge(model, version)
            sent.append(await publish(sender))
            await check_all(sender)
        after = await engine.score_completion(sample, completion)
        assert np.abs(after - before).max() > 0.1

        # A new channel begins with whole tensors, which change nothing.
        sender.close()
        sender = await asyncio.to_thread(lambda: new_sender(model, client, **options))
        assert await publish(sender) == sent[0]
        np.testing.assert_array_equal(await engine.score_completion(sample, completion), after)

        # A transfer that breaks half-way leaves the engine as it was.
        fails.add(20)
        nudge(model, 4)
        with pytest.raises(RuntimeError, match="the learner died here"):
            await publish(sender)
        np.testing.assert_array_equal(await engine.score_completion(sample, completion), after)
        fails.clear()
        sender = await asyncio.to_thread(lambda: new_sender(model, client, **options))
        assert await publish(sender) == sent[0]
        await check_all(sender)
        sender.close()
        engine.close()
        print(f"{family}, {'tied' if tied else 'own'} head: {sent[0]:,} bytes whole, then {sent[1:]}")
        assert max(sent[1:]) < sent[0] / 4

    asyncio.run(run())
