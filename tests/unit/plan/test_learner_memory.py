"""Planned memory of a learner rank against the tensors that a real one holds, byte by byte of torch's allocator."""

from pathlib import Path
from typing import Any

import pytest

from learner.config import LoraConfig
from orchestration.plan.learner_memory import TRANSFER
from tests.benchmarks.memory_cases import Case, Measured, demo_case, fullest, measure_fsdp, plan, write_model
from tests.tiny_models import TINY_MODELS

TOLERANCE = 0.15

CASES = {
    "activations are the peak": Case(),
    "activations are the peak, InternVL": Case(family="internvl"),
    "activations are the peak, InternVL3.5": Case(family="internvl3_5"),
    "activations are the peak, Qwen3-VL": Case(family="qwen3_vl"),
    "recomputation, Qwen3-VL, bfloat16": Case(
        family="qwen3_vl", learner={"activation_checkpointing": True, "dtype": "bfloat16"}
    ),
    "logits are the peak": Case(vocab_size=8192, prompt_tokens=40, image_side=56),
    "bfloat16": Case(learner={"dtype": "bfloat16"}),
    "recomputation": Case(learner={"activation_checkpointing": True}),
    "recomputation, InternVL, bfloat16": Case(
        family="internvl", learner={"activation_checkpointing": True, "dtype": "bfloat16"}
    ),
    "frozen tower": Case(learner={"freeze": ("vision_tower",)}),
    "pictures are the peak": Case(
        image_side=448,
        prompt_tokens=260,
        completion_tokens=3,
        group_size=2,
        learner={"activation_checkpointing": True},
    ),
    "everything outside of blocks is the peak": Case(
        vocab_size=20000, image_side=56, prompt_tokens=12, completion_tokens=3, prompts=1
    ),
    "KL to a reference": Case(learner={"kl_coef": 0.1}),
    "adapters": Case(learner={"freeze": ("vision_tower",), "lora": LoraConfig(rank=8), "kl_coef": 0.1}),
    "adapters, bfloat16": Case(
        learner={"dtype": "bfloat16", "freeze": ("vision_tower",), "lora": LoraConfig(rank=8), "kl_coef": 0.1}
    ),
    "frozen tower, KL to a reference, bfloat16": Case(
        learner={"dtype": "bfloat16", "freeze": ("vision_tower",), "kl_coef": 0.1}
    ),
    **{f"tiny {name}": demo_case(name) for name in TINY_MODELS},
    "tiny qwen3_5, recomputation, bfloat16": demo_case("qwen3_5", activation_checkpointing=True, dtype="bfloat16"),
    "tiny gemma4, bfloat16": demo_case("gemma4", dtype="bfloat16"),
}


SLOW = (
    *("bfloat16", "recomputation", "pictures are the peak", "KL to a reference"),
    "frozen tower, KL to a reference, bfloat16",
    *(f"tiny {name}" for name in ("internvl", "internvl3_5", "qwen2_vl", "qwen2_5_vl", "qwen3_vl")),
    *("tiny qwen3_5, recomputation, bfloat16", "tiny gemma4, bfloat16"),
)
"""Seconds each, and close to one of the others."""

Found = tuple[Case, Path, Measured]


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in CASES]
)
def found(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """(case, its model, what a real rank of it held)."""
    case, folder = CASES[request.param], tmp_path_factory.mktemp("model")
    write_model(case, folder)
    return case, folder, measure_fsdp(case, folder)


def test_what_stays_between_steps_is_planned_exactly(found: Found) -> None:
    case, folder, measured = found
    parts, _ = plan(case, folder)

    # AdamW counts each tensor's steps in a float of its own.
    assert sum(item.bytes for item in parts.kept) == pytest.approx(measured.kept, rel=1e-3)


def test_the_fullest_moment_of_a_step_is_planned_within_15_percent(found: Found) -> None:
    case, folder, measured = found
    parts, pictures = plan(case, folder)

    # On a CPU the pictures of a step lie in the same memory.
    assert fullest(parts, without=TRANSFER) + pictures == pytest.approx(measured.phases["step"], rel=TOLERANCE)


def test_a_transfer_of_all_weights_is_planned_within_15_percent(found: Found) -> None:
    case, folder, measured = found
    parts, _ = plan(case, folder)

    planned = sum(item.bytes for item in (*parts.kept, *parts.phases[TRANSFER]))
    assert planned == pytest.approx(measured.kept + measured.phases["transfer"], rel=TOLERANCE)
