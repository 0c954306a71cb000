"""Engines of further models without a family: logprobs as the learner's, and which of its tensors are the learner's.

Gemma 4 and a language model are in tests/families.
"""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from generic_models import write_vision
from plain_model import whole_policy
from test_generic_family import build

import tests.integration.environment  # noqa: F401
from learner.records import ScoredGroup, ScoredSequence
from rollout.records import RolloutGroup, SamplingSpec
from tests.integration.tiny import image_sample, rollout_config, text_sample

SPEC = SamplingSpec(group_size=3, temperature=1.0, max_completion_tokens=12, seed=5)
TOLERANCE = 1e-5
TRIED = ("mistral3", "idefics3")

pytestmark = pytest.mark.slow


async def generated(folder: Path, names: list[str]) -> tuple[list[RolloutGroup], dict[str, str], list[str]]:
    from rollout.engine import GenerationEngine

    engine = GenerationEngine(rollout_config(max_model_len=448, max_images_per_prompt=2), folder)
    samples = [text_sample(1), text_sample(2), image_sample(3), image_sample(4, (84, 56), (112, 28))]
    groups = await asyncio.gather(*(engine.generate_group(s.sample_id, s, SPEC) for s in samples))
    layout = await engine.weight_layout(names)
    own = await engine.weight_names()
    engine.close()
    return list(groups), layout, own


def scored(group: RolloutGroup) -> ScoredGroup:
    return ScoredGroup(
        group_id=group.group_id,
        task="math",
        prompt_token_ids=group.prompt_token_ids,
        images=tuple(image.data for image in group.sample.images),
        sequences=tuple(
            ScoredSequence(
                completion_token_ids=one.token_ids, behaviour_logprobs=one.logprobs, reward=0.0, truncated=False
            )
            for one in group.generations
        ),
    )


@pytest.mark.parametrize("name", TRIED)
def test_logprobs_of_the_engine_are_the_learners_and_its_tensors_are_known(
    name: str, tmp_path: Path, differences: Any
) -> None:
    import torch

    from learner.policy.source import checkpoint_names
    from rollout.placeholders import banned_token_ids

    write_vision(tmp_path, name)
    policy = whole_policy(tmp_path, banned_token_ids=banned_token_ids(tmp_path))
    names = list(checkpoint_names(policy.hf_model).values())

    groups, layout, own = asyncio.run(generated(tmp_path, names))
    batch = build(policy, tmp_path, [scored(group) for group in groups])
    with torch.no_grad():
        logprobs, _ = policy(replace(batch, temperatures=None))

    engine = np.concatenate([one.logprobs for group in groups for one in group.generations])
    differences.check("engine = learner", name, engine, logprobs, atol=TOLERANCE)
    assert set(layout.values()) == set(own)
