"""Whole runs for the tests of plans."""

from dataclasses import replace
from pathlib import Path

from orchestration.cli import compose
from orchestration.inputs.machine import build_config
from orchestration.settings.experiment import ExperimentConfig
from orchestration.settings.model import ModelConfig
from tests.unit.plan.published import PUBLISHED

QWEN_PROCESSOR = {"min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "merge_size": 2}
"""As published with every size."""


def gpu_config(tmp_path: Path, *overrides: str) -> ExperimentConfig:
    """Qwen2.5-VL-7B on four learner ranks of FSDP2 and four engines of one GPU each, as the GPU groups have it."""
    gpu = ["learner=fsdp_gpu", "rollout=vllm_gpu", "cluster=ray", f"run_dir={tmp_path / 'run'}"]
    model = ModelConfig(
        path=None,
        family="qwen2_5_vl",
        coord_mode="pixel_resized",
        hf_config=PUBLISHED["qwen2_5_vl_7b"],
        hf_processor=QWEN_PROCESSOR,
    )
    return replace(build_config(compose([*gpu, *overrides])), model=model)


def cpu_config(tmp_path: Path, *overrides: str) -> ExperimentConfig:
    """The embedded default."""
    return build_config(compose([f"run_dir={tmp_path / 'run'}", *overrides]))
