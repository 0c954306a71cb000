"""Planned memory of a learner rank against what torch's CUDA allocator gave out at its peak. Written, never run."""

from pathlib import Path

import pytest
import torch

from learner.config import FsdpConfig
from tests.benchmarks.memory_cases import Case, fullest, plan, trainer_of, write_model

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

LARGE = {"width": 1024, "layers": 8, "vision_width": 512, "vocab_size": 32768, "completion_tokens": 200}
CASES = {
    "plain": {},
    "recomputation, frozen tower": {"activation_checkpointing": True, "freeze": ("vision_tower",)},
    "state on the host": {"activation_checkpointing": True},
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl"])
def test_the_peak_on_a_gpu_is_planned_within_15_percent(family: str, name: str, tmp_path: Path) -> None:
    settings = {"device": "cuda", "dtype": "bfloat16", "attention": "sdpa", **CASES[name]}
    if name == "state on the host":
        settings["fsdp"] = FsdpConfig(cpu_offload=True)
    case = Case(family=family, learner=settings, **LARGE)  # type: ignore[arg-type]
    write_model(case, tmp_path)
    with trainer_of(case, tmp_path) as trainer:
        torch.cuda.reset_peak_memory_stats()
        trainer.train_step(case.groups(), step=1)
        peak = torch.cuda.max_memory_allocated()

    parts, _ = plan(case, tmp_path)
    assert sum(item.bytes for item in parts.kept) + fullest(parts) == pytest.approx(peak, rel=0.15)
