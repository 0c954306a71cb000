"""An engine of Qwen3.5 on CPU, in bfloat16: logprobs, weights after a publication, and an update in mid-flight."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tests.integration.environment  # noqa: F401
from orchestration.workers.weight_sync import compare_fingerprints
from rollout.errors import RolloutError
from rollout.records import RolloutGroup, SamplingSpec
from tests.integration.loop_client import LoopClient
from tests.integration.test_weight_channel import new_sender
from tests.integration.tiny import image_sample, perturb, rollout_config, save_tiny_model, text_sample

pytestmark = pytest.mark.slow

SPEC = SamplingSpec(group_size=4, temperature=1.0, max_completion_tokens=24, seed=11)
LONG = SamplingSpec(group_size=4, temperature=1.0, max_completion_tokens=100, seed=11)
SAMPLES = [image_sample(0), image_sample(5, (56, 84)), text_sample(6)]
MEAN_DIFFERENCE, LARGEST_DIFFERENCE = 0.03, 0.3
"""Allowed between logprobs of the engine, in bfloat16, and of transformers in float32 or bfloat16."""
CHANGED = (
    "model.language_model.layers.0.linear_attn.conv1d.weight",
    "model.language_model.layers.0.linear_attn.A_log",
    "model.language_model.layers.1.linear_attn.dt_bias",
    "model.language_model.layers.1.linear_attn.norm.weight",
)


@pytest.mark.parametrize(("family", "caches"), [("qwen3_5", False), ("qwen2_5_vl", True)])
def test_prompts_are_cached_on_cpu_unless_their_states_would_need_chunks(
    tmp_path: Path, family: str, caches: bool
) -> None:
    from rollout.translation import engine_args

    save_tiny_model(tmp_path, family=family)

    assert engine_args(rollout_config(dtype="bfloat16"), tmp_path).enable_prefix_caching == caches


def test_float32_on_cpu_is_refused_before_anything_starts(tmp_path: Path) -> None:
    from rollout.translation import engine_args

    save_tiny_model(tmp_path, family="qwen3_5")

    with pytest.raises(RolloutError, match="on CPU in bfloat16 only; use rollout=vllm_cpu_bfloat16"):
        engine_args(rollout_config(), tmp_path)


class Observed:
    """Everything that the tests look at, of one engine: before, across and after an update."""

    before: list[RolloutGroup]
    again: list[RolloutGroup]
    across: list[RolloutGroup]
    after: list[RolloutGroup]
    names: list[str]
    layout: dict[str, str]
    wrong: list[str]
    num_compared: int
    noticed: dict[str, list[str]]
    old: Any
    new: Any


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model") / "tiny"


@pytest.fixture(scope="module")
def observed(folder: Path) -> Observed:
    import torch
    from transformers import AutoModelForImageTextToText

    from rollout.engine import GenerationEngine
    from rollout.fingerprint import fingerprint

    model = save_tiny_model(folder, family="qwen3_5")

    async def observe() -> Observed:
        engine = GenerationEngine(rollout_config(dtype="bfloat16"), folder)
        found = Observed()

        async def generate(spec: SamplingSpec) -> list[RolloutGroup]:
            return list(await asyncio.gather(*(engine.generate_group(s.sample_id, s, spec) for s in SAMPLES)))

        found.before, found.again = await generate(SPEC), await generate(SPEC)
        client = LoopClient(engine, asyncio.get_running_loop())
        sender = await asyncio.to_thread(new_sender, perturb(model), client, dtype="bfloat16")
        running = asyncio.ensure_future(generate(LONG))
        # The first short group to end finds the long ones in mid-flight.
        await engine.generate_group("short", SAMPLES[2], SPEC)
        await engine.pause()
        assert not running.done()
        client.weight_version = "7"
        await asyncio.to_thread(sender.send)
        await engine.resume()
        found.across, found.after = await running, await generate(SPEC)

        found.names = sender.names()
        found.layout = await engine.weight_layout(found.names)
        held = await engine.weight_fingerprints(sorted(set(found.layout.values())))
        sent = sender.fingerprints(list(found.layout), fingerprint)
        found.wrong, found.num_compared = compare_fingerprints(sent, held, found.layout)
        found.noticed = {}
        for name in CHANGED:
            parameter = model.get_parameter(name)
            kept = parameter.detach().clone()
            with torch.no_grad():
                parameter.flatten()[-1] += 1.0
            changed = {**sent, name: fingerprint(parameter.to(torch.bfloat16))}
            found.noticed[name] = compare_fingerprints(changed, held, found.layout)[0]
            with torch.no_grad():
                parameter.copy_(kept)
        sender.close()
        engine.close()
        return found

    found = asyncio.run(observe())
    found.old = AutoModelForImageTextToText.from_pretrained(folder)
    found.new = model
    return found


def differences(model: Any, groups: list[RolloutGroup], folder: Path) -> np.ndarray:
    """Of all tokens, engine's logprob minus that of transformers' own forward pass of one sequence."""
    import io

    import torch
    from PIL import Image
    from transformers import AutoProcessor

    from rollout.placeholders import banned_token_ids

    processor = AutoProcessor.from_pretrained(folder)
    found = []
    for group in groups:
        pictures = [Image.open(io.BytesIO(image.data)) for image in group.sample.images]
        vision = dict(processor.image_processor(images=pictures, return_tensors="pt")) if pictures else {}
        for generation in group.generations:
            ids = torch.tensor([[*group.prompt_token_ids, *generation.token_ids]])
            types = (ids == model.config.image_token_id).int()
            with torch.no_grad():
                logits = model(input_ids=ids, mm_token_type_ids=types, use_cache=False, **vision).logits[0].float()
            logits = logits[len(group.prompt_token_ids) - 1 : -1]
            logits[:, list(banned_token_ids(folder))] = -torch.inf
            chosen = ids[0, len(group.prompt_token_ids) :, None]
            found.append(generation.logprobs - logits.log_softmax(-1).gather(1, chosen)[:, 0].numpy())
    return np.abs(np.concatenate(found))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_logprobs_are_near_those_of_transformers(
    observed: Observed, folder: Path, when: str, dtype: str, record_property: Any
) -> None:
    import copy

    import torch

    model = copy.deepcopy(observed.old if when == "before" else observed.new).to(getattr(torch, dtype)).eval()

    found = differences(model, getattr(observed, when), folder)

    record_property("mean and largest", (found.mean(), found.max()))
    print(f"engine - transformers {dtype}, {when} the update: mean {found.mean():.1e}, largest {found.max():.1e}")
    assert found.mean() < MEAN_DIFFERENCE
    assert found.max() < LARGEST_DIFFERENCE


def test_an_update_changes_what_is_sampled_and_stale_states_would_be_seen(observed: Observed, folder: Path) -> None:
    old = differences(observed.old, observed.after, folder)

    assert old.mean() > 5 * MEAN_DIFFERENCE


def test_seeds_fix_completions(observed: Observed) -> None:
    one, other = (
        [generation.token_ids.tolist() for group in groups for generation in group.generations]
        for groups in (observed.before, observed.again)
    )
    assert one == other


def test_a_completion_that_an_update_interrupts_goes_on_under_the_new_weights(observed: Observed, folder: Path) -> None:
    """Its state is computed again: tokens after the update have the new weights' logprobs, given all before them."""
    spans = [g for group in observed.across for g in group.generations]
    assert any((g.weight_version_start, g.weight_version_end) == (0, 7) for g in spans)
    last = [
        differences(observed.new, [group], folder).reshape(len(group.generations), -1)[:, -8:]
        for group in observed.across
        if len({len(g.token_ids) for g in group.generations}) == 1
        and all(g.weight_version_end == 7 for g in group.generations)
    ]
    assert last
    assert np.concatenate(last).max() < LARGEST_DIFFERENCE


def test_all_tensors_that_the_engine_can_read_back_are_those_that_were_sent(observed: Observed) -> None:
    assert observed.wrong == []
    assert observed.num_compared > 40
    linear = {name.rpartition("linear_attn.")[2] for name in observed.layout if ".linear_attn." in name}
    assert {"conv1d.weight", "A_log", "dt_bias", "norm.weight"} <= linear


@pytest.mark.parametrize("name", CHANGED)
def test_a_tensor_that_differs_is_named(observed: Observed, name: str) -> None:
    assert observed.noticed[name] == [observed.layout[name]]
